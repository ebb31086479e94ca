"""Tables from elsewhere: what is read, and what is said about a bad one."""

import gzip
import math
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scaling.analysis.findings import analyse
from scaling.report.__main__ import main
from scaling.report.foreign_tables.sweep_table import TableError, read_table
from scaling.report.summary import summarize

HEADER = "global_batch_size,peak_lr,validation_loss"


def table(folder: Path, *lines: str) -> Path:
    path = folder / "sweep.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_seeds_of_one_recipe_are_averaged(tmp_path: Path) -> None:
    lines = [
        f"32,{lr},{loss},{loss - 0.5},{seed}"
        for lr, losses in ((1e-3, (2.0, 2.2)), (2e-3, (1.5, 2.9)), (4e-3, (2.4, 2.4)))
        for seed, loss in enumerate(losses)
    ]
    path = table(tmp_path, HEADER + ",train_loss,seed", *lines)
    (cell,) = analyse(read_table(path).sweep).cells
    assert cell.validation_loss.value == pytest.approx(2.1)
    assert cell.num_seeds == 2
    assert cell.gap.value == pytest.approx(0.5)
    assert cell.gap.interval is not None


def test_without_a_seed_column_every_row_is_its_own_recipe(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER, "32,0.001,2.0", "32,0.001,2.2", "32,0.002,2.4")
    (cell,) = analyse(read_table(path).sweep).cells
    assert cell.validation_loss.value == 2.0
    assert cell.num_seeds == 0
    assert cell.num_trials == 3


def test_diverged_and_censored_rows_stay(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        HEADER + ",steps_to_target,diverged",
        "32,0.001,2.0,,false",
        "32,0.002,1.9,400,0",
        "32,0.004,,,true",
        "32,0.008,nan,,",
    )
    (cell,) = analyse(read_table(path).sweep).cells
    assert (cell.num_trials, cell.num_diverged, cell.num_censored) == (4, 2, 1)
    assert cell.target.steps.value == 400
    assert cell.target.examples.value == 12800


def test_rename_and_where(tmp_path: Path) -> None:
    path = table(tmp_path, "bs,lr,smooth loss,N", "32,0.001,2.0,7", "64,0.001,2.1,8")
    sweep = read_table(
        path,
        rename=[("bs", "global_batch_size"), ("lr", "peak_lr"), ("smooth loss", "validation_loss")],
        where=[("N", "8.0")],
    ).sweep
    assert [row.global_batch_size for row in sweep.rows] == [64]
    assert sweep.tuned_for.label == "smooth loss"


def test_a_byte_order_mark_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    path.write_text(f"{HEADER}\n\n32,0.001,2.0\n\n", encoding="utf-8-sig")
    assert len(read_table(path).sweep.rows) == 1


BAD_TABLES = {
    "not a number": (["32,0.001,2.0", "32,fast,2.0"], ["line 3", "row 2", "'peak_lr'", "'fast'"]),
    "rate below zero": (["32,-0.001,2.0"], ["line 2", "'peak_lr'", "above 0"]),
    "rate not finite": (["32,inf,2.0"], ["line 2", "'peak_lr'", "'inf'"]),
    "half a batch": (["32.5,0.001,2.0"], ["line 2", "'global_batch_size'", "whole number"]),
    "no batch": ([",0.001,2.0"], ["line 2", "'global_batch_size'"]),
    "no loss": (["32,0.001,"], ["line 2", "'validation_loss'", "blank"]),
    "too few columns": (["32,0.001"], ["line 2", "2 columns", "3"]),
    "no rows": ([], ["no rows"]),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_bad_rows_name_column_and_row(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, words = BAD_TABLES[name]
    assert_refused([str(table(tmp_path, HEADER, *lines))], words, tmp_path, capsys)


BAD_HEADERS = {
    "missing column": (["global_batch_size,peak_lr", "32,0.1"], [], "missing column 'validation"),
    "duplicate column": (["global_batch_size,peak_lr,peak_lr", "1,2,3"], [], "two columns"),
    "empty file": ([], [], "is empty"),
    "unknown rename": ([HEADER, "1,2,3"], ["--rename", "bs=peak_lr"], "no column 'bs'"),
    "rename of another's name": (
        ["global_batch_size,lr,loss", "1,2,3"],
        ["--rename", "config.lr=peak_lr"],
        "did you mean --rename lr=peak_lr?",
    ),
    "a batch per device without their number": (
        ["per_device_train_batch_size,peak_lr,loss", "1,2,3"],
        [],
        '--rename "per_device_train_batch_size*8=global_batch_size"',
    ),
    "rename to nothing known": ([HEADER, "1,2,3"], ["--rename", "peak_lr=rate"], "unknown name"),
    "unknown where": ([HEADER, "1,2,3"], ["--where", "N=3"], "no column 'N'"),
    "no rows left": ([HEADER, "1,2,3"], ["--where", "peak_lr=3"], "no rows left where peak_lr=3"),
    "bad truth": ([HEADER + ",diverged", "1,2,3,maybe"], [], "'maybe' must be true or false"),
    "bad quotes": ([HEADER, '1,"2,3'], [], "not a CSV table"),
}


def test_an_export_with_a_step_is_not_called_a_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(tmp_path, "batch_size,learning_rate,eval/loss,_step", "32,0.001,2.0,100")
    assert main(["--from-csv", str(path)]) == 2
    assert "log of one run" not in capsys.readouterr().err


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_bad_tables_are_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, options, words = BAD_HEADERS[name]
    assert_refused([str(table(tmp_path, *lines)), *options], [words], tmp_path, capsys)


def test_unreadable_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(
        [str(tmp_path / "nowhere.csv")], ["nowhere.csv", "No such file"], tmp_path, capsys
    )
    assert_refused([str(tmp_path)], ["cannot be read"], tmp_path, capsys)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    assert_refused([str(binary)], ["not UTF-8"], tmp_path, capsys)


def assert_refused(
    arguments: list[str], words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, one line with all the words, and no report."""
    output = folder / "report"
    assert main(["--from-csv", *arguments, "--output", str(output)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    for word in words:
        assert word in message
    assert not output.exists()


def test_errors_are_table_errors(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="missing column"):
        read_table(table(tmp_path, "a,b", "1,2"))


def test_a_wandb_export(tmp_path: Path) -> None:
    """Quoted numbers, our names behind config and summary, runs that did not finish."""
    path = table(
        tmp_path,
        '"Name","State","Runtime","config.global_batch_size","config.peak_lr",'
        '"summary.validation_loss"',
        '"a","finished","12","32","0.001","2.0"',
        '"b","crashed","3","32","0.002",""',
        '"c","running","3","32","",""',
        '"d","killed","3","32","0.004","NaN"',
        '"e","finished","9","32","0.008","NaN"',
    )
    found = read_table(path)
    assert [(row.status, row.validation_loss) for row in found.sweep.rows] == [
        ("done", 2.0), ("diverged", None),
    ]  # fmt: skip
    assert "Left out: 2 rows of runs that failed or were killed." in found.notes
    assert "Left out: 1 row of runs that had not ended." in found.notes


def test_an_mlflow_export(tmp_path: Path) -> None:
    """`tags.status` knows of divergence, MLflow's status does not; the parent run is no trial."""
    path = table(
        tmp_path,
        "run_id,status,params.global_batch_size,params.peak_lr,metrics.validation_loss,"
        "tags.status,tags.mlflow.parentRunId",
        "p,FINISHED,,,,,",
        "a,FINISHED,32,0.001,2.0,done,p",
        "b,FINISHED,32,0.002,9.5,diverged,p",
        "c,RUNNING,32,0.003,2.2,running,p",
    )
    found = read_table(path)
    assert [row.status for row in found.sweep.rows] == ["done", "diverged"]
    assert found.sweep.rows[1].validation_loss is None
    assert "Left out: 1 parent run of MLflow." in found.notes


def test_one_name_in_two_places_is_refused(tmp_path: Path) -> None:
    path = table(
        tmp_path, "global_batch_size,config.peak_lr,params.peak_lr,validation_loss", "1,1,1,1"
    )
    with pytest.raises(TableError, match="may all be 'peak_lr'"):
        read_table(path)


def test_a_missing_column_is_suggested_and_never_taken(tmp_path: Path) -> None:
    path = table(tmp_path, "config.lr,bs,val/loss", "0.001,32,2.0")
    with pytest.raises(TableError) as error:
        read_table(path)
    for hint in ("bs=global_batch_size", "config.lr=peak_lr", "val/loss=validation_loss"):
        assert f"--rename {hint}" in str(error.value)


SAME = [(32, 0.001, 2.0), (64, 0.002, 1.5)]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (f"{HEADER}\r\n32,1e-3,2.0\r\n64,2E-3,1.5\r\n\r\n".encode(), "crlf.csv"),
        (f"{HEADER.replace(',', ';')};;\n32;0,001;2,0;;\n64;0,002;1,5;;\n".encode(), "excel.csv"),
        (f"{HEADER}\n32,0.001,2.0\n64,0.002,1.5".replace(",", "\t").encode("utf-16"), "wide.csv"),
        (gzip.compress(f"{HEADER}\n32,.001,2\n64,.002,1.5\n".encode(), mtime=0), "small.csv.gz"),
        (f"# by hand\n{HEADER}\n32,0.001,2.0\n32,0.001,2.0\n64,0.002,1.5\n".encode(), "twice.csv"),
        (f"sep=;\n{HEADER.replace(',', ';')}\n32;0.001;2\n64;0.002;1.5\n".encode(), "sep.csv"),
    ],
)  # fmt: skip
def test_the_same_table_in_many_dresses(content: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    rows = read_table(path).sweep.rows
    assert [(r.global_batch_size, r.peak_lr, r.validation_loss) for r in rows] == SAME


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "sweep.parquet"
    names = HEADER.split(",")
    pq.write_table(pa.table([pa.array(c) for c in zip(*SAME, strict=True)], names=names), path)
    rows = read_table(path).sweep.rows
    assert [(r.global_batch_size, r.peak_lr, r.validation_loss) for r in rows] == SAME


def test_commas_in_numbers_are_read_by_rule_or_refused(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER, '"1,024",0.001,2.0')
    found = read_table(path)
    assert found.sweep.rows[0].global_batch_size == 1024
    assert any("between thousands" in note for note in found.notes)
    for lines in (
        [HEADER, '32,0.001,"2,345"'],
        [HEADER.replace(",", ";"), "1,024;0,001;2,0"],
    ):
        with pytest.raises(TableError, match=r"line 2 .* has a comma that may stand"):
            read_table(table(tmp_path, *lines))


def test_rows_that_share_a_seed_are_not_averaged(tmp_path: Path) -> None:
    """Something differs that the table does not tell; a setting that it tells is one searched."""
    lines = ["32,0.001,2.0,0,0.1", "32,0.001,3.0,0,0.2", "32,0.002,2.5,0,0.1"]
    untold = table(tmp_path, HEADER + ",seed", *(line.rsplit(",", 1)[0] for line in lines))
    found = read_table(untold)
    assert len({row.recipe_key for row in found.sweep.rows}) == 3
    assert any("something else differs" in note for note in found.notes)
    path = table(tmp_path, HEADER + ",seed,weight_decay", *lines)
    assert read_table(path).sweep.rows[1].choices == {"peak_lr": 0.001, "weight_decay": 0.2}
    named = read_table(path, nuisance=["weight_decay"])
    assert named.sweep.rows[1].choices == {"peak_lr": 0.001, "weight_decay": 0.2}
    assert not any("something else differs" in note for note in named.notes)


def test_a_further_axis_makes_cells(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER + ",optimizer", "32,0.001,2.0,sgd", "32,0.001,1.9,lamb")
    sweep = read_table(path, axes=["optimizer"]).sweep
    assert sweep.cells == (
        {"global_batch_size": 32, "optimizer": "lamb"},
        {"global_batch_size": 32, "optimizer": "sgd"},
    )


@pytest.mark.slow
@pytest.mark.parametrize("num_trials", [64, 240])
def test_sampled_batch_sizes_are_read_by_the_surface(num_trials: int, tmp_path: Path) -> None:
    """Hardly a batch size has two trials; each has a best rate, and together an exponent."""
    rng = random.Random(1)
    lines = [HEADER]
    for _ in range(num_trials):
        batch, rate = round(2 ** rng.uniform(5, 10)), 1e-4 * 2 ** rng.uniform(0, 8)
        best = 0.002 * math.sqrt(batch / 64)
        lines.append(
            f"{batch},{rate},{2 + 0.05 * math.log(rate / best) ** 2 + rng.gauss(0, 0.004)}"
        )
    findings = analyse(read_table(table(tmp_path, *lines)).sweep)
    interval = findings.lr_scaling.exponent.interval
    assert interval is not None
    assert interval[0] < 0.5 < interval[1]
    assert 0.3 < (findings.lr_scaling.exponent.value or 0.0) < 0.7
    rates = [(cell.global_batch_size or 0, cell.best_peak_lr or 0.0) for cell in findings.cells]
    assert len(rates) > num_trials / 2
    off = [abs(math.log(rate / (0.002 * math.sqrt(batch / 64)))) for batch, rate in rates]
    assert sorted(off)[len(off) // 2] < math.log(1.3)
    assert not any(cell.undertuned for cell in findings.cells)


def test_a_column_of_other_states_is_no_status(tmp_path: Path) -> None:
    path = table(tmp_path, HEADER + ",state", "32,0.001,2.0,CA", "32,0.002,2.2,NY")
    assert [row.status for row in read_table(path).sweep.rows] == ["done", "done"]
    bad = table(tmp_path, HEADER + ",status", "32,0.001,2.0,lost", "32,0.002,2.2,found")
    with pytest.raises(TableError, match="'lost' is no status; --where COLUMN=VALUE"):
        read_table(bad)
    assert len(read_table(bad, where=[("status", "found")]).sweep.rows) == 1


def test_of_a_large_table_a_batch_without_an_ended_trial_has_no_best_rate(tmp_path: Path) -> None:
    lines = ["global_batch_size,peak_lr,validation_loss,status"]
    for batch in (32, 64, 128):
        for place in range(80):
            rate = 10 ** (-4 + 2.5 * place / 79)
            away = math.log(rate / 0.002) ** 2
            lines.append(f"{batch},{rate},{2 + 0.05 * away},COMPLETE")
    lines += [f"512,{rate},,PRUNED" for rate in (0.001, 0.002, 0.003)]
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(lines))
    *tried, pruned = summarize(analyse(read_table(path).sweep))["cells"]
    assert all(cell["best_peak_lr"] == pytest.approx(0.002, rel=0.1) for cell in tried)
    assert pruned["validation_loss"] is None


@pytest.mark.parametrize("status", ["done", "stopped"])
def test_a_run_that_stopped_at_its_target_has_its_steps_as_the_objective(
    status: str, tmp_path: Path
) -> None:
    """The batch of the least time is recommended, which without an objective has no time."""
    lines = [
        f"{batch},{rate},{steps * more},{steps * more * seconds},{steps * more},{status}"
        for batch, steps, seconds in ((32, 500, 0.01), (64, 300, 0.012), (128, 250, 0.03))
        for rate, more in ((1e-3, 1.2), (2e-3, 1), (4e-3, 1.2))
    ]
    header = "global_batch_size,peak_lr,steps,seconds,steps_to_target,status"
    sweep = read_table(table(tmp_path, header, *lines)).sweep
    assert [row.objective for row in sweep.rows] == [row.steps_to_target for row in sweep.rows]
    assert analyse(sweep).recommendation.global_batch_size == 64


def test_steps_to_the_target_are_no_objective_among_losses(tmp_path: Path) -> None:
    lines = ["32,0.001,2.0,100,done", "32,0.002,2.1,90,pruned", "32,0.004,,80,pruned"]
    path = table(tmp_path, HEADER + ",steps_to_target,status", *lines)
    assert [row.objective for row in read_table(path).sweep.rows] == [2.0, None, None]
