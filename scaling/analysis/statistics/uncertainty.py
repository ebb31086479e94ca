"""Estimates with 90% intervals.

Seeds are few, so means get Student's t: a percentile bootstrap over 2, 3, 5 or 10 seeds covers
51, 62, 78 or 85% where it promises 90%. A quantity without a replicate has no interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import covariance, fmean, variance

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, fdtrc, stdtrit  # pyright: ignore -- scipy ships no types

_UNSTABLE = 1e-3
"""Chance below which a recipe's seeds are not taken to differ as those of others do."""

LEVEL = 0.9
"""Share of intervals that cover the truth, if their assumptions hold."""
TAILS = (1 - LEVEL) / 2, (1 + LEVEL) / 2
"""Quantiles of draws at which an interval ends."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Estimate:
    """A value and its interval; None is what the data do not allow.

    Attributes:
        count: Replicates behind the value.
    """

    value: float | None = None
    interval: Interval | None = None
    count: int = 0


ABSENT = Estimate()
"""Nothing was measured."""


def t_quantile(degrees: float) -> float:
    """The two-sided 90% point of Student's t; 1.645 for infinitely many degrees of freedom."""
    return float(stdtrit(degrees, TAILS[1]))  # pyright: ignore -- scipy ships no types


def mean_estimate(values: Sequence[float], *, shared_stderr: float | None = None) -> Estimate:
    """Mean over replicates, with an interval from their spread and from a shared error.

    Args:
        values: One number a seed.
        shared_stderr: Standard error that all seeds share, as that of evaluating on the same
            sample of a split; it does not average down over seeds. None leaves it out.

    Returns:
        No value without replicates, no interval with a single one (its spread is not known).

    Source: Welch 1947 and Satterthwaite 1946, for the degrees of freedom of the sum.
    """
    count = len(values)
    if count == 0:
        return Estimate()
    mean = fmean(values)
    if count == 1:
        return Estimate(mean, None, 1)
    over_seeds = variance(values) / count
    total = over_seeds + (shared_stderr or 0.0) ** 2
    if total == 0:
        return Estimate(mean, (mean, mean), count)
    degrees = (count - 1) * (total / over_seeds) ** 2 if over_seeds > 0 else math.inf
    half = t_quantile(min(degrees, 1e6)) * math.sqrt(total)
    return Estimate(mean, (mean - half, mean + half), count)


def of_draws(draws: NDArray[np.float64]) -> Estimate:
    """The median of draws and their interval."""
    low, middle, high = np.quantile(draws, [TAILS[0], 0.5, TAILS[1]])
    return Estimate(float(middle), (float(low), float(high)))


def bounded(estimate: Estimate, least: float | None, most: float | None = None) -> Estimate:
    """The estimate with its interval cut at what the quantity cannot leave.

    It covers the truth as often as before, since that is never outside.
    """
    if estimate.interval is None:
        return estimate
    low, high = estimate.interval
    low = low if least is None else max(low, least)
    high = high if most is None else min(high, most)
    return replace(estimate, interval=(low, high))


def without_tie(estimate: Estimate) -> Estimate:
    """The estimate, without its interval where that has no width.

    Replicates that agree on a grid of evaluations, or of counted examples, differ by less than it
    can show. How far they scatter is not known then.
    """
    is_tie = estimate.interval is not None and estimate.interval[0] == estimate.interval[1]
    return replace(estimate, interval=None) if is_tie else estimate


def root_mean_square(values: Sequence[float]) -> float | None:
    """The standard error that several with the same sample share; None of none."""
    return math.sqrt(sum(v * v for v in values) / len(values)) if values else None


def ratio_of_means(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Ratio of two paired means of non-negative quantities, with Fieller's interval.

    The mean of the ratios would be biased where the denominators are noisy.

    Returns:
        No value when the mean denominator is not above zero; no interval with fewer than two
        pairs, or where the denominator is not clearly above zero.

    Source: Fieller 1954, Some problems in interval estimation.
    """
    count = len(numerators)
    if count == 0 or fmean(denominators) <= 0:
        return Estimate(count=count)
    top, bottom = fmean(numerators), fmean(denominators)
    if count == 1:
        return Estimate(top / bottom, None, 1)
    scale = t_quantile(count - 1) ** 2 / count
    a = bottom**2 - scale * variance(denominators)
    b = top * bottom - scale * covariance(numerators, denominators)
    c = top**2 - scale * variance(numerators)
    discriminant = b * b - a * c
    if a <= 0 or discriminant < 0:
        return Estimate(top / bottom, None, count)
    root = math.sqrt(discriminant)
    return Estimate(top / bottom, (max(0.0, (b - root) / a), (b + root) / a), count)


def difference_interval(a: float, a_ends: Interval, b: float, b_ends: Interval) -> Interval:
    """Of b − a, from two independent estimates and their intervals, which may be lopsided.

    Source: MOVER, Zou & Donner 2008, Construction of confidence limits about effect measures.
    """
    centre = b - a
    return (
        centre - math.hypot(b - b_ends[0], a_ends[1] - a),
        centre + math.hypot(b_ends[1] - b, a - a_ends[0]),
    )


def ratio_interval(a: Estimate, b: Estimate) -> Interval | None:
    """Of a / b, two independent positive estimates; None where an interval is none or reaches 0.

    Source: in logarithms, Donner & Zou 2012, Closed-form confidence intervals for functions of the
        normal mean and standard deviation (MOVER).
    """
    if not a.value or not b.value or a.interval is None or b.interval is None:
        return None
    if min(a.interval[0], b.interval[0]) <= 0:
        return None
    (a_low, a_high), (b_low, b_high) = a.interval, b.interval
    low, high = difference_interval(
        math.log(b.value), (math.log(b_low), math.log(b_high)),
        math.log(a.value), (math.log(a_low), math.log(a_high)),
    )  # fmt: skip
    return math.exp(low), math.exp(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values for several tests together, in the order given.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


def excess_variances(groups: Sequence[Mapping[int, float]]) -> list[float]:
    """By how much each group's variance is above that of most; 0 where it may be the same.

    Each group has two values or more. What most have is the median variance, which several
    unstable groups do not move, over that of chi squared with as many degrees of freedom; half of
    the groups stand behind it. It is at least what rounding leaves (`_rounding_variance`): seeds
    that most groups round to one number are no reason to call those unstable that they do not.

    Source: the median as a start that outliers do not mask, Rousseeuw & Leroy 1987, Robust
        regression and outlier detection, sec. 1.2; the ratio's tail with Bonferroni's correction.
    """
    if len(groups) < 2:
        return [0.0] * len(groups)
    ordered = sorted(groups, key=lambda group: variance(group.values()))
    middle = ordered[(len(ordered) - 1) // 2]
    own = len(middle) - 1
    spread = variance(middle.values()) * own / float(chdtri(own, 0.5))  # pyright: ignore -- no types
    typical = max(spread, _rounding_variance(groups))
    if typical == 0:
        return [0.0] * len(groups)
    behind = sum(len(group) - 1 for group in ordered[: (len(ordered) + 1) // 2])

    def excess(group: Mapping[int, float]) -> float:
        degrees, found = len(group) - 1, variance(group.values())
        ratio = found / typical
        chance = float(fdtrc(degrees, behind, ratio))  # pyright: ignore -- no types
        return ratio if chance * len(groups) < _UNSTABLE else 0.0

    return [excess(group) for group in groups]


def _rounding_variance(groups: Sequence[Mapping[int, float]]) -> float:
    """Variance that rounding adds, and hides: a twelfth of the square of the values' resolution.

    The resolution is the least gap between two different values of all groups. It is 0 where no
    group differs in itself: then the values are the same because nothing moves them.

    Source: Sheppard 1898, the variance of a uniform error.
    """
    if all(len(set(group.values())) < 2 for group in groups):
        return 0.0
    values = sorted({value for group in groups for value in group.values()})
    return min(high - low for low, high in pairwise(values)) ** 2 / 12


@dataclass(frozen=True)
class SeedVariance:
    """How far trials of one recipe differ.

    Attributes:
        variance: Of one trial.
        degrees: Degrees of freedom behind it.
    """

    variance: float
    degrees: float


def seed_variance(groups: Sequence[Mapping[int, float]]) -> SeedVariance | None:
    """Pooled over groups of replicates; None where no group has two.

    Noise is local: a recipe whose seeds differ far more than all others', as at a rate that is
    unstable in some seeds, says nothing of theirs and is left out.

    Seeds that all groups share (one order of the data at every batch size) may move all of them
    alike, and then C groups know hardly more than one. With a correlation rho between groups,
    estimated from the means over groups, the degrees of freedom are divided by
    1 + (C - 1) rho^2 (Satterthwaite 1946, with the covariance of sample variances, 2 cov^2 / df).

    The variance is at least that of rounding, so that it is 0 only where the seeds of no group
    differ.

    Args:
        groups: For each recipe its value by seed.
    """
    several = [group for group in groups if len(group) > 1]
    least = _rounding_variance(several)
    excesses = excess_variances(several)
    several = [group for group, excess in zip(several, excesses, strict=True) if not excess]
    degrees = sum(len(group) - 1 for group in several)
    if degrees == 0:
        return None
    pooled = max(sum((len(g) - 1) * variance(g.values()) for g in several) / degrees, least)
    shared = set(several[0]).intersection(*several)
    count = len(several)
    if count < 2 or len(shared) < 2 or pooled == 0:
        return SeedVariance(pooled, degrees)
    means = [fmean(group[seed] for group in several) for seed in shared]
    correlation = (count * variance(means) / pooled - 1) / (count - 1)
    correlation = min(max(correlation, 0.0), 1.0)
    return SeedVariance(pooled, degrees / (1 + (count - 1) * correlation**2))
