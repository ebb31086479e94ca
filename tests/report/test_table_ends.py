"""Runs of a cell that end at different steps: stopped by a search, or ended by themselves."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scaling.analysis.findings import analyse
from scaling.report.__main__ import main
from scaling.report.foreign_tables.sweep_table import SweepTable, read_table

HEADER = "global_batch_size,peak_lr,validation_loss"
BATCHES, RATES = (8, 32, 128), (3e-4, 6e-4, 1.2e-3, 2.4e-3, 4.8e-3)
STOPPED = (1, 1, 4, 16, 16)
"""Iterations of a search, which goes on with the better runs."""


def read(folder: Path, header: str, *lines: str, **options: Any) -> SweepTable:
    path = folder / "sweep.csv"
    path.write_text("\n".join((header, *lines)) + "\n")
    return read_table(path, **options)


def statuses(table: SweepTable) -> list[str]:
    return [row.status for row in table.sweep.rows]


def distances() -> Iterator[tuple[int, float, float]]:
    """Each batch and rate, and how far this is from the best one in the logarithm."""
    for batch in BATCHES:
        for rate in RATES:
            yield batch, rate, abs(math.log(rate / (1e-3 * (batch / 32) ** 0.5)))


def test_runs_that_stop_by_patience_keep_their_losses(tmp_path: Path) -> None:
    """The further from the best rate, the longer a run goes on getting better."""
    lines = [f"{b},{rate},{0.7 + 0.05 * d * d},{int(5 + 4 * d)}" for b, rate, d in distances()]
    found = read(tmp_path, f"{HEADER},epoch", *lines)
    assert statuses(found) == ["done"] * 15
    assert any("The best run of 3 cells ended before others" in note for note in found.notes)
    best = [cell.best for cell in analyse(found.sweep).cells]
    assert [row.peak_lr for row in best if row] == [6e-4, 1.2e-3, 2.4e-3]
    logged = [
        f"r{n},{line.rsplit(',', 2)[0]},{float(line.split(',')[2]) + 0.01 * left},{end - left}"
        for n, line in enumerate(lines)
        for left in (2, 1, 0)
        for end in [int(line.rsplit(",", 1)[1])]
    ]
    log = read(tmp_path, f"run_id,{HEADER},epoch", *logged)
    assert statuses(log) == ["done"] * 15


def test_scores_are_better_where_they_are_larger(tmp_path: Path) -> None:
    lines = [f"{b},{rate},{90 - d * d}%,{int(5 + 4 * d)}" for b, rate, d in distances()]
    found = read(tmp_path, "global_batch_size,peak_lr,acc,epoch", *lines, maximize="acc")
    assert statuses(found) == ["done"] * 15


def searched(word: str = "", diverged: str = "") -> list[str]:
    """A search per batch; `diverged` is the loss of a run that goes to the end."""
    ends = [(n, f"{3 - n / 10}") for n in STOPPED] + ([(16, diverged)] if diverged else [])
    return [
        f"{batch},{2 ** (place - 10)},{loss},{n},{word}"
        for batch in BATCHES
        for place, (n, loss) in enumerate(ends)
    ]


@pytest.mark.parametrize("word", ["", "finished", "FINISHED", "TERMINATED"])
def test_runs_that_a_search_stopped_have_no_final_loss(word: str, tmp_path: Path) -> None:
    """MLflow, W&B and Ray call them as those that ended."""
    header = f"{HEADER},training_iteration,{'State' if word else 'x'}"
    found = read(tmp_path, header, *searched(word))
    assert statuses(found) == (["stopped"] * 3 + ["done"] * 2) * 3
    assert "--keep-early keeps their losses" in " ".join(found.notes)
    kept = read(tmp_path, header, *searched(word), keep_early=True)
    assert statuses(kept) == ["done"] * 15
    assert not any(row.choices for row in kept.sweep.rows)


@pytest.mark.slow
def test_the_command_keeps_early_ones_too(tmp_path: Path) -> None:
    path = tmp_path / "search.csv"
    path.write_text("\n".join((f"{HEADER},training_iteration,x", *searched())) + "\n")
    command = ["--from-csv", str(path), "--output", str(tmp_path / "report")]
    for options, is_said in (([], True), (["--keep-early"], False)):
        assert main([*command, *options]) == 0
        page = (tmp_path / "report" / "report.md").read_text()
        assert ("9 runs stopped before the end" in page) == is_said


def test_a_longer_run_that_diverged_does_not_make_the_best_one_early(tmp_path: Path) -> None:
    lines = [line for line in searched(diverged="nan") if ",16," not in line or "nan" in line]
    found = read(tmp_path, f"{HEADER},training_iteration,x", *lines)
    assert statuses(found) == (["stopped"] * 3 + ["diverged"]) * 3


@pytest.mark.parametrize("pruned", ["", "PRUNED"])
def test_a_table_with_a_word_for_stopped_runs_tells_them_itself(
    pruned: str, tmp_path: Path
) -> None:
    lines = searched("COMPLETE")
    if pruned:
        lines[0] = lines[0].replace("COMPLETE", pruned)
    found = read(tmp_path, f"{HEADER},user_attrs_epoch,state", *lines)
    assert statuses(found) == ["stopped" if pruned else "done"] + ["done"] * 14


@pytest.mark.parametrize(("budget", "end"), [("config.epochs", "epoch"), ("max_steps", "_step")])
def test_runs_of_each_searched_budget_end_by_it(budget: str, end: str, tmp_path: Path) -> None:
    """The longer ones are better, so that no other rule keeps the shorter ones."""
    lines = [
        f"{b},{rate},{0.7 + 0.05 * d * d + 0.3 / n},{n},{n}"
        for b, rate, d in distances() for n in (1, 3)
    ]  # fmt: skip
    found = read(tmp_path, f"{HEADER},{budget},{end}", *lines, nuisance=[budget])
    assert statuses(found) == ["done"] * 30
    header = f"{HEADER},weight_decay,{end}"
    assert "stopped" in statuses(read(tmp_path, header, *lines, nuisance=["weight_decay"]))


@pytest.mark.parametrize("logged", [False, True])
def test_runs_that_end_at_the_target_keep_their_losses(logged: bool, tmp_path: Path) -> None:
    """A run that a search stopped before is one without it."""
    lines = [
        f"r{b}-{rate},{b},{rate},{0.6999 - 0.0001 * d},{step},{steps if step == steps else ''}"
        for b, rate, d in distances()
        for steps in [int(4000 / b * (1 + 3 * d * d))]
        for step in ((steps // 2, steps) if logged else (steps,))
    ]
    header = f"run_id,{HEADER},step,steps_to_target"
    found = read(tmp_path, header, *lines)
    assert [row.validation_loss is not None for row in found.sweep.rows] == [True] * 15
    assert statuses(found) == ["done"] * 15
    short = read(tmp_path, header, *lines, "r,8,0.1,0.9,40,")
    assert statuses(short) == ["done"] * 15 + ["stopped"]


def test_a_target_that_was_not_reached_may_be_a_word_or_nan(tmp_path: Path) -> None:
    """ASHA's stopped runs, none of which had reached the target."""
    header = f"{HEADER},training_iteration,steps_to_target"
    for word in ("", "NaN", "None", "-"):
        found = read(tmp_path, header, *(line + word for line in searched()))
        assert statuses(found) == (["stopped"] * 3 + ["done"] * 2) * 3


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize(
    ("column", "good", "bad", "num_left_out"),
    [
        ("state", "finished", "running", 1),
        ("state", "finished", "crashed", 1),
        ("state", "finished", "killed", 1),
        ("diverged", "None", "True", 0),
    ],
)
@pytest.mark.parametrize(("end", "loss"), [(5, 1.0), (24, 1.0), (24, 9.0), (9, 9.0)])
def test_a_run_that_does_not_count_decides_nothing_about_others(
    is_log: bool,
    column: str,
    good: str,
    bad: str,
    num_left_out: int,
    end: int,
    loss: float,
    tmp_path: Path,
) -> None:
    """Be it the best one, or the one that went furthest."""
    runs = [
        (f"r{batch}-{place}", batch, 2 ** (place - 10), n, 3 - n / 10, good)
        for batch in BATCHES
        for place, n in enumerate(STOPPED)
    ]
    lines = [
        f"{name},{batch},{rate},{at},{last + (n - at) / 100},{word}"
        for name, batch, rate, n, last, word in [*runs, ("x", 8, 0.3, end, loss, bad)]
        for at in (range(1, n + 1) if is_log else (n,))
    ]
    header = f"run_id,global_batch_size,peak_lr,step,validation_loss,{column}"
    found = read(tmp_path, header, *lines)
    lost = ["diverged"] * (1 - num_left_out)
    assert statuses(found) == (["stopped"] * 3 + ["done"] * 2) * 3 + lost
    said = " ".join(found.notes)
    assert ("9 runs ended before others" if is_log else "9 of them had a smaller step") in said


def test_a_run_that_was_left_out_is_not_said_to_have_diverged(tmp_path: Path) -> None:
    lines = [
        f"r{n},8,{rate},{step},{loss if n < 2 or step < 2 else ''},{'failed' if n == 2 else ''}"
        for n, rate in enumerate((1e-3, 2e-3, 4e-3))
        for step, loss in ((1, 2.2), (2, 2.1), (3, 2.0))
    ]
    header = "run_id,global_batch_size,peak_lr,step,validation_loss,state"
    found = read(tmp_path, header, *lines)
    assert statuses(found) == ["done"] * 2
    assert not any("diverged" in note for note in found.notes)


def test_completed_says_not_whether_a_search_stopped_a_run(tmp_path: Path) -> None:
    """SLURM, Determined and KerasTuner call every run so that ended without an error."""
    header = f"{HEADER},training_iteration,state"
    found = read(tmp_path, header, *searched("COMPLETED"))
    assert statuses(found) == (["stopped"] * 3 + ["done"] * 2) * 3
    assert "--keep-early" in " ".join(found.notes)
    told = [*searched("COMPLETED")[:-1], searched("EARLY_STOPPED")[-1]]
    assert statuses(read(tmp_path, header, *told)) == ["done"] * 14 + ["stopped"]


def test_a_batch_is_one_however_it_is_written(tmp_path: Path) -> None:
    lines = [line.replace(",", ".0,", 1) if ",1," in line else line for line in searched()]
    found = read(tmp_path, f"{HEADER},training_iteration,x", *lines)
    assert statuses(found) == (["stopped"] * 3 + ["done"] * 2) * 3


def replicated(num: int) -> list[str]:
    """Logs of replicates that nothing tells apart, which rise late."""
    return [
        f"{batch},{rate},{step},{2 + d * d / 20 + 3 / step + max(0, step - 6) / 50 + n / 1000}"
        for batch, rate, d in distances()
        for n in range(num)
        for step in range(1, 11)
    ]


def test_replicates_in_a_log_that_nothing_tells_apart_are_as_many_runs(tmp_path: Path) -> None:
    header = "global_batch_size,peak_lr,step,validation_loss"
    found = read(tmp_path, header, *replicated(2))
    assert statuses(found) == ["done"] * 30
    assert "300 rows of 30 runs" in " ".join(found.notes)
    first, second = (row.validation_loss for row in found.sweep.rows[:2])
    assert first is not None
    assert second == pytest.approx(first + 0.001)
    # the best checkpoint evaluated once more, or some losses twice by a run that was resumed
    again = [line.rsplit(",", 1)[0] + ",2.0" for line in replicated(1) if ",10," in line]
    assert statuses(read(tmp_path, header, *replicated(1), *again)) == ["done"] * 15


def test_replicates_that_stop_by_patience_are_no_log(tmp_path: Path) -> None:
    lines = [
        f"{b},{rate},{0.7 + 0.05 * d * d + n / 1000},{int(5 + 4 * d) + (n + place) % 3}"
        for place, (b, rate, d) in enumerate(distances()) for n in range(2)
    ]  # fmt: skip
    assert statuses(read(tmp_path, f"{HEADER},epoch", *lines)) == ["done"] * 30
