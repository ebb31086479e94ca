"""Planted optima and exponents come back within their intervals."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from scaling.analysis.findings import analyse
from scaling.analysis.learning_rate.curves import basins_of, lr_curve, lr_curves
from scaling.analysis.learning_rate.exponent import lr_scaling
from scaling.analysis.statistics.uncertainty import SeedVariance
from scaling.analysis.trial_rows import TrialRow, sweep_of
from scaling.records.study import StudyRecord
from scaling.report.words.learning_rate import law_words
from tests.analysis.synthetic import Truth, search, spec, study


def rows(points: Sequence[tuple[float, float | None]]) -> list[TrialRow]:
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


BATCHES = (16, 64, 256, 1024)
RATES = [10 ** (-5 + i / 2) for i in range(9)]


def law(batches: tuple[int, ...], best: list[float], noise: float = 0.0, steeper: float = 1.0):
    """The law of cells whose losses are parabolas about given best rates."""
    rng = default_rng(0)
    curves = []
    for rate in best:
        cell = [
            (lr, loss * (steeper if lr > rate else 1.0) + noise * float(rng.standard_normal()))
            for lr, loss in ((lr, 0.1 * math.log(lr / rate) ** 2) for lr in RATES)
        ]
        curve = lr_curve(rows([(lr, 1 + loss) for lr, loss in cell]))
        assert curve is not None
        curves.append(curve)
    return lr_scaling(batches, curves)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_exact_exponent(exponent: float) -> None:
    best = [1e-4 * (batch / 16) ** exponent * 3 for batch in BATCHES]
    found = law(BATCHES, best).exponent
    assert found.value == pytest.approx(exponent, abs=1e-4)
    assert found.interval is not None
    assert found.interval[1] - found.interval[0] < 1e-2


def test_two_batch_sizes_have_an_exponent_without_an_interval() -> None:
    found = law(BATCHES[:2], [1e-3, 2e-3], noise=0.01)
    assert found.exponent.value == pytest.approx(0.5, abs=0.1)
    assert found.exponent.interval is None
    assert found.evidence == ()


def test_a_basin_steeper_above_does_not_move_the_exponent() -> None:
    found = law(BATCHES, [1e-4 * batch**0.5 for batch in BATCHES], steeper=4.0).exponent
    assert found.value == pytest.approx(0.5, abs=0.02)


def test_evidence_is_against_what_is_far_and_not_against_the_truth() -> None:
    found = law(BATCHES, [2e-4 * batch**0.5 for batch in BATCHES], noise=0.03)
    none, root, linear = found.evidence
    assert (none.exponent, root.exponent, linear.exponent) == (0.0, 0.5, 1.0)
    assert root.likelihood_ratio < 8
    assert root.strength == "not_strong"
    assert root.p_value > 0.1
    for other in (none, linear):
        assert other.likelihood_ratio > 32
        assert other.strength == "strong"
        assert other.p_value < other.p_value_holm < 0.01


def test_optima_off_a_power_widen_the_interval() -> None:
    best = [2e-4 * batch**0.5 for batch in BATCHES]
    straight = law(BATCHES, best, noise=0.01)
    crooked = law(BATCHES, [best[0], 2 * best[1], best[2], 2 * best[3]], noise=0.01)
    widths = [low_high[1] - low_high[0] for low_high in
              (found.exponent.interval or (0.0, 0.0) for found in (straight, crooked))]  # fmt: skip
    assert widths[1] > 5 * widths[0]
    assert (crooked.scatter or 0) > 5 > (straight.scatter or 99)


SIX = (8, 32, 128, 512, 2048, 8192)


def test_a_surge_is_preferred_where_it_is_planted_and_its_turn_is_found() -> None:
    best = [2e-3 / math.cosh(math.log(batch / 200) / 2) for batch in SIX]
    surge = law(SIX, best, noise=0.005).surge
    assert surge.preferred
    assert surge.noise_batch.interval is not None
    low, high = surge.noise_batch.interval
    assert low < 200 < high < 2 * low
    assert surge.peak_lr == pytest.approx(2e-3, rel=0.1)


def test_a_power_is_not_taken_for_a_surge() -> None:
    assert not law(SIX, [5e-5 * batch**0.5 for batch in SIX], noise=0.005).surge.preferred
    few = law(BATCHES, [2e-4 * batch**0.5 for batch in BATCHES], noise=0.01).surge
    assert (few.missing, few.num_batch_sizes) == ("few_batch_sizes", 4)
    assert few.over_power is None


def test_a_finite_cliff_is_left_out() -> None:
    points = parabola([1e-4, 3e-4, 1e-3, 3e-3, 6e-3, 1e-2], 1e-3)
    lifted = [(lr, loss + (3.0 if lr > 2e-3 else 0.0)) for lr, loss in points if loss is not None]
    more = parabola([1e-4, 3e-4, 1e-3, 3e-3, 6e-3, 1e-2], 1.5e-3)
    curves = lr_curves([rows(list(lifted)), rows(more), rows(more)])
    assert curves[0] is not None
    assert curves[0].optimum == pytest.approx(1e-3, rel=0.2)


@pytest.mark.slow
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


def saturating(lr: float, best: float, cliff: float) -> float:
    """As real runs lose: towards low rates ever more slowly, and steeply above a cliff."""
    distance = math.log(lr / best)
    if distance < 0:
        return 0.5 + 2.0 * (1 - math.exp(-0.25 * distance**2))
    return 0.5 + 0.02 * distance**2 + 3.0 * max(0.0, math.log(lr / cliff)) ** 2


@pytest.mark.parametrize(
    "num_studies", [30, pytest.param(100, marks=[pytest.mark.slow, pytest.mark.ci])]
)
def test_where_no_common_shape_fits_the_nearest_clear_rises_bound_the_optimum(
    num_studies: int,
) -> None:
    """Cliffs that do not move with the batch, optima that do: no asymmetry is common."""
    noise = SeedVariance(0.01**2, 8)
    bests = {8: 1.5e-3, 32: 3e-3, 128: 6e-3}
    within, total = 0, 0
    for seed in range(num_studies):
        rng = default_rng(seed)
        drawn = [
            [
                (lr, saturating(lr, best, 7e-3) + 0.01 * float(rng.standard_normal()))
                for lr in sorted(
                    10 ** (-3.7 + 2.2 * (i + float(rng.random())) / 6) for i in range(6)
                )
            ]
            for best in bests.values()
        ]
        curves = lr_curves([rows(points) for points in drawn], noise)
        for curve, best in zip(curves, bests.values(), strict=True):
            assert curve is not None
            if curve.interval is not None:
                total += 1
                within += curve.interval[0] <= best <= curve.interval[1]
    assert total > 2 * num_studies
    assert within >= 0.85 * total


@pytest.mark.parametrize(
    "num_studies", [15, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.ci])]
)
@pytest.mark.parametrize("noise", [1e-4, 1e-2])
def test_a_common_shape_is_seldom_refused(noise: float, num_studies: int) -> None:
    """Three tests at 5% each; however small the noise, parabolas are parabolas."""
    refused = 0
    for seed in range(num_studies):
        rng = default_rng(seed)
        cells = [
            [
                (lr, 1 + 0.1 * math.log(lr / best) ** 2 + noise * float(rng.standard_normal()))
                for lr in sorted(10 ** rng.uniform(-4.3, -1, 12))
            ]
            for best in (1e-3, 2e-3, 4e-3, 8e-3)
        ]
        curves = lr_curves([rows(points) for points in cells])
        known = [curve for curve in curves if curve is not None]
        replicated = SeedVariance(noise**2 * float(rng.chisquare(8)) / 8, 8)
        refused += not basins_of(known, replicated).is_shared
    assert refused <= num_studies / 5


def test_without_replicates_neighbouring_rates_show_that_no_shape_is_common() -> None:
    bests = (1e-3, 2e-3, 4e-3, 8e-3)
    refused = 0
    for seed in range(20):
        rng = default_rng(seed)
        cells = [
            [
                (lr, saturating(lr, best, 1e-2) + 0.01 * float(rng.standard_normal()))
                for lr in 10 ** (-4.3 + 3.3 * (np.arange(12) + rng.random(12)) / 12)
            ]
            for best in bests
        ]
        known = [curve for curve in lr_curves([rows(c) for c in cells]) if curve is not None]
        refused += not basins_of(known).is_shared
    assert refused >= 12


@pytest.mark.slow
def test_a_report_says_whether_one_shape_was_checked_and_fits() -> None:
    laws = [analyse(sweep_of(study(seed=seed))).lr_scaling for seed in range(20)]
    fits = [law for law in laws if not law.from_surface]  # which takes no common shape
    assert all(fit.is_shape_checked for fit in fits)
    assert len(fits) >= 8
    assert sum(fit.has_common_shape for fit in fits) >= 0.8 * len(fits)
    alone = replace(study(), spec=spec(confirm=None, transfer=None))
    searched = tuple(trial for trial in alone.trials if trial.phase == "search")
    unchecked = analyse(sweep_of(replace(alone, trials=searched)))
    assert not unchecked.lr_scaling.is_shape_checked
    assert "Without replicates that can hardly be tested" in law_words(unchecked)
