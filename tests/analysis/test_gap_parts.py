"""What fewer updates cost, differences of gaps, the noise scale along runs, rank correlations."""

import math
from dataclasses import replace

import pytest

from scaling.analysis.cell_results import cell_results
from scaling.analysis.critical_batch.noise_along_run import noise_curve
from scaling.analysis.generalization.gap_relations import gap_relations, rank_correlation
from scaling.analysis.generalization.loss_parts import loss_parts
from scaling.analysis.generalization.matched_gap import matched_gaps
from scaling.analysis.trial_rows import sweep_of
from scaling.records.measurement import Measurement
from tests.analysis.synthetic import study
from tests.analysis.test_matched_gap import LARGE, SMALL, row, sweep


def test_parts_by_hand() -> None:
    # After 10 steps the small batch has 2.2, at its end 1.5; the large one ends at 10 with 1.3.
    (parts,) = loss_parts(cell_results(sweep(row(1, 0, SMALL), row(4, 0, LARGE))))
    assert (parts.global_batch_size, parts.reference_batch_size, parts.num_steps) == (4, 1, 10)
    assert parts.total.value == pytest.approx(-0.2)
    assert parts.fewer_updates.value == pytest.approx(0.7)
    assert parts.at_equal_steps.value == pytest.approx(-0.9)
    assert parts.total.interval is None


def test_between_evaluations_in_log_loss() -> None:
    large = [(0, 4.0, 4.0), (15, 1.0, 1.3)]
    (parts,) = loss_parts(cell_results(sweep(row(1, 0, SMALL), row(2, 0, large))))
    assert parts.fewer_updates.value == pytest.approx(math.sqrt(2.2 * 1.6) - 1.5)


def test_paired_over_seeds() -> None:
    rows = [row(1, 0, SMALL), row(1, 1, SMALL, 0.1), row(4, 0, LARGE), row(4, 1, LARGE, 0.1)]
    (parts,) = loss_parts(cell_results(sweep(*rows)))
    # Both batches rise by 0.1 with the second seed: the pairs agree.
    assert parts.total.interval == pytest.approx((-0.2, -0.2))
    assert parts.total.count == 2
    for matched in matched_gaps(cell_results(sweep(*rows))):
        assert matched.reference_batch_size == 1
        assert matched.differences[0].value is None
        difference = matched.differences[1]
        assert difference.value == pytest.approx(
            (matched.gaps[1].value or 0) - (matched.gaps[0].value or 0)
        )
        assert difference.interval == pytest.approx((difference.value, difference.value))


def test_curves_that_do_not_overlap_have_no_parts() -> None:
    longer = [*LARGE, (50, 0.4, 1.2)]
    (parts,) = loss_parts(cell_results(sweep(row(1, 0, SMALL), row(4, 0, longer))))
    assert parts.total.value is None
    assert parts.missing == "longer_than_reference"
    (parts,) = loss_parts(cell_results(sweep(row(1, 0, SMALL[2:]), row(4, 0, LARGE))))
    assert parts.missing == "before_first_evaluation"
    (parts,) = loss_parts(cell_results(sweep(row(1, 0, SMALL), row(4, 1, LARGE))))
    assert parts.missing == "no_common_seed"


def test_the_base_batch_is_the_reference() -> None:
    rows = [row(1, 0, SMALL), row(2, 0, SMALL), row(4, 0, LARGE)]
    found = loss_parts(cell_results(sweep(*rows)), base_batch_size=2)
    assert [(p.global_batch_size, p.reference_batch_size) for p in found] == [(4, 2)]
    assert loss_parts(()) == ()


def measured(step: int, square: float, trace: float) -> Measurement:
    return Measurement(step, step, step, 1.0, grad_sq_norm=square, grad_covariance_trace=trace)


def test_noise_scale_along_two_runs() -> None:
    first = replace(row(1, 0, []), steps_to_target=5.0, measurements=(
        measured(0, 2.0, 20.0), measured(10, 1.0, 40.0)))  # fmt: skip
    second = replace(row(1, 1, []), steps_to_target=10.0, measurements=(
        measured(0, 2.0, 20.0), measured(10, 1.0, 60.0), measured(20, 1.0, 80.0)))  # fmt: skip
    curve = noise_curve([first, second], has_target=True)
    assert [(p.step, p.scale.value) for p in curve.points] == [(0, 10), (10, pytest.approx(50))]
    # At 5 steps (1.5, 30) and at 10 steps (1, 60): 90 / 2.5, not the mean of 20 and 60.
    assert curve.at_target.value == pytest.approx(36)
    assert curve.at_end.value == pytest.approx((40 + 80) / 2)
    assert noise_curve([first, second], has_target=False).at_target.value is None
    censored = replace(second, steps_to_target=None)
    assert noise_curve([first, censored], has_target=True).at_target.value is None
    assert noise_curve([], has_target=True).points == ()


def test_rank_correlation_by_hand() -> None:
    x = [1.0, 2, 3, 4, 5, 6, 7, 8]
    y = [2.0, 1, 3, 4, 5, 6, 8, 7]
    found = rank_correlation(x, y)
    # 1 − 6 · 4 / (8 · 63)
    assert found.value == pytest.approx(1 - 24 / 504)
    assert found.interval is not None
    assert 0.7 < found.interval[0] < found.value < found.interval[1] < 1
    assert rank_correlation(x, y).count == 8
    # atanh(1 − 6 / 504) − 1.645 · √(1.06 / 5)
    assert rank_correlation(x, x).interval == pytest.approx((0.9470, 1.0), abs=1e-4)
    assert rank_correlation(x, x[::-1]).interval == pytest.approx((-1.0, -0.9470), abs=1e-4)
    assert rank_correlation(x[:7], y[:7]).value is None
    assert rank_correlation(x, [1.0] * 8).value is None


def test_few_cells_are_not_enough_for_a_correlation() -> None:
    relations = gap_relations(cell_results(sweep_of(study())))
    assert [len(relation.points) for relation in relations] == [4, 4, 4]
    assert all(relation.correlation.value is None for relation in relations)
