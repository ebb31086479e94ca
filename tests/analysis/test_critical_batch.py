"""Known answers: cases 1 and 4, and planted trade-offs."""

import numpy as np
import pytest

from scaling.analysis.critical_batch.tradeoff import fit_tradeoff

# Zhang et al. 2024 (arXiv:2410.21676), steps to target at B = 64, 128, ..., 16384
PRETRAINING = {
    "85M": ([46000, 23000, 13282, 7000, 3840, 2528, 1917, 1600, 1600], 2191),
    "151M": ([96000, 49000, 24000, 12000, 7128, 4350, 2940, 2400, 2300], 3240),
    "604M": ([311000, 166000, 81000, 37440, 21320, 11400, 7199, 4700, 3800], 7907),
}


@pytest.mark.parametrize("size", PRETRAINING)
def test_pretraining_runs(size: str) -> None:
    steps, expected = PRETRAINING[size]
    fit = fit_tradeoff([64 * 2**index for index in range(9)], steps)
    assert fit.value == pytest.approx(expected, abs=0.5)
    assert fit.interval is not None
    assert fit.interval[0] < expected < fit.interval[1]


def noisy_quadratic_steps(batch: int) -> int:
    """Fewest steps until L < 0.01 over constant rates, by the exact recursion (100 dimensions)."""
    h = 1 / np.arange(1, 101)
    best = 10**7
    low, high = 0.003, 1.99
    for _ in range(3):
        rates = np.geomspace(low, high, 80)[:, None]
        decay = (1 - rates * h) ** 2
        floor = rates**2 * h / batch / (1 - decay)
        lower, upper = np.zeros(80), np.full(80, 1e7)
        for _ in range(24):
            middle = np.floor((lower + upper) / 2)
            loss = 0.5 * (h * (floor + decay ** middle[:, None] * (1 - floor))).sum(axis=1)
            upper = np.where(loss < 0.01, middle, upper)
            lower = np.where(loss < 0.01, lower, middle)
        at = int(np.argmin(upper))
        best = min(best, int(upper[at]))
        low, high = rates[max(at - 2, 0), 0], min(rates[min(at + 2, 79), 0], 1.99)
    return best


def test_noisy_quadratic() -> None:
    batches = [2**power for power in range(17)]
    steps = [noisy_quadratic_steps(batch) for batch in batches]
    table = {1: 32103, 16: 2037, 64: 536, 256: 169, 1024: 94, 4096: 77, 65536: 69}
    for batch, expected in table.items():
        assert steps[batches.index(batch)] == pytest.approx(expected, rel=0.01)
    fit = fit_tradeoff(batches, steps)
    assert fit.min_steps == pytest.approx(67.3, rel=0.01)
    assert fit.min_examples == pytest.approx(30725, rel=0.01)
    assert fit.value == pytest.approx(456, rel=0.01)


def test_exact_data_give_a_narrow_interval_around_the_truth() -> None:
    batches = [8, 32, 128, 512]
    fit = fit_tradeoff(batches, [50 + 6000 / batch for batch in batches])
    assert fit.value == pytest.approx(120, rel=1e-6)
    assert fit.interval == pytest.approx((120, 120), rel=1e-3)
    assert fit.steps_at(60) == pytest.approx(150, rel=1e-6)


def test_two_batch_sizes_have_a_value_and_no_interval() -> None:
    fit = fit_tradeoff([10, 1000], [110, 11])
    assert fit.value == pytest.approx(100, rel=0.01)
    assert fit.interval is None
    assert fit.missing == "no_interval"


def test_perfect_scaling_has_no_bend() -> None:
    fit = fit_tradeoff([10, 100, 1000], [1000, 100, 10])
    assert fit.value is None
    assert fit.missing == "bend_above"


def test_constant_steps_have_no_bend() -> None:
    fit = fit_tradeoff([10, 100, 1000], [50, 50, 50])
    assert fit.value is None
    assert fit.missing == "bend_below"


def test_one_batch_size_is_not_enough() -> None:
    assert fit_tradeoff([64], [100]).value is None
    assert fit_tradeoff([], []).num_batches == 0


@pytest.mark.ci
@pytest.mark.slow
def test_coverage_of_a_planted_bend() -> None:
    rng = np.random.default_rng(0)
    batches = [16, 64, 256, 1024, 4096]
    covered = 0
    for _ in range(100):
        noise = np.exp(0.05 * rng.standard_normal(5))
        fit = fit_tradeoff(
            batches, [n * (60 + 12000 / b) for n, b in zip(noise, batches, strict=True)]
        )
        covered += fit.interval is not None and fit.interval[0] <= 200 <= fit.interval[1]
    assert 82 <= covered <= 97
