"""Tables with one row an evaluation: each run counts once, with its last one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scaling.report.foreign_tables.sweep_table import SweepTable, TableError, read_table

RATES = (1e-3, 2e-3, 4e-3)


def read(folder: Path, *lines: str, **options: Any) -> SweepTable:
    path = folder / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return read_table(path, **options)


def logged(ends: Sequence[int] = (100, 100, 100)) -> list[str]:
    """Three runs, logged every 50 steps, the losses of training and evaluation in turns."""
    return [
        f"r{place},32,{rate},{step}," + (",3.5" if step % 50 else f"{4 - step / 100},")
        for place, (rate, end) in enumerate(zip(RATES, ends, strict=True))
        for step in range(25, end + 1, 25)
    ]


HEADER = "run_id,global_batch_size,peak_lr,step,validation_loss,train_loss"


def test_the_last_evaluation_counts(tmp_path: Path) -> None:
    found = read(tmp_path, HEADER, *logged())
    assert [(row.validation_loss, row.train_loss, row.steps) for row in found.sweep.rows] == [
        (3.0, 3.5, 100.0)
    ] * 3
    assert "12 rows of 3 runs" in " ".join(found.notes)


def test_the_order_of_the_rows_does_not_matter(tmp_path: Path) -> None:
    lines = logged()
    found = read(tmp_path, HEADER, *lines[::2], *lines[1::2][::-1])
    assert [row.validation_loss for row in found.sweep.rows] == [3.0] * 3


def test_without_an_identifier_runs_are_told_by_their_recipe(tmp_path: Path) -> None:
    lines = [line.split(",", 1)[1] for line in logged() if not line.endswith("3.5")]
    found = read(tmp_path, HEADER.split(",", 1)[1], *lines)
    assert [row.validation_loss for row in found.sweep.rows] == [3.0] * 3


def test_a_run_that_ended_early_has_no_final_loss(tmp_path: Path) -> None:
    found = read(tmp_path, HEADER, *logged((100, 50, 100)))
    assert [row.status for row in found.sweep.rows] == ["done", "stopped", "done"]
    assert found.sweep.rows[1].validation_loss is None
    assert any("1 run ended before others" in note for note in found.notes)


def sizes(ends: Sequence[int] = (400, 1600, 6400)) -> list[str]:
    """Eighteen runs of three sizes, each of which has a budget of its own."""
    return [
        f"{n}-{batch}-{rate},{n},{batch},{rate},{step},{4 - step / 6400}"
        for n, end in zip((1e6, 4e6, 16e6), ends, strict=True)
        for batch in (32, 64)
        for rate in RATES
        for step in range(end // 4, end + 1, end // 4)
    ]


@pytest.mark.parametrize("option", ["scale", "axes"])
def test_a_run_to_the_budget_of_its_own_size_has_its_final_loss(
    option: str, tmp_path: Path
) -> None:
    lines = sizes()
    cut = [line for line in lines if not line.startswith("1000000.0-32-0.001,") or ",100," in line]
    header = "run_id,N,global_batch_size,peak_lr,step,validation_loss"
    found = read(tmp_path, header, *lines, **{option: ["N"]})
    assert [row.status for row in found.sweep.rows] == ["done"] * 18
    assert not any("ended before" in note for note in found.notes)
    found = read(tmp_path, header, *cut, **{option: ["N"]})
    assert [row.status for row in found.sweep.rows] == ["stopped"] + ["done"] * 17
    assert any("1 run ended before others of the same cell" in note for note in found.notes)


@pytest.mark.parametrize("option", ["scale", "axes"])
def test_numbers_of_trials_that_begin_anew_in_each_size_are_of_different_runs(
    option: str, tmp_path: Path
) -> None:
    lines = [line.replace(line.split("-")[0], "trial", 1) for line in sizes()]
    header = "trial,N,global_batch_size,peak_lr,step,validation_loss"
    found = read(tmp_path, header, *lines, **{option: ["N"]})
    assert [row.status for row in found.sweep.rows] == ["done"] * 18
    assert len(found.sweep.cells) == 6


@pytest.mark.parametrize("option", ["scale", "axes"])
def test_one_row_a_run_stays_one_where_numbers_of_trials_begin_anew(
    option: str, tmp_path: Path
) -> None:
    lines = [
        f"{place},{n},{batch},{rate},{step},{4 - step / 6400}"
        for n, step in ((1e6, 400), (4e6, 1600), (16e6, 6400))
        for batch in (32, 64)
        for place, rate in enumerate(RATES)
    ]
    header = "trial,N,global_batch_size,peak_lr,step,validation_loss"
    found = read(tmp_path, header, *lines, **{option: ["N"]})
    assert [row.status for row in found.sweep.rows] == ["done"] * 18


def test_a_size_that_rises_along_a_run_is_its_last(tmp_path: Path) -> None:
    lines = [
        f"{budget}-{batch}-{rate},{budget * share / 4},{batch},{rate},{4 - share / 10}"
        for budget in (1e9, 2e9)
        for batch in (32, 64)
        for rate in RATES
        for share in range(1, 5)
    ]
    header = "run_id,tokens,global_batch_size,peak_lr,validation_loss"
    found = read(tmp_path, header, *lines, scale=["tokens"])
    assert [(row.status, row.cell["tokens"]) for row in found.sweep.rows] == [
        ("done", budget) for budget in (1e9, 2e9) for _ in range(6)
    ]


def test_a_run_that_diverged_did(tmp_path: Path) -> None:
    lines = [line for line in logged((100, 50, 100)) if line.startswith(("r0", "r2"))]
    found = read(tmp_path, HEADER, *lines, "r1,32,0.002,25,3.9,", "r1,32,0.002,50,nan,")
    assert [row.status for row in found.sweep.rows] == ["done", "done", "diverged"]


def test_runs_with_one_row_each_are_no_curves(tmp_path: Path) -> None:
    """Steps differ with the batch; trial numbers begin anew in each."""
    lines = [
        f"{trial},{batch},{rate},{6400 // batch},2.0,1.9"
        for batch in (32, 64)
        for trial, rate in enumerate(RATES)
    ]
    found = read(
        tmp_path, "trial,global_batch_size,peak_lr,step,validation_loss,train_loss", *lines
    )
    assert len(found.sweep.rows) == 6
    assert not any("per evaluation" in note for note in found.notes)


def test_steps_without_an_identifier_are_budgets(tmp_path: Path) -> None:
    lines = [f"32,{rate},{steps},2.0" for rate in RATES for steps in (100, 200)]
    with pytest.raises(TableError, match="--where steps=100"):
        read(tmp_path, "global_batch_size,peak_lr,steps,validation_loss", *lines)


def test_a_run_that_goes_on_without_a_loss_diverged(tmp_path: Path) -> None:
    """As a table of pandas has it, where a loss that is no number is blank."""
    lines = [
        f"r{place},{batch},{rate},{step},{'' if rate == 0.004 and step > 100 else loss}"
        for place, (batch, rate) in enumerate((b, r) for b in (32, 64) for r in RATES)
        for step, loss in ((100, 2.2), (200, 2.1), (300, 2.0))
    ]
    found = read(tmp_path, "run_id,global_batch_size,peak_lr,step,validation_loss", *lines)
    assert [row.status for row in found.sweep.rows] == ["done", "done", "diverged"] * 2
    assert found.sweep.rows[2].validation_loss is None
    assert any("2 runs went on without a loss" in note for note in found.notes)


def test_rarer_evaluations_of_another_batch_are_no_divergence(tmp_path: Path) -> None:
    """Every thousand steps of one batch, every hundred of the other; both log in between."""
    lines = [
        f"{run},{batch},{rate},{step},{2.5 if step % every == 0 else ''}"
        for batch, every, end in ((32, 1000, 1900), (512, 100, 1500))
        for run, rate in ((f"{batch}a", 0.001), (f"{batch}b", 0.002))
        for step in range(50, end + 1, 50)
    ]
    found = read(tmp_path, "run_id,global_batch_size,peak_lr,step,validation_loss", *lines)
    assert [row.status for row in found.sweep.rows] == ["done"] * 4


def test_most_trials_of_a_search_that_stops_them_have_one_row(tmp_path: Path) -> None:
    """ASHA: of 18 trials 12 end after the first iteration and 6 go on to the ninth."""
    lines = [
        f"t{batch}{place},{batch},{2e-4 * 2**place},{4 - n / 10 + place / 100},{n}"
        for batch in (32, 64)
        for place in range(9)
        for n in ((1,) if place < 6 else (1, 3, 9))
    ]
    found = read(
        tmp_path, "trial_id,global_batch_size,peak_lr,validation_loss,training_iteration", *lines
    )
    assert [row.status for row in found.sweep.rows] == (["stopped"] * 6 + ["done"] * 3) * 2


@pytest.mark.parametrize("column", ["training_iteration", "_step", "epoch"])
def test_one_row_a_run_that_ended_early_has_no_final_loss(column: str, tmp_path: Path) -> None:
    lines = [f"{b},{rate},{3 - n / 20},{n}" for b in (32, 64)
             for n, rate in zip((1, 1, 4, 16, 16), (1, 2, 4, 8, 16), strict=True)]  # fmt: skip
    header = f"global_batch_size,peak_lr,validation_loss,{column}"
    found = read(tmp_path, header, *lines)
    assert [row.status for row in found.sweep.rows] == (["stopped"] * 3 + ["done"] * 2) * 2
    assert f"6 of them had a smaller {column}" in " ".join(found.notes)
    kept = read(tmp_path, header, *lines, nuisance=[column])
    assert {row.status for row in kept.sweep.rows} == {"done"}


def test_a_rate_that_was_logged_along_the_run_is_no_peak(tmp_path: Path) -> None:
    lines = [
        f"r{place},32,{rate * share},{100 * n},{4 - n / 10}"
        for place, rate in enumerate(RATES)
        for n, share in enumerate((0.5, 1.0, 0.1), 1)
    ]
    with pytest.raises(TableError, match="'lr' changes along a run"):
        read(tmp_path, "run_id,global_batch_size,lr,step,validation_loss", *lines,
             rename=[("lr", "peak_lr")])  # fmt: skip


@pytest.mark.parametrize("column", ["peak_lr", "config.lr", "params.learning_rate"])
def test_a_configured_peak_does_not_move(column: str, tmp_path: Path) -> None:
    """Replicates by number, each rate with an end of its own."""
    lines = [
        f"{trial},32,{rate},{3 + place},{2 + place / 10 + trial / 100}"
        for place, rate in enumerate(RATES)
        for trial in range(3)
    ]
    rename = [] if column == "peak_lr" else [(column, "peak_lr")]
    header = f"trial,global_batch_size,{column},epoch,validation_loss"
    assert len(read(tmp_path, header, *lines, rename=rename).sweep.rows) == 9


def test_a_log_of_a_run_that_was_resumed_repeats_some_losses(tmp_path: Path) -> None:
    found = read(tmp_path, HEADER, *logged(), "r1,32,0.002,50,3.6,")
    assert [row.validation_loss for row in found.sweep.rows] == [3.0] * 3


def test_training_and_evaluation_have_a_row_each_at_one_step(tmp_path: Path) -> None:
    lines = [
        f"32,{rate},{step},{loss}"
        for rate in RATES
        for step in (50, 100)
        for loss in (f"{4 - step / 100},", ",3.5")
    ]
    found = read(tmp_path, HEADER.split(",", 1)[1], *lines)
    assert [row.validation_loss for row in found.sweep.rows] == [3.0] * 3


PROGRESS = (
    "consumed_samples", "iter", "samples_seen", "tokens_seen", "global_steps", "_step", "wall_time",
)  # fmt: skip


def dips(header: str, name: str = "") -> list[str]:
    """Six logs of four evaluations; the highest rate is lowest in passing and ends highest."""
    return [header] + [
        (f"{batch}x{rate}," if name else "") + f"{100 * n},{batch},{rate},{loss}"
        for batch in (8, 32)
        for rate in RATES
        for n, loss in enumerate((4, 1, 5, 6) if rate == RATES[-1] else (4, 3, 2.5, 2.2), 1)
    ]


@pytest.mark.parametrize("column", PROGRESS)
@pytest.mark.parametrize("name", ["", "run_id,"])
def test_progress_by_another_name_is_progress(column: str, name: str, tmp_path: Path) -> None:
    found = read(tmp_path, *dips(f"{name}{column},global_batch_size,peak_lr,validation_loss", name))
    assert [row.validation_loss for row in found.sweep.rows] == [2.2, 2.2, 6] * 2
    assert "24 rows of 6 runs" in " ".join(found.notes)


def test_times_order_the_rows_of_named_runs(tmp_path: Path) -> None:
    header, *lines = dips("run_id,timestamp,global_batch_size,peak_lr,validation_loss", "run_id,")
    dated = [
        line.replace("00,", ":00+00:00,", 1).replace(",", ",2026-01-01T0", 1) for line in lines
    ]
    found = read(tmp_path, header, *dated)
    assert [row.validation_loss for row in found.sweep.rows] == [2.2, 2.2, 6] * 2


def test_a_column_that_rises_as_in_a_log_is_said(tmp_path: Path) -> None:
    found = read(tmp_path, *dips("ticks,global_batch_size,peak_lr,validation_loss"))
    assert len(found.sweep.rows) == 24
    assert any(note.startswith("ticks rises through the rows") for note in found.notes)


def test_the_order_of_a_table_is_no_log(tmp_path: Path) -> None:
    """Trial numbers rise, and a searched setting does so in each batch and rate."""
    lines = [
        f"{n},{batch},{rate},{decay},2.{n}"
        for n, (batch, rate, decay) in enumerate(
            (b, r, d) for b in (8, 32) for r in RATES for d in (0, 0.01, 0.1, 0.2)
        )
    ]
    header = "place,global_batch_size,peak_lr,weight_decay,validation_loss"
    assert not any("rises" in note for note in read(tmp_path, header, *lines).notes)
