"""Two critical batch sizes by different definitions: how far they are apart."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from scaling.analysis.statistics.uncertainty import Estimate, Interval, difference_interval

Definition = Literal["steps_examples", "noise_scale_at_target", "noise_scale_at_end", "branched"]
"""A trade-off at a target is compared with the noise scale there, not with that of a later end."""
Verdict = Literal["unknown", "not_told_apart", "differ_overlapping", "differ_apart"]
"""Without both intervals, or where they overlap and one reaches 0, so that their ratio has none;
with 1 inside of the ratio's interval; else with 1 outside of it, by whether the two overlap."""


@dataclass(frozen=True)
class Agreement:
    """One definition's value over another's.

    Attributes:
        first: What is on top, as summary.json names it.
        second: What is below.
        ratio: With an interval where both have one above 0. Both are taken to be independent: the
            trials are the same, the noise is not (steps against gradients).
        overlap: Whether the intervals overlap; None without both.
    """

    first: Definition
    second: Definition
    ratio: Estimate
    overlap: bool | None

    @property
    def verdict(self) -> Verdict:
        """What the ratio's interval says."""
        if self.overlap is None or (self.overlap and self.ratio.interval is None):
            return "unknown"
        if self.ratio.interval and self.ratio.interval[0] <= 1 <= self.ratio.interval[1]:
            return "not_told_apart"
        return "differ_overlapping" if self.overlap else "differ_apart"


def agreements(critical: Mapping[Definition, Estimate]) -> tuple[Agreement, ...]:
    """Every pair of the definitions that have a value, in the order given.

    Source: the interval of a ratio from those of its parts, Donner & Zou 2012, Closed-form
        confidence intervals for functions of the normal mean and standard deviation (MOVER), in
        logarithms.
    """
    known: dict[Definition, Estimate] = {
        name: estimate for name, estimate in critical.items() if estimate.value
    }
    return tuple(_agreement(a, b, known[a], known[b]) for a, b in combinations(known, 2))


def _agreement(first: Definition, second: Definition, a: Estimate, b: Estimate) -> Agreement:
    assert a.value
    assert b.value
    overlap = None
    if a.interval and b.interval:
        overlap = a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1]
    ratio = Estimate(a.value / b.value, _interval(a, b), min(a.count, b.count))
    return Agreement(first, second, ratio, overlap)


def _interval(a: Estimate, b: Estimate) -> Interval | None:
    if not a.value or not b.value or a.interval is None or b.interval is None:
        return None
    if min(a.interval[0], b.interval[0]) <= 0:
        return None
    ends = [(math.log(e.interval[0]), math.log(e.interval[1])) for e in (b, a) if e.interval]
    low, high = difference_interval(math.log(b.value), ends[0], math.log(a.value), ends[1])
    return math.exp(low), math.exp(high)
