"""Known-answer tests of the noise-scale estimator (McCandlish et al. 2018, appendix A.1)."""

import math

import numpy as np
import pytest

from scaling.measures.noise_scale import NoiseEstimate, RunningNoise, estimate_noise


def test_expected_norms_give_the_known_answer() -> None:
    # d = 1000, G = 0.1, Sigma = I: E|G_8|^2 = 10 + 1000/8, E|G_64|^2 = 10 + 1000/64.
    estimate = estimate_noise([135.0] * 8, [8.0] * 8, 25.625, num_train=None)
    assert estimate.sq_norm == pytest.approx(10)
    assert estimate.covariance_trace == pytest.approx(1000)
    assert estimate.noise_scale == pytest.approx(100)


def test_ratio_of_means_over_many_steps_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(1000):
        # The mean of 8 standard normal draws around 0.1, for each of 8 workers.
        workers = 0.1 + rng.standard_normal((8, 1000)) / np.sqrt(8)
        whole = workers.mean(0)
        estimates.append(
            estimate_noise(
                [float(g @ g) for g in workers], [8.0] * 8, float(whole @ whole), num_train=None
            )
        )
    trace = np.mean([e.covariance_trace for e in estimates])
    sq_norm = np.mean([e.sq_norm for e in estimates])
    assert trace / sq_norm == pytest.approx(100, abs=1.0)
    running = RunningNoise(half_life=1e9)
    for estimate in estimates:
        running.add(estimate)
    assert running.mean is not None
    assert running.mean.noise_scale == pytest.approx(trace / sq_norm, rel=1e-4)


def test_parts_of_unequal_size() -> None:
    # E|G_b|^2 = 4 + 60 / b for b = 2 and 10; whole batch of 12.
    estimate = estimate_noise([34.0, 10.0], [2.0, 10.0], 9.0, num_train=None)
    assert estimate.covariance_trace == pytest.approx(60)
    assert estimate.sq_norm == pytest.approx(4)


def test_without_replacement_the_estimate_is_that_of_the_train_set() -> None:
    rng = np.random.default_rng(1)
    gradients = rng.standard_normal((40, 5)) + 0.3
    mean = gradients.mean(0)
    exact_trace = float(gradients.var(0, ddof=1).sum())
    estimates = []
    for _ in range(20_000):
        batch = gradients[rng.permutation(40)[:8]]
        halves = batch[:4].mean(0), batch[4:].mean(0)
        whole = batch.mean(0)
        estimates.append(
            estimate_noise(
                [float(g @ g) for g in halves], [4.0, 4.0], float(whole @ whole), num_train=40
            )
        )
    assert np.mean([e.covariance_trace for e in estimates]) == pytest.approx(exact_trace, rel=0.02)
    assert np.mean([e.sq_norm for e in estimates]) == pytest.approx(float(mean @ mean), rel=0.03)


@pytest.mark.parametrize("estimate", [NoiseEstimate(-1.0, 5.0), NoiseEstimate(5.0, -1.0)])
def test_a_negative_estimate_has_no_noise_scale(estimate: NoiseEstimate) -> None:
    assert estimate.noise_scale is None


def test_standard_error_of_the_ratio() -> None:
    # Means 2 and 15, ratio 7.5; residuals 10 - 7.5 and 20 - 22.5: sqrt(12.5 / 2) / 2.
    running = RunningNoise(half_life=1e12)
    running.add(NoiseEstimate(1.0, 10.0))
    assert running.mean is not None
    assert running.mean.stderr is None
    running.add(NoiseEstimate(3.0, 20.0))
    assert running.mean.noise_scale == pytest.approx(7.5)
    assert running.mean.stderr == pytest.approx(1.25)


def test_standard_error_with_a_half_life_goes_on_from_its_state() -> None:
    # Weights 1/4, 1/2, 1 over 7/4: means 17/7 and 110/7, ratio 110/17.
    estimates = [NoiseEstimate(1.0, 10.0), NoiseEstimate(2.0, 20.0), NoiseEstimate(3.0, 15.0)]
    running = RunningNoise(half_life=1.0)
    for estimate in estimates:
        restored = RunningNoise(half_life=1.0)
        restored.restore(running.state())
        running = restored
        running.add(estimate)
    weights = np.array([0.25, 0.5, 1.0]) / 1.75
    residuals = np.array([10.0, 20.0, 15.0]) - 110 / 17 * np.array([1.0, 2.0, 3.0])
    share = float((weights**2).sum())
    variance = float((weights * residuals**2).sum()) * share / (1 - share)
    assert running.mean is not None
    assert running.mean.noise_scale == pytest.approx(110 / 17)
    assert running.mean.stderr == pytest.approx(variance**0.5 / (17 / 7))


@pytest.mark.parametrize("size", [math.inf, math.nan, 1e160])
def test_an_estimate_that_is_too_large_is_left_out(size: float) -> None:
    running = RunningNoise()
    for sq_norm in (1.0, size, 2.0):
        running.add(NoiseEstimate(sq_norm, 3.0))
    assert all(map(math.isfinite, running.state()))
    assert running.mean is not None
    assert 1 < running.mean.sq_norm < 2


def test_standard_error_covers_the_truth() -> None:
    # d = 100, G = 0.3, Sigma = I: |G|² = 9, tr Σ = 100, B_simple = 11.1; 30 steps of 4 × 4.
    rng = np.random.default_rng(2)
    covered = 0
    for _ in range(400):
        running = RunningNoise(half_life=1e12)
        for _ in range(30):
            parts = 0.3 + rng.standard_normal((4, 100)) / 2
            whole = parts.mean(0)
            norms = (parts**2).sum(1).tolist()
            running.add(estimate_noise(norms, [4.0] * 4, float(whole @ whole), num_train=None))
        assert running.mean is not None
        assert running.mean.stderr is not None
        covered += abs(running.mean.noise_scale - 100 / 9) < 1.70 * running.mean.stderr  # type: ignore[operator]
    assert 0.85 < covered / 400 < 0.95
