"""The critical batch size of planted branches."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scaling.analysis.critical_batch.branched_training import (
    BranchedTraining,
    branched_training,
)
from scaling.analysis.findings import analyse
from scaling.analysis.next_run.throughput import Paces
from scaling.analysis.trial_rows import sweep_of
from scaling.records.measurement import Measurement
from scaling.records.study import StudyRecord
from scaling.records.trial import Status, TrialRecord
from scaling.report.charts.figures import figures
from scaling.report.summary import summarize
from scaling.report.tables.table import Table
from scaling.report.tables.target_tables import critical_batch_table
from scaling.report.words.remarks import branched_words
from tests.analysis import synthetic
from tests.recipes import changed

MULTIPLES = (1, 2, 4, 8, 16)
BRANCH = {
    "base_batch_size": 64, "at_examples": [640, 6400], "multiples": list(MULTIPLES),
    "window_examples": 2048, "tolerance": 0.02, "num_seeds": 4,
}  # fmt: skip
CRITICAL = {640: 128, 6400: 512}


def branch_records(
    noise: float, *, num_seeds: int = 4, diverged: tuple[int, ...] = ()
) -> list[TrialRecord]:
    """Losses rise by 0.05 for each doubling of the batch beyond the planted critical one.

    Seeds differ by a tenth of a nat, which only pairing takes out.
    """
    rng = np.random.default_rng(3)
    records: list[TrialRecord] = []
    for start, critical in CRITICAL.items():
        for seed in range(num_seeds):
            for multiple in MULTIPLES:
                size = 64 * multiple
                rise = 0.05 * max(0.0, math.log2(size / critical))
                loss = 1.0 + 0.1 * seed + rise + noise * float(rng.standard_normal())
                status: Status = "diverged" if multiple in diverged else "done"
                early = Measurement(5, 320, 320, 0.1, grad_sq_norm=0.1, grad_covariance_trace=10.0)
                end = Measurement(99, start + 2048, 1, 1.0, validation_loss=loss)
                recipe = changed(
                    synthetic.RECIPE, seed=seed, branch_from_examples=start,
                    branch_multiple=multiple,
                )  # fmt: skip
                records.append(
                    TrialRecord(
                        f"branch-at{start}-x{multiple}-seed{seed}", "branch",
                        {"global_batch_size": 64}, {"peak_lr": 1e-3}, recipe, status,
                        measurements=(early, end),
                    )
                )  # fmt: skip
    return records


def study(records: list[TrialRecord]) -> StudyRecord:
    spec = synthetic.spec(branch=BRANCH)
    return StudyRecord(spec, (*synthetic.study().trials, *records))


def branched(records: list[TrialRecord]) -> BranchedTraining:
    return branched_training(sweep_of(study(records)))


def test_the_planted_critical_batch_is_found_at_each_point() -> None:
    early, late = branched(branch_records(0.002)).points
    assert (early.examples, early.value, early.interval) == (640, 128, (128, 256))
    assert (late.examples, late.value, late.interval) == (6400, 512, (512, 1024))
    assert not late.is_bound
    assert early.losses[1].difference.value == pytest.approx(0.05, abs=0.005)
    assert early.noise_scale.value == pytest.approx(100.0)


def test_noise_widens_the_interval_around_the_truth() -> None:
    early, _ = branched(branch_records(0.03)).points
    assert early.surely_inside <= 128
    assert early.surely_outside is not None
    assert early.surely_outside > 256


def _row(table: Table) -> tuple[str, ...]:
    [row] = [row for row in table.rows if row[0] == "branched training"]
    return row


def test_batches_that_do_not_reach_so_far_give_a_lower_bound() -> None:
    few = [r for r in branch_records(0.002) if r.recipe.hyperparameters.branch_multiple <= 4]
    early, late = branched(few).points
    assert early.interval == (128, 256)
    assert (late.value, late.is_bound, late.interval, late.surely_inside) == (256, True, None, 256)
    table = critical_batch_table(analyse(sweep_of(study(few))))
    assert table is not None
    assert _row(table)[:3] == ("branched training", "at least 256", "no interval")


def test_one_seed_has_no_interval_and_no_reference_no_value() -> None:
    single = branched(branch_records(0.002, num_seeds=1))
    assert [p.interval for p in single.points] == [None, None]
    assert [p.value for p in single.points] == [128, 512]
    without = branched(
        [r for r in branch_records(0.002) if r.recipe.hyperparameters.branch_multiple > 1]
    )
    assert without.last is None
    assert without.missing == "no_reference"
    assert branched([]).missing == "none_ended"


def test_a_batch_that_diverges_is_outside() -> None:
    early, late = branched(branch_records(0.002, diverged=(8, 16))).points
    assert early.value == 128
    assert (late.value, late.interval) == (256, (256, 512))


def test_summary_table_and_figure_say_the_same() -> None:
    findings = analyse(sweep_of(study(branch_records(0.002))))
    summary = summarize(findings)["critical_batch_size"]["branched"]
    assert (summary["value"], summary["interval"]) == (512, [512.0, 1024.0])
    assert [point["value"] for point in summary["at"]] == [128, 512]
    table = critical_batch_table(findings)
    assert table is not None
    assert _row(table)[1:3] == ("512", "[512, 1,024]")
    figure = next(f for f in figures(findings, {}) if f.name == "branched_critical_batch")
    assert "Critical batch size (examples, log)" in figure.svg()
    said = summarize(findings)["answer"]
    assert "128 [128, 256] after 640 examples and 512 [512, 1,024] after 6,400 examples" in said


def test_a_study_without_branches_has_no_value_and_no_figure() -> None:
    findings = analyse(sweep_of(synthetic.study()))
    assert summarize(findings)["critical_batch_size"]["branched"]["value"] is None
    assert all(f.name != "branched_critical_batch" for f in figures(findings, {}))


def test_a_lower_end_that_is_the_base_batch_is_not_called_measured() -> None:
    """Every larger batch blew up: the base batch is within by definition, so only a bound."""
    early, _ = branched(branch_records(0.002, diverged=(2, 4, 8, 16))).points
    base = early.losses[0].global_batch_size // 2
    assert (early.value, early.interval) == (base, (base, 2 * base))
    assert branched_words(early) == (f"{base}", f"at most {2 * base}")
    said = summarize(analyse(sweep_of(study(branch_records(0.002, diverged=(2, 4, 8, 16))))))
    expected = f"critical batch size in examples is at most {2 * base} after 640 examples"
    assert expected in said["answer"]
    usual, _ = branched(branch_records(0.002)).points
    assert branched_words(usual) == ("128", "[128, 256]")


def test_a_larger_batch_is_no_pace_of_its_base() -> None:
    """Steps of a branch take as many times as long as its batch has examples."""
    timed: list[TrialRecord] = []
    for record in branch_records(0.0):
        multiple = record.recipe.hyperparameters.branch_multiple  # type: ignore[union-attr]
        early, end = record.measurements
        timed.append(
            replace(record, measurements=(early, replace(end, seconds=0.0125 * 99 * multiple)))
        )
    alone, with_branches = (
        Paces.of(sweep_of(study(records))).by_cell[("global_batch_size", "64"), 64, 1]
        for records in ([], timed)
    )
    assert with_branches.usual.value == pytest.approx(alone.usual.value, rel=1e-3)
    assert len(with_branches.seconds) > len(alone.seconds)
