"""How many runs a table has: identifiers, progress, and what options name, in all combinations."""

from itertools import count, product
from pathlib import Path
from typing import Any

import pytest

from scaling.report.foreign_tables.sweep_table import SweepTable, TableError, read_table

BATCHES, RATES = (32, 64), (1e-3, 2e-3, 4e-3)


def read(folder: Path, header: str, *lines: str, **options: Any) -> SweepTable:
    path = folder / "sweep.csv"
    path.write_text("\n".join((header, *lines)) + "\n")
    return read_table(path, **options)


IDENTIFIERS = ("", "run_id", "trial", "id", "run", "version")
"""None, of one run each, anew in each batch, with each setting, at each rate, and always 0."""
PROGRESS = {
    "": "none", "epoch": "the same", "_step": "its own", "step": "evaluations",
    "training_iteration": "stopped search",
}  # fmt: skip


@pytest.mark.parametrize("option", ["", "axes", "scale", "nuisance"])
@pytest.mark.parametrize(
    ("identifier", "progress"),
    [
        (i, p)
        for i, p in product(IDENTIFIERS, PROGRESS)
        if p != "training_iteration" or i not in ("", "version")
    ],
)  # without names most runs must have several rows
def test_the_number_of_runs_is_right(
    identifier: str, progress: str, option: str, tmp_path: Path
) -> None:
    """Two batches, three rates, and a further setting with two values: twelve runs."""
    extra = "weight_decay" if option in ("", "nuisance") else "N"
    own, lines = count(1), list[str]()
    for batch, (place, (value, rate)) in product(BATCHES, enumerate(product((0.1, 0.2), RATES))):
        number = next(own)
        name = {
            "": 0, "run_id": f"r{number}", "trial": place, "id": 3 * (batch == 64) + place % 3,
            "run": place // 3, "version": 0,
        }[identifier]  # fmt: skip
        steps = {
            "none": (0,), "the same": (5,), "its own": (1000 + 7 * number % 40,),
            "evaluations": (100, 200, 300), "stopped search": (1, 3)[: 1 + (place == 2)],
        }[PROGRESS[progress]]  # fmt: skip
        lines += [f"{name},{at},{value},{batch},{rate},{3 - at / 1e4}" for at in steps]
    header = f"{identifier or 'x'},{progress or 'y'},{extra}"
    header += ",global_batch_size,peak_lr,validation_loss"
    found = read(tmp_path, header, *lines, **({option: [extra]} if option else {}))
    assert len(found.sweep.rows) == 12
    assert len({row.recipe_key for row in found.sweep.rows}) == 12


HEADER = "global_batch_size,peak_lr,validation_loss"
SEED_OPTIONS = [{}, {"rename": [("run", "seed")]}, {"nuisance": ["run"]}]


@pytest.mark.parametrize("options", SEED_OPTIONS)
@pytest.mark.parametrize("progress", ["step", "epoch"])
def test_numbers_of_replicates_name_no_runs(
    options: dict[str, Any], progress: str, tmp_path: Path
) -> None:
    """As of early stopping, each run ends at a progress of its own."""
    lines = [
        f"{run},{(7 * n + 11 * run) % 23 + 400},32,{rate},{2 + n / 10}"
        for n, rate in enumerate(RATES)
        for run in range(3)
    ]
    assert len(read(tmp_path, f"run,{progress},{HEADER}", *lines, **options).sweep.rows) == 9


@pytest.mark.parametrize("options", [*SEED_OPTIONS, {"nuisance": ["weight_decay"]}])
@pytest.mark.parametrize("ends", [(100, 200, 300), (7,)])
def test_numbers_of_replicates_of_several_settings(
    ends: tuple[int, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    lines = [
        f"{run},{end if end > 7 else 900 + 3 * n},32,{rate},2.0,{decay}"
        for n, (run, rate, decay) in enumerate(product(range(2), RATES, (0, 0.1)))
        for end in ends
    ]
    found = read(tmp_path, f"run,step,{HEADER},weight_decay", *lines, **options)
    assert len(found.sweep.rows) == 12


@pytest.mark.parametrize("further", ["", "fold", "weight_decay"])
def test_names_that_are_repeated_at_one_step_are_of_recipes(further: str, tmp_path: Path) -> None:
    """Three runs of each name; one of them was cut a little short."""
    lines = [
        f"b{batch}-{rate},{990 if (batch, rate, n) == (64, 2e-3, 1) else 1000},{n},{batch},"
        f"{rate},{2 + n / 100}"
        for batch, rate, n in product(BATCHES, RATES, range(3))
    ]
    found = read(tmp_path, f"run_name,step,{further or 'x'},{HEADER}", *lines)
    assert [row.status for row in found.sweep.rows] == ["done"] * 18


def test_a_setting_that_is_scheduled_tells_no_runs_apart(tmp_path: Path) -> None:
    lines = [
        f"{trial},{at},{batch},{rate},2.0,{0.95 - at / 1000}"
        for batch, (trial, rate) in product(BATCHES, enumerate(RATES))
        for at in (50, 100)
    ]
    assert len(read(tmp_path, f"trial,step,{HEADER},momentum", *lines).sweep.rows) == 6


def trials_anew(*budgets: int) -> list[str]:
    """Of random rates but for the first, the default one."""
    rates = count(1)
    return [
        f"{trial},{steps},{batch},{(next(rates) if trial else 500) / 1e6},{3 - steps / 1e4}"
        for steps in budgets
        for batch in BATCHES
        for trial in range(6)
    ]


@pytest.mark.parametrize("options", [{"axes": ["steps"]}, {"nuisance": ["steps"]}])
def test_trials_that_begin_anew_in_each_budget_are_runs(
    options: dict[str, Any], tmp_path: Path
) -> None:
    header = f"trial,steps,{HEADER}"
    assert len(read(tmp_path, header, *trials_anew(1000, 2000), **options).sweep.rows) == 24


def test_trials_of_random_rates_in_each_budget_have_no_moving_rates(tmp_path: Path) -> None:
    lines = [line for line in trials_anew(1000, 2000) if not line.startswith("0,")]
    assert len(read(tmp_path, f"trial,steps,{HEADER}", *lines, nuisance=["steps"]).sweep.rows) == 20


def test_an_option_says_that_a_column_names_no_runs(tmp_path: Path) -> None:
    """Epochs of a grid look as a log does; then the message has the way on."""
    lines = [f"{run},{n + 1},32,{rate},2.{n}" for n, rate in enumerate(RATES) for run in range(3)]
    header = "run,epoch,global_batch_size,lr,validation_loss"
    with pytest.raises(TableError, match="--nuisance RUN"):
        read(tmp_path, header, *lines, rename=[("lr", "peak_lr")])
    found = read(tmp_path, header, *lines, rename=[("lr", "peak_lr")], nuisance=["run"])
    assert len(found.sweep.rows) == 9


def test_trials_of_hyperband_begin_at_the_rung_of_their_bracket(tmp_path: Path) -> None:
    lines = [
        f"t{bracket}{n},{at},32,{(100 * bracket + n + 1) / 1e5},{3 - at / 10}"
        for bracket, rungs in enumerate([(1, 3, 9), (3, 9)])
        for n in range(6)
        for at in rungs[: 1 if n < 4 else 3]
    ]
    found = read(tmp_path, f"trial_id,training_iteration,{HEADER}", *lines)
    assert len(found.sweep.rows) == 12


def test_searched_columns_of_ours_tell_runs_apart(tmp_path: Path) -> None:
    lines = [
        f"32,{rate},2.0,{warmup},{900 + 10 * warmup + n}"
        for n, rate in enumerate(RATES)
        for warmup in (1, 2)
    ]
    assert len(read(tmp_path, f"{HEADER},warmup_steps,_step", *lines).sweep.rows) == 6


@pytest.mark.parametrize("column", ["training_iteration", "epoch"])
def test_runs_of_a_search_end_early_by_their_score_in_percent_too(
    column: str, tmp_path: Path
) -> None:
    lines = [
        f"32,{rate / 1000},{80 + n}%,{n}"
        for rate, n in zip((1, 2, 3, 4, 5), (1, 1, 4, 16, 16), strict=True)
    ]
    header = f"global_batch_size,peak_lr,acc,{column}"
    found = read(tmp_path, header, *lines, maximize="acc")
    assert [row.status for row in found.sweep.rows] == ["stopped"] * 3 + ["done"] * 2
    assert [row.metrics for row in found.sweep.rows[3:]] == [{"acc": 96.0}] * 2
    curves = [f"r{line.split(',')[1]},{line}" for line in lines]
    curves += [f"{line.rsplit(',', 1)[0]},0" for line in curves]
    found = read(tmp_path, f"run_id,{header}", *curves, maximize="acc")
    assert [row.status for row in found.sweep.rows] == ["stopped"] * 3 + ["done"] * 2
