"""Planted optima and exponents come back within their intervals."""

import math

import pytest
from numpy.random import default_rng

from scaling.analysis.findings import analyse
from scaling.analysis.lr_scaling import lr_curve, lr_exponent_estimate
from scaling.analysis.rows import TrialRow, sweep_of
from scaling.records import StudyRecord
from tests.analysis.synthetic import Truth, search, spec


def rows(points: list[tuple[float, float | None]]) -> list[TrialRow]:
    """Search trials of one cell; a loss of None is a diverged trial."""
    return [
        TrialRow(
            trial_id=str(index),
            phase="search",
            status="diverged" if loss is None else "done",
            cell={"global_batch_size": 8},
            global_batch_size=8,
            recipe_key=str(index),
            peak_lr=lr,
            validation_loss=loss,
            objective=loss,
        )
        for index, (lr, loss) in enumerate(points)
    ]


def parabola(lrs: list[float], best: float) -> list[tuple[float, float | None]]:
    return [(lr, 1 + 0.1 * math.log(lr / best) ** 2) for lr in lrs]


def test_exact_parabola_gives_its_vertex_between_the_rates() -> None:
    curve = lr_curve(rows(parabola([1e-4, 3e-4, 1e-3, 3e-3, 1e-2], 7e-4)))
    assert curve is not None
    assert curve.optimum == pytest.approx(7e-4, rel=1e-6)
    assert curve.interval == pytest.approx((7e-4, 7e-4), rel=1e-3)
    assert curve.edge is None


def test_a_cliff_does_not_move_the_optimum() -> None:
    points = parabola([1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3], 7e-4)
    curve = lr_curve(rows([*points, (6.4e-3, 7.0), (1e-2, 7.2), (2e-2, None)]))
    assert curve is not None
    assert curve.optimum == pytest.approx(7e-4, rel=1e-6)
    assert curve.diverged == (2e-2,)


@pytest.mark.parametrize(("best", "edge"), [(1e-6, "low"), (1.0, "high")])
def test_optimum_outside_of_the_range_is_flagged(best: float, edge: str) -> None:
    curve = lr_curve(rows(parabola([1e-4, 3e-4, 1e-3, 3e-3, 1e-2], best)))
    assert curve is not None
    assert curve.edge == edge


def test_divergence_beyond_the_best_rate_closes_the_range() -> None:
    points = parabola([1e-4, 3e-4, 1e-3], 1e-2)
    curve = lr_curve(rows([*points, (3e-3, None)]))
    assert curve is not None
    assert curve.edge is None


def test_three_points_have_no_interval_and_two_no_curve() -> None:
    curve = lr_curve(rows(parabola([1e-4, 1e-3, 1e-2], 1e-3)))
    assert curve is not None
    assert curve.interval is None
    assert lr_curve(rows(parabola([1e-4, 1e-3], 1e-3))) is None
    assert lr_curve(rows([(1e-3, None), (1e-2, None), (1e-1, None)])) is None


def test_flat_noise_has_no_interval() -> None:
    losses = [1.01, 0.99, 1.0, 1.02, 0.98, 1.0, 1.01, 0.99]
    curve = lr_curve(rows([(10 ** (-4 + i / 2), loss) for i, loss in enumerate(losses)]))
    assert curve is not None
    assert curve.interval is None


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_exact_exponent(exponent: float) -> None:
    batches = [16, 64, 256, 1024]
    estimate = lr_exponent_estimate(batches, [1e-4 * batch**exponent for batch in batches])
    assert estimate.value == pytest.approx(exponent, abs=1e-12)
    assert lr_exponent_estimate(batches[:2], [1e-3, 2e-3]).interval is None


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_planted_exponent_is_covered(exponent: float) -> None:
    """Nine in ten intervals cover; fewer than six of ten would be one chance in six hundred."""
    truth = Truth(exponent=exponent, best_lr=2e-3)
    searched = spec(transfer=None, confirm=None, target=None)
    covered = 0
    for seed in range(10):
        trials = tuple(search(truth, default_rng(seed)))
        estimate = analyse(sweep_of(StudyRecord(searched, trials))).lr_scaling.exponent
        assert estimate.value == pytest.approx(exponent, abs=0.1)
        assert estimate.interval is not None
        covered += estimate.interval[0] <= exponent <= estimate.interval[1]
    assert covered >= 6
