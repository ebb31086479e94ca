"""Intervals against values that can be looked up."""

import math

import numpy as np
import pytest

from scaling.analysis.statistics.uncertainty import (
    mean_estimate,
    ratio_of_means,
    seed_variance,
    t_quantile,
)


@pytest.mark.parametrize(("degrees", "expected"), [(1, 6.314), (2, 2.920), (4, 2.132), (9, 1.833)])
def test_student_t_table(degrees: int, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, abs=5e-4)


def test_mean_of_three_seeds() -> None:
    estimate = mean_estimate([1.0, 2.0, 3.0])
    half = 2.920 / math.sqrt(3)
    assert estimate.value == 2.0
    assert estimate.interval == pytest.approx((2 - half, 2 + half), abs=1e-3)


def test_no_interval_from_one_replicate() -> None:
    assert mean_estimate([1.0]).interval is None
    assert mean_estimate([1.0], shared_stderr=0.1).interval is None
    assert mean_estimate([]).value is None


def test_shared_error_does_not_average_down() -> None:
    few = mean_estimate([1.0, 1.0], shared_stderr=0.1)
    many = mean_estimate([1.0] * 100, shared_stderr=0.1)
    assert few.interval == pytest.approx(many.interval)
    assert few.interval == pytest.approx((1 - 0.1645, 1 + 0.1645), abs=1e-3)


def test_shared_error_widens_the_interval_of_the_seeds() -> None:
    seeds = mean_estimate([0.9, 1.0, 1.1]).interval
    both = mean_estimate([0.9, 1.0, 1.1], shared_stderr=0.2).interval
    assert seeds is not None
    assert both is not None
    assert both[0] < seeds[0]


def test_ratio_of_means_is_not_the_mean_of_ratios() -> None:
    estimate = ratio_of_means([100.0, 100.0], [0.5, 2.0])
    assert estimate.value == pytest.approx(80.0)
    assert estimate.interval is None  # two such denominators do not exclude zero


def test_ratio_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        top = 100 * (1 + 0.1 * rng.standard_normal(4))
        bottom = 1 + 0.1 * rng.standard_normal(4)
        interval = ratio_of_means(list(top), list(bottom)).interval
        covered += interval is not None and interval[0] <= 100 <= interval[1]
    assert 0.85 <= covered / 300 <= 0.95


def test_ratio_needs_a_positive_denominator() -> None:
    assert ratio_of_means([1.0, 2.0], [-1.0, 0.5]).value is None
    assert ratio_of_means([], []).value is None
    assert ratio_of_means([6.0], [3.0]).value == 2.0


def test_seeds_that_move_all_cells_alike_count_once() -> None:
    effects = {1: -0.3, 2: 0.1, 3: 0.5}
    cells = [{seed: level + effect for seed, effect in effects.items()} for level in range(4)]
    rng = np.random.default_rng(3)
    alike = seed_variance(cells)
    assert alike is not None
    assert alike.degrees == pytest.approx(2)
    assert alike.variance == pytest.approx(0.16)
    apart = seed_variance([dict(enumerate(values)) for values in rng.random((40, 3))])
    assert apart is not None
    assert apart.degrees > 60
    assert apart.variance == pytest.approx(1 / 12, rel=0.3)
