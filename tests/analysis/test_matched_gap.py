"""Gaps at equal progress, against values worked by hand."""

from dataclasses import replace

import pytest

from scaling.analysis.cell_results import cell_results
from scaling.analysis.findings import analyse
from scaling.analysis.generalization.matched_gap import matched_gaps
from scaling.analysis.trial_rows import Sweep, TrialRow, sweep_of
from scaling.records.measurement import Measurement
from tests.analysis.synthetic import study

# Step, train_loss, validation_loss.
SMALL = [(0, 4.0, 4.0), (10, 2.0, 2.2), (20, 1.0, 1.6), (40, 0.5, 1.5)]
LARGE = [(0, 4.0, 4.0), (10, 1.0, 1.3)]


def row(
    batch: int, seed: int, curve: list[tuple[int, float, float]], lift: float = 0.0
) -> TrialRow:
    """A confirm trial; `lift` is added to each validation loss after the first."""
    measurements = tuple(
        Measurement(step, step * batch, step * batch, 1.0 * step, train_loss=train,
                    validation_loss=validation + (lift if step else 0.0))
        for step, train, validation in curve
    )  # fmt: skip
    return TrialRow(
        f"{batch}-{seed}", "confirm", "done", {"global_batch_size": batch}, batch, f"{batch}",
        seed=seed, measurements=measurements,
    )  # fmt: skip


def sweep(*rows: TrialRow) -> Sweep:
    cells = {row.global_batch_size: row.cell for row in rows}
    return Sweep("planted", "?", rows, tuple(cells.values()))


def test_by_hand() -> None:
    cells = cell_results(sweep(row(1, 0, SMALL), row(4, 0, LARGE)))
    steps, examples, train_loss = matched_gaps(cells)
    # 10 steps: 0.2 and 0.3. 40 examples: 1.0 at 40 steps and 0.3 at 10 steps.
    assert (steps.at, [g.value for g in steps.gaps]) == (10, pytest.approx([0.2, 0.3]))
    assert (examples.at, [g.value for g in examples.gaps]) == (40, pytest.approx([1.0, 0.3]))
    # Train loss 1.0: 0.6 and 0.3.
    assert (train_loss.at, [g.value for g in train_loss.gaps]) == (1.0, pytest.approx([0.6, 0.3]))


def test_between_evaluations() -> None:
    large = [(0, 4.0, 4.0), (15, 2.0**0.5, 1.7)]
    cells = cell_results(sweep(row(1, 0, SMALL), row(2, 0, large)))
    steps, examples, train_loss = matched_gaps(cells)
    # Step 15 is halfway from 0.2 to 0.6, and 30 examples halfway from 0.6 to 1.0.
    assert (steps.at, steps.gaps[0].value) == (15, pytest.approx(0.4))
    assert (examples.at, examples.gaps[0].value) == (30, pytest.approx(0.8))
    # √2 is halfway from 2 to 1 in the logarithm.
    assert train_loss.at == pytest.approx(2.0**0.5)
    assert train_loss.gaps[0].value == pytest.approx(0.4)


def test_intervals_are_over_seeds() -> None:
    rows = [row(1, 0, SMALL), row(1, 1, SMALL, 0.1), row(4, 0, LARGE), row(4, 1, LARGE, 0.1)]
    steps = matched_gaps(cell_results(sweep(*rows)))[0]
    gap = steps.gaps[0]
    # 0.2 and 0.3: mean 0.25, t(1) = 6.314 × 0.05.
    assert gap.count == 2
    assert gap.value == pytest.approx(0.25)
    assert gap.interval == pytest.approx((0.25 - 0.3157, 0.25 + 0.3157), abs=1e-3)


def test_a_diverged_replicate_does_not_hold_the_others_back() -> None:
    lost = replace(row(1, 1, SMALL[:2]), status="diverged")
    cells = cell_results(sweep(row(1, 0, SMALL), lost, row(4, 0, LARGE)))
    assert matched_gaps(cells)[1].at == 40


def test_one_cell_matches_nothing() -> None:
    for matched in matched_gaps(cell_results(sweep(row(1, 0, SMALL)))):
        assert matched.at is None
        assert [gap.value for gap in matched.gaps] == [None]


def test_a_planted_gap_is_found_at_equal_steps() -> None:
    findings = analyse(sweep_of(study()))
    for matched in findings.matched_gaps:
        assert matched.at is not None
        for gap in matched.gaps:
            assert gap.value == pytest.approx(0.19, abs=1e-6)
            assert gap.interval is not None


def test_a_training_loss_below_zero_has_no_logarithm() -> None:
    small = [(0, 3.0, 3.0), (10, 2.0, 2.1), (20, -1.0, -0.3)]
    large = [(0, 3.0, 3.0), (10, 1.9, 2.0)]
    *_, train_loss = matched_gaps(cell_results(sweep(row(1, 0, small), row(4, 0, large))))
    # 1.9 is a thirtieth of the way from 2 to -1, on which the gap grows from 0.1 to 0.7.
    assert (train_loss.at, train_loss.gaps[0].value) == (1.9, pytest.approx(0.12))
