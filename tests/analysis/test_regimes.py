"""Regimes, the 20% overhead and agreement, against values worked by hand."""

import math

import numpy as np
import pytest

from scaling.analysis.critical_batch.agreement import agreements
from scaling.analysis.critical_batch.overhead import overhead
from scaling.analysis.critical_batch.regimes import local_scaling
from scaling.analysis.critical_batch.tradeoff import TradeoffFit, fit_tradeoff
from scaling.analysis.statistics.uncertainty import Estimate
from tests.analysis.test_critical_batch import PRETRAINING

SIZES = [64 * 2**index for index in range(9)]
OVERHEADS = {"85M": 745, "151M": 955, "604M": 1889}


def test_slopes_by_hand() -> None:
    fit = TradeoffFit(value=100, interval=(95, 110), bounds=(95, 110), num_batches=4, num_trials=4)
    found = {local.global_batch_size: local for local in local_scaling(fit, [10, 100, 900, 2000])}
    assert found[100].slope.value == pytest.approx(0.5)
    assert found[100].slope.interval == pytest.approx((95 / 195, 110 / 210))
    # 95/105 = .905 and 110/120 = .917; at 900 .095 … .109; at 2000 .045 … .052.
    assert [found[size].regime for size in (10, 100, 900, 2000)] == [
        "perfect scaling", "diminishing returns", "undecided", "maximal data parallelism",
    ]  # fmt: skip


def test_without_a_bend_the_one_bound_still_names_perfect_scaling() -> None:
    batches = [8, 16, 32, 64, 128]
    noise = [1.01, 0.99, 1.0, 1.01, 0.99]
    fit = fit_tradeoff(batches, [n * 1e5 / b for n, b in zip(noise, batches, strict=True)])
    assert fit.value is None
    assert fit.bounds[0] is not None
    assert fit.bounds[1] is None
    regimes = [local.regime for local in local_scaling(fit, batches)]
    assert regimes[0] == "perfect scaling"


def test_no_regime_without_an_interval() -> None:
    fit = fit_tradeoff([10, 1000], [110, 11])
    assert [local.regime for local in local_scaling(fit, [10, 1000])] == [None, None]
    assert local_scaling(fit_tradeoff([64], [100]), [64]) == ()


@pytest.mark.parametrize("alpha", [0.7, 1.0, 1.3])
def test_overhead_of_a_planted_bend(alpha: float) -> None:
    """Examples B · S rise to 1.2 times those at 256; with alpha = 1 at .2 · 500 + 1.2 · 256."""
    sizes = [32 * 2**index for index in range(8)]
    steps = [100 * (1 + (500 / size) ** alpha) for size in sizes]
    found = overhead(fit_tradeoff(sizes, steps), sizes, steps)
    grid = np.geomspace(256, 4096, 100_001)
    examples = grid * (1 + (500 / grid) ** alpha)
    expected = grid[np.argmax(examples >= 1.2 * examples[0])]
    assert found.reference_batch_size == 256
    assert found.on_fit.value == pytest.approx(expected, rel=1e-3)
    if alpha == 1:
        assert expected == pytest.approx(0.2 * 500 + 1.2 * 256, rel=1e-3)


@pytest.mark.parametrize("size", PRETRAINING)
def test_overhead_of_pretraining_runs_has_the_exponent_fitted(size: str) -> None:
    """With alpha = 1 it is 745, 955 and 1,889; the points cross at 1,124, 1,060 and 2,474."""
    steps = PRETRAINING[size][0]
    found = overhead(fit_tradeoff(SIZES, steps), SIZES, steps)
    assert found.reference_batch_size == 256
    assert found.on_fit.value is not None
    assert found.on_fit.interval is not None
    assert found.on_fit.interval[0] < found.on_fit.value < found.on_fit.interval[1]
    assert found.on_curve.value is not None
    apart = abs(found.on_fit.value - found.on_curve.value)
    assert apart < 1.2 * abs(OVERHEADS[size] - found.on_curve.value)


def test_overhead_beyond_the_batches_that_ran_is_no_value() -> None:
    sizes = [16, 32, 64, 128]
    noise = [1.01, 0.99, 1.0, 1.01]
    steps = [n * 100 * (1 + 1000 / size) for n, size in zip(noise, sizes, strict=True)]
    found = overhead(fit_tradeoff(sizes, steps), sizes, steps)
    assert found.on_fit.value is None
    assert found.fit_missing == "beyond_largest"
    assert found.curve_missing == "beyond_largest"
    inside = [100 * n * (1 + 40 / size) for n, size in zip(noise, sizes, strict=True)]
    near = overhead(fit_tradeoff(sizes, inside), sizes, inside).on_fit
    assert near.value is not None
    assert near.value < 128
    assert near.interval is None or near.interval[1] <= 128 or math.isinf(near.interval[1])


def test_no_overhead_with_fewer_than_four_batch_sizes() -> None:
    found = overhead(fit_tradeoff([10, 20, 40], [100, 50, 36]), [10, 20, 40], [100, 50, 36])
    assert found.on_fit.value is None
    assert found.fit_missing == "no_fit"


def test_overhead_of_points_by_hand() -> None:
    # Examples 1000, 1000, 1440: 1.2 times the first is halfway to 1.44 in logarithms.
    fit = fit_tradeoff([10, 20, 40], [100, 50, 36])
    found = overhead(fit, [10, 20, 40], [100, 50, 36])
    assert found.reference_batch_size == 10
    assert found.on_curve.value == pytest.approx(20 * math.sqrt(2))
    assert overhead(fit, [10, 20], [100, 50]).on_curve.value is None


def test_agreement_in_words() -> None:
    fit = Estimate(300.0, (250.0, 360.0), 12)
    noise = Estimate(100.0, (80.0, 125.0), 3)
    (pair,) = agreements(
        {"steps_examples": fit, "noise_scale_at_end": noise, "branched": Estimate()}
    )
    assert pair.overlap is False
    assert pair.ratio.value == pytest.approx(3)
    half = math.hypot(math.log(1.2), math.log(1.25))
    assert pair.ratio.interval == pytest.approx((3 * math.exp(-half), 3 * math.exp(half)))
    assert pair.verdict == "differ_apart"
    (same,) = agreements({"noise_scale_at_target": noise, "noise_scale_at_end": noise})
    assert same.verdict == "not_told_apart"
    (unknown,) = agreements({"noise_scale_at_end": noise, "branched": Estimate(90.0)})
    assert unknown.overlap is None
    assert unknown.verdict == "unknown"
