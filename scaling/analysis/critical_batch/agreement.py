"""Two critical batch sizes by different definitions: how far they are apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from scaling.analysis.statistics.uncertainty import Estimate, ratio_interval

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
    """Every pair of the definitions that have a value, in the order given."""
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
    ratio = Estimate(a.value / b.value, ratio_interval(a, b), min(a.count, b.count))
    return Agreement(first, second, ratio, overlap)
