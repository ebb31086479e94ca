"""Was a cell searched enough? Otherwise a comparison with it compares nothing."""

import math
from collections.abc import Sequence
from statistics import variance

from scaling.analysis.lr_scaling import LrCurve
from scaling.analysis.rows import TrialRow

_TOLERANCE = 0.02
"""Share of the best value by which the best-of-n curve may still fall where no noise is known."""


def expected_best(values: Sequence[float], draws: int) -> float:
    """Mean over all subsets of `draws` trials of their lowest value.

    Source: without replacement, Dodge et al. 2019 (arXiv:1909.03004) sec. 3.1 as corrected by
        Tang et al. 2020 (ACL, Showing your work doesn't always work).
    """
    ordered = sorted(values)
    total = math.comb(len(ordered), draws)
    return sum(
        value * math.comb(len(ordered) - index - 1, draws - 1) / total
        for index, value in enumerate(ordered[: len(ordered) - draws + 1])
    )


def undertuned_reasons(
    search: Sequence[TrialRow], curve: LrCurve | None, noise_sd: float | None
) -> tuple[str, ...]:
    """Why more search would probably find a better recipe in this cell; empty when it is tuned.

    Args:
        search: The cell's search trials.
        curve: Loss against rate; None when the rate was not searched.
        noise_sd: Standard deviation of the objective over seeds, where replicates show it.
    """
    reasons: list[str] = []
    if curve is not None and curve.edge is not None:
        reasons.append(f"the best rate is the {curve.edge}est tried")
    values = [row.objective for row in search if row.objective is not None]
    distinct = len({row.recipe_key for row in search if row.objective is not None})
    if distinct >= 4 and len(values) == distinct and not _rate_settles_it(search, curve):
        allowed = max(_TOLERANCE * abs(min(values)), 2 * (noise_sd or 0.0))
        if _next_gain(values) > allowed:
            reasons.append("the best of n trials was still falling")
    return tuple(reasons)


def _rate_settles_it(search: Sequence[TrialRow], curve: LrCurve | None) -> bool:
    """True when only the rate was searched and its optimum has an interval."""
    names = {name for row in search for name in row.choices} - {"peak_lr", "base_lr"}
    return not names and curve is not None and curve.interval is not None


def _next_gain(values: Sequence[float]) -> float:
    """What doubling the trials once more would gain, if gains go on shrinking as they did.

    The gains from a quarter of the trials to half and from half to all are known; the next one
    is taken to be in the same proportion to the last.
    """
    quarter, half = max(len(values) // 4, 1), len(values) // 2
    earlier = expected_best(values, quarter) - expected_best(values, half)
    last = expected_best(values, half) - min(values)
    return last * min(last / earlier, 1.0) if earlier > 0 else last


def pooled_sd(groups: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation over seeds, pooled over cells; None without any replicate."""
    usable = [group for group in groups if len(group) > 1]
    if not usable:
        return None
    degrees = sum(len(group) - 1 for group in usable)
    return math.sqrt(sum((len(group) - 1) * variance(group) for group in usable) / degrees)
