"""Was a cell searched enough? Otherwise a comparison with it compares nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Literal

from scaling.analysis.critical_batch.targets import by_recipe
from scaling.analysis.learning_rate.curves import LrCurve
from scaling.analysis.trial_rows import TrialRow
from scaling.records.outcome import is_censored

Undertuned = Literal[
    "lowest_rate_best", "highest_rate_best", "falls_towards_lowest", "falls_towards_highest",
    "best_still_falling", "regret_above_limit",
]  # fmt: skip
"""Why a cell needs more search: its best rate or its losses at an end of the rates tried, the
best of n trials, which was still falling, or a regret that the surface expects to be larger than
the search was to leave."""
_OF_BEST = 0.01
"""Share of the best value that doubling the trials may still gain in a cell that is tuned."""
_OF_SPREAD = 0.055
"""The same, as a share of what lies between the median trial and the best."""

_NO_CHANCE = 1e-30
"""So little of a mean that no number tells it from nothing."""


def expected_best(values: Sequence[float], draws: int) -> float:
    """Mean over all subsets of `draws` trials of their lowest value.

    Source: without replacement, Dodge et al. 2019 (arXiv:1909.03004) sec. 3.1 as corrected by
        Tang et al. 2020 (ACL, Showing your work doesn't always work).
    """
    ordered = sorted(values)
    total, best = len(ordered), 0.0
    chance = draws / total  # that the lowest of the subset is the one at this place
    for place, value in enumerate(ordered[: total - draws + 1]):
        best += chance * value
        if chance < _NO_CHANCE:
            break
        chance *= (total - place - draws) / (total - place - 1 or 1)
    return best


def undertuned_reasons(
    searches: Sequence[Sequence[TrialRow]],
    curves: Sequence[LrCurve | None],
    noise_sd: float | None,
) -> list[tuple[Undertuned, ...]]:
    """Why more search would probably find a better recipe in each cell; empty when it is tuned.

    Args:
        searches: The search trials of each cell, all with one search space.
        curves: Loss against rate; None when the rate was not searched.
        noise_sd: Standard deviation of the objective over seeds, where replicates show it.
    """
    falling = _still_falling(searches, curves, noise_sd)
    reasons: list[tuple[Undertuned, ...]] = []
    for search, curve, falls in zip(searches, curves, falling, strict=True):
        found = edge_reasons(curve)
        if falls and not _rate_settles_it(search, curve):
            found += ("best_still_falling",)
        reasons.append(found)
    return reasons


def edge_reasons(curve: LrCurve | None) -> tuple[Undertuned, ...]:
    """That the best rate lies at an end of the rates tried, or beyond it; empty otherwise."""
    if curve is None or curve.edge is None:
        return ()
    tried = curve.rates_tried
    if curve.edge == "low":
        return ("lowest_rate_best" if curve.best_tried == min(tried) else "falls_towards_lowest",)
    return ("highest_rate_best" if curve.best_tried == max(tried) else "falls_towards_highest",)


def _rate_settles_it(search: Sequence[TrialRow], curve: LrCurve | None) -> bool:
    """True when only the rate was searched, and its optimum has an interval or there is no loss.

    Of steps to a target alone there is no curve to settle anything, and the best of a few rates
    that are wide apart always falls.
    """
    if {name for row in search for name in row.choices} - {"peak_lr", "base_lr"}:
        return False
    has_interval = curve is not None and curve.interval is not None
    return has_interval or all(row.cost is None for row in search)


@dataclass(frozen=True)
class _Falls:
    """The best-of-n curve of one cell: what it fell by, and what there is to compare with."""

    earlier: float
    last: float
    best: float
    spread: float


def _still_falling(
    searches: Sequence[Sequence[TrialRow]],
    curves: Sequence[LrCurve | None],
    noise_sd: float | None,
) -> list[bool]:
    """Whether doubling the trials once more would gain something, in each cell.

    The gains from a quarter of the trials to half and from half to all are known. The next gain
    is taken to be in the same proportion to the last: the best of n nears its limit as a power
    of n. Of a dozen trials both gains are mostly chance. So the proportion is that of all cells
    together, and a cell's last gain is drawn half-way to the cells' median; a cell whose optimum
    lies beyond its rates is left out of both, for it falls for that reason.
    """
    reached = [
        row.objective
        for search in searches
        for row in search
        if row.objective is not None and not is_censored(row.objective)
    ]
    falls = [_falls(search, max(reached, default=0.0)) for search in searches]
    inside = [f for f, c in zip(falls, curves, strict=True) if f and not (c and c.edge)]
    pooled = inside or [f for f in falls if f]
    earlier, last = sum(f.earlier for f in pooled), sum(f.last for f in pooled)
    ratio = min(last / earlier, 1.0) if earlier > 0 else 1.0
    typical = median(f.last for f in pooled) if pooled else 0.0

    def gains(cell: _Falls | None) -> bool:
        if cell is None:
            return False
        following = (cell.last + typical) / 2 * ratio
        least = max(_OF_BEST * abs(cell.best), _OF_SPREAD * cell.spread, 2 * (noise_sd or 0.0))
        return following > least

    return [gains(cell) for cell in falls]


def _falls(search: Sequence[TrialRow], worst: float) -> _Falls | None:
    """None with fewer than four recipes that have an objective.

    One that missed the target counts as `worst`, since its own number only orders trials.
    """
    values: list[float] = []
    for recipe in by_recipe(search):
        known = [min(row.objective, worst) for row in recipe if row.objective is not None]
        if len(known) == len(recipe):
            values.append(fmean(known))
    if len(values) < 4:
        return None
    half = expected_best(values, len(values) // 2)
    return _Falls(
        earlier=expected_best(values, max(len(values) // 4, 1)) - half,
        last=half - min(values),
        best=min(values),
        spread=median(values) - min(values),
    )
