"""What else varies in a table: named, made a cell, or refused; nothing is averaged over it."""

from pathlib import Path

import pytest

from scaling.analysis.findings import analyse
from scaling.report.foreign_tables.sweep_table import TableError, read_table
from scaling.report.foreign_tables.table_columns import Kind, kind_of

HEADER = "global_batch_size,peak_lr,validation_loss"
TWO_MODELS = [
    f"{model},{64 * 2**place},{steps}"
    for model, column in (("a", (1000, 520, 280, 170, 110)), ("b", (3000, 1510, 760, 390, 205)))
    for place, steps in enumerate(column)
]


def table(folder: Path, *lines: str) -> Path:
    path = folder / "sweep.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_steps_of_two_models_are_not_pooled(tmp_path: Path) -> None:
    """Pooled they gave one critical batch of 1,170 [1,062, 1,297]."""
    path = table(tmp_path, "model,global_batch_size,steps_to_target", *TWO_MODELS)
    with pytest.raises(TableError, match="differ in column 'model'") as error:
        read_table(path)
    for way in ("--where model=a", "--cell model", "--nuisance model"):
        assert way in str(error.value)
    values = {
        model: analyse(read_table(path, where=[("model", model)]).sweep).tradeoff.value
        for model in "ab"
    }
    assert values["a"] is not None
    assert values["b"] is not None
    assert values["a"] == pytest.approx(1168, rel=0.05)
    assert values["b"] > 4 * values["a"]
    cells = read_table(path, axes=["model"]).sweep.cells
    assert len(cells) == 10


def rows(column: str, *values: object) -> list[str]:
    """Every value of a further column with every batch and rate."""
    lines = [f"{HEADER},{column}"]
    for place, value in enumerate(values):
        for batch in (32, 64):
            for step, rate in enumerate((1e-3, 2e-3, 4e-3)):
                lines.append(f"{batch},{rate},{2 + place + abs(step - 1) / 10},{value}")
    return lines


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("N", (85, 300)), ("D", (1e9, 2e9)), ("optimizer", ("adamw", "lion")),
        ("config.optimizer.name", ("adamw", "lion")), ("params.dataset", ("c4", "pile")),
        ("hidden_size", (256, 512)), ("steps", (1000, 4000)), ("num_epochs", (1, 3)),
        ("lr_schedule", ("cosine", "constant")), ("variant", ("new", "old")),
        ("colour", ("red", "blue")), ("params_model", ("s", "m")), ("Experiment", ("x", "y")),
        ("budget", ("small", "large")), ("seq_len", (512, 1024)),
        ("model_name_or_path", ("gpt2", "opt")), ("checkpoint", ("a.pt", "b.pt")),
        ("config.norm", ("layer", "rms")), ("params.loss", ("ce", "mse")),
        ("config.eval_lang", ("en", "de")), ("config.test_domain", ("news", "law")),
        ("config.eval_mode", ("zero", "few")),
    ],
)  # fmt: skip
def test_what_is_compared_is_refused_with_two_ways_on(
    column: str, values: tuple[object, ...], tmp_path: Path
) -> None:
    path = table(tmp_path, *rows(column, *values))
    with pytest.raises(TableError) as error:
        read_table(path)
    assert repr(column) in str(error.value)
    assert f"--where {column}=" in str(error.value)
    assert f"--cell {column}" in str(error.value)
    assert len(read_table(path, where=[(column, str(values[0]))]).sweep.rows) == 6
    assert len(read_table(path, axes=[column]).sweep.cells) == 4
    searched = read_table(path, nuisance=[column]).sweep
    assert len({row.recipe_key for row in searched.rows}) == 12


def test_a_column_that_goes_with_a_cell_is_no_other_difference(tmp_path: Path) -> None:
    lines = rows("model", "a", "b")
    lines = [lines[0] + ",params", *(f"{line},{85 if ',a' in line else 300}" for line in lines[1:])]
    path = table(tmp_path, *lines)
    with pytest.raises(TableError, match=r"'model'.*'params'"):
        read_table(path)
    assert len(read_table(path, axes=["model"]).sweep.cells) == 4


@pytest.mark.parametrize("column", ["weight_decay", "config.beta2", "warmup_ratio", "knob"])
def test_settings_that_vary_count_as_searched_and_are_named(column: str, tmp_path: Path) -> None:
    """Also with seeds, which are then no replicates of each other."""
    lines = rows(column, 0.1, 0.3)
    seeded = [lines[0] + ",seed", *(f"{line},{seed}" for seed in (0, 1) for line in lines[1:])]
    found = read_table(table(tmp_path, *seeded))
    assert len({row.recipe_key for row in found.sweep.rows}) == 12
    assert any(column in note and "count as searched" in note for note in found.notes)
    cells = analyse(found.sweep).cells
    assert [cell.validation_loss.value for cell in cells] == [2.0, 2.0]
    assert [cell.best.choices[column] for cell in cells if cell.best] == [0.1, 0.1]


def test_what_goes_with_the_batch_is_only_named(tmp_path: Path) -> None:
    lines = [f"{batch},{rate},2.0,{batch // 32},{64000 // batch}"
             for batch in (32, 64) for rate in (1e-3, 2e-3)]  # fmt: skip
    found = read_table(table(tmp_path, HEADER + ",num_gpus,steps", *lines))
    assert len(found.sweep.rows) == 4
    assert any("vary with the batch size: num_gpus, steps" in note for note in found.notes)


@pytest.mark.parametrize("folder", ["out/{rate}/{n}", "out/{batch}/{n}"])
def test_names_times_and_measurements_are_left_alone(folder: str, tmp_path: Path) -> None:
    lines = [
        f"{batch},{rate},2.0,run-{batch}-{rate},{rate * 7},0.{batch},2026-01-0{n},"
        + folder.format(batch=batch, rate=rate, n=n)
        for batch in (32, 64)
        for n, rate in enumerate((1e-3, 2e-3), 1)
    ]
    header = HEADER + ",Name,grad_norm,eval_accuracy,Created,model_path"
    found = read_table(table(tmp_path, header, *lines))
    assert not any("vary" in note for note in found.notes)
    assert found.sweep.rows[0].choices == {}


@pytest.mark.parametrize("column", ["params.output_dir", "config.exp_name", "model_dir", "folder"])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_name_that_spells_batch_and_rate_is_no_other_difference(
    column: str, seeds: int, tmp_path: Path
) -> None:
    lines = [f"{batch},{rate},2.{seed},out/b{batch}-lr{rate},{seed}"
             for batch in (32, 64, 128, 256) for rate in (1e-3, 2e-3, 4e-3, 8e-3)
             for seed in range(seeds)]  # fmt: skip
    found = read_table(table(tmp_path, f"{HEADER},{column},seed", *lines))
    assert len({row.recipe_key for row in found.sweep.rows}) == 16
    assert not any(column in note for note in found.notes)


@pytest.mark.parametrize(
    "column",
    [
        "config.output_dir", "config.logging_dir", "config.log_dir", "params.cache_dir",
        "config.checkpoint_dir", "config.save_path", "config/local_dir", "config.tensorboard_path",
        "config.hub_model_id", "config.resume_from_checkpoint", "config.eval_steps",
        "config.eval_batch_size", "params.time_limit", "config.checkpoint_every",
        "config.save_total_limit", "config.val_check_interval",
    ],
)  # fmt: skip
@pytest.mark.parametrize("values", [("/scratch/ada", "/scratch/bob"), (100, 200)])
def test_where_a_run_writes_and_how_often_it_evaluates_is_no_other_difference(
    column: str, values: tuple[object, ...], tmp_path: Path
) -> None:
    lines = [f"{batch},{rate},2.{seed},{values[(n // 2 + seed) % 2]},{seed}"
             for batch in (32, 64) for n, rate in enumerate((1e-3, 2e-3, 4e-3, 8e-3))
             for seed in range(2)]  # fmt: skip
    found = read_table(table(tmp_path, f"{HEADER},{column},seed", *lines))
    assert len({row.recipe_key for row in found.sweep.rows}) == 8


@pytest.mark.parametrize("nuisance", [[], ["weight_decay"]])
@pytest.mark.parametrize("column", ["params.output_dir", "model_dir"])
def test_a_name_may_spell_settings_too(column: str, nuisance: list[str], tmp_path: Path) -> None:
    lines = [f"{batch},{rate},2.{seed},{wd},out/b{batch}-lr{rate}-wd{wd},{seed}"
             for batch in (32, 64) for rate in (1e-3, 2e-3, 4e-3) for wd in (0, 0.1)
             for seed in range(3)]  # fmt: skip
    path = table(tmp_path, f"{HEADER},weight_decay,{column},seed", *lines)
    found = read_table(path, nuisance=nuisance)
    assert len({row.recipe_key for row in found.sweep.rows}) == 12


@pytest.mark.parametrize("column", ["model", "model_name", "optimizer"])
def test_a_model_with_rates_of_its_own_is_no_name(column: str, tmp_path: Path) -> None:
    lines = [f"{batch},{rate},2.0,{'b' if rate > 3e-3 else 'a'}"
             for batch in (32, 64) for rate in (1e-3, 2e-3, 4e-3, 8e-3)]  # fmt: skip
    with pytest.raises(TableError, match=f"'{column}'"):
        read_table(table(tmp_path, f"{HEADER},{column}", *lines))


@pytest.mark.parametrize("column", ["slurm_array_task_id", "SLURM_JOB_ID", "array_task"])
def test_numbers_of_a_clusters_jobs_may_repeat(column: str, tmp_path: Path) -> None:
    lines = [f"{batch},{rate},2.0,{n}"
             for batch in (32, 64) for n, rate in enumerate((1e-3, 2e-3, 4e-3))]  # fmt: skip
    assert len(read_table(table(tmp_path, f"{HEADER},{column}", *lines)).sweep.rows) == 6


@pytest.mark.parametrize("column", ["dataset_grid", "model_nhid", "task_valid"])
def test_numbers_are_no_identifiers_by_the_end_of_their_name(column: str, tmp_path: Path) -> None:
    lines = [f"{batch},{rate},2.0,{place}{batch}"
             for batch in (32, 64) for place, rate in enumerate((1e-3, 2e-3))]  # fmt: skip
    with pytest.raises(TableError, match=f"'{column}'"):
        read_table(table(tmp_path, f"{HEADER},{column}", *lines))


def test_diverged_runs_ended_sooner_and_are_no_other_budget(tmp_path: Path) -> None:
    lines = ["32,0.001,2.0,1000", "32,0.002,1.9,1000", "32,0.004,nan,40", "32,0.008,nan,40"]
    assert len(read_table(table(tmp_path, HEADER + ",steps", *lines)).sweep.rows) == 4


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("optimizer.beta2", "setting"), ("optimizer.name", "compared"), ("model/size", "compared"),
        ("train_loss", "passed_over"), ("metrics.model_norm", "passed_over"), ("", "passed_over"),
        ("world_size", "label"), ("init_seed", "passed_over"), ("max_steps", "budget"),
        ("config.foo", "setting"), ("foo", "unknown"), ("model_id", "compared"),
        ("config.model_name_or_path", "compared"), ("dataset_path", "compared"),
        ("train_file", "file"), ("checkpoint", "file"), ("config.norm", "unknown"),
        ("params.loss", "unknown"), ("config.label_noise", "unknown"),
        ("config.data_version", "unknown"), ("config.train_split", "unknown"),
        ("config.hostname", "passed_over"), ("grad_norm", "passed_over"),
        ("lr", "label"), ("_step", "passed_over"), ("eval_steps", "passed_over"),
        ("config.model_cache_dir", "passed_over"), ("hub_model_id", "passed_over"),
        ("config.hub_model", "compared"), ("config.eval_dataset", "compared"),
        ("config.val_ratio", "unknown"), ("config.val_file", "unknown"),
        ("config.output_dim", "setting"), ("config.local_window", "setting"),
        ("log_perplexity", "passed_over"), ("config.checkpoint", "unknown"),
        ("config.context_limit", "setting"), ("config.limit", "setting"),
        ("limit_train_batches", "unknown"), ("config.limit_train_batches", "setting"),
        ("config.val_fold", "unknown"), ("config.eval_max_length", "unknown"),
        ("config.cache_latents", "setting"), ("config.log_every_n_steps", "label"),
    ],
)  # fmt: skip
def test_kinds_of_columns(name: str, kind: Kind) -> None:
    assert kind_of(name) == kind


def test_a_cell_may_be_blank_beside_numbers_and_words(tmp_path: Path) -> None:
    lines = [f"32,0.00{place},1.0,{clip}" for place, clip in enumerate(("tanh", 1.0, "none"), 1)]
    sweep = read_table(table(tmp_path, f"{HEADER},clip", *lines), axes=["clip"]).sweep
    assert [cell["clip"] for cell in sweep.cells] == [None, 1, "tanh"]


@pytest.mark.parametrize("num_batches", [30, 60])
def test_a_number_of_steps_of_its_own_in_every_row_is_no_budget(
    num_batches: int, tmp_path: Path
) -> None:
    lines = [f"{2 * n + 2},{rate},2.0,{1000 + 2 * n + k}"
             for n in range(num_batches) for k, rate in enumerate((1e-3, 2e-3))]  # fmt: skip
    path = table(tmp_path, HEADER + ",steps", *lines)
    assert len(read_table(path).sweep.rows) == 2 * num_batches


def test_many_data_sets_are_no_names_of_runs(tmp_path: Path) -> None:
    lines = [f"{batch},{rate},2.0,d{n}"
             for n in range(45) for batch in (32, 64) for rate in (1e-3, 2e-3)]  # fmt: skip
    with pytest.raises(TableError, match="'dataset'"):
        read_table(table(tmp_path, HEADER + ",dataset", *lines))


def test_a_name_of_a_run_with_several_rows_is_not_compared(tmp_path: Path) -> None:
    lines = [f"m{batch}-{rate},{batch},{rate},{3 - step / 100},{step},{n}"
             for batch in (32, 64) for n, rate in enumerate((1e-3, 2e-3))
             for step in (50, 100)]  # fmt: skip
    header = f"experiment_name,{HEADER},step,run"
    assert len(read_table(table(tmp_path, header, *lines)).sweep.rows) == 4
