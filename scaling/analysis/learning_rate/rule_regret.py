"""What it costs to carry a recipe by a rule instead of tuning it at the new batch size."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from scaling.analysis.statistics.uncertainty import Estimate, Interval, mean_estimate, of_draws
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.arithmetic.rules import moves_rate_alone, scaled_lr
from scaling.surface.carried import CarriedRecipes

USUAL_RULES = ("none", "sqrt", "linear")
"""What a sweep without rules of its own is asked about."""
_MOSTLY_INSIDE = 0.1
"""Share of the draws beyond the rates tried from which on a regret is a lower bound."""


@dataclass(frozen=True)
class Regret:
    """One rule at one batch size against the recipe tuned there.

    Attributes:
        regret: Mean over seeds of the loss by the rule minus the loss tuned, in nats, or of how
            much worse the study's metric is; None when a seed of either side diverged, since a
            mean of the others flatters, or nothing can be paired.
        interval: From the paired differences. The evaluation sample is the same on both sides
            and cancels for the most part, so it is not added.
        tuned_diverged: True when a trial of the tuned recipe diverged.
        applicable: False when the rule defines no recipe at this batch size.
        split: What was compared: test_loss, or validation_loss when there is no test, or the
            metric that recipes are tuned for.
    """

    rule: str
    global_batch_size: int
    regret: float | None = None
    interval: Interval | None = None
    num_seeds: int = 0
    diverged: bool = False
    tuned_diverged: bool = False
    applicable: bool = True
    split: str = "test_loss"


def regrets(sweep: Sweep) -> tuple[Regret, ...]:
    """Every rule at every batch size other than the one it carries from, in the study's order."""
    batches = sorted({row.global_batch_size for row in sweep.rows} | {b for _, b in sweep.refused})
    return tuple(
        _regret(sweep, rule, batch)
        for rule in sweep.rules
        for batch in batches
        if batch != sweep.base_batch_size
    )


def _regret(sweep: Sweep, rule: str, batch: int) -> Regret:
    rows = [r for r in sweep.rows if r.global_batch_size == batch]
    carried = [r for r in rows if r.phase == "transfer" and r.rule == rule]
    tuned = [r for r in rows if r.phase == "confirm"]
    if not carried:
        return Regret(rule, batch, applicable=(rule, batch) not in sweep.refused)
    lost, tuned_lost = (any(r.status == "diverged" for r in side) for side in (carried, tuned))
    if lost or tuned_lost:
        return Regret(rule, batch, diverged=lost, tuned_diverged=tuned_lost)
    if sweep.tuned_for.is_loss:
        compared = [(split, attrgetter(split)) for split in ("test_loss", "validation_loss")]
    else:
        compared = [(sweep.tuned_for.name, attrgetter("cost"))]
    paired = [(split, _paired(carried, tuned, loss_of)) for split, loss_of in compared]
    split, differences = next((pair for pair in paired if pair[1]), paired[-1])
    estimate = mean_estimate(differences)
    return Regret(
        rule, batch, estimate.value, estimate.interval, num_seeds=estimate.count, split=split
    )


def _paired(
    carried: Sequence[TrialRow],
    tuned: Sequence[TrialRow],
    loss_of: Callable[[TrialRow], float | None],
) -> list[float]:
    """Loss by the rule minus loss tuned, for each seed that has both."""
    losses = {row.seed: loss_of(row) for row in tuned}
    pairs = [(loss_of(row), losses.get(row.seed)) for row in carried]
    return [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]


@dataclass(frozen=True)
class CarriedRegret:
    """The regret of a rule from one batch size to another, read from the surface.

    Attributes:
        regret: Median over drawn surfaces, in the loss's unit; the rate that is carried is the
            best one of each drawn surface.
        is_lower_bound: True when the rule leaves the rates tried, and the regret is that at the
            last one, or when the batch size that it is carried to has its best rate there.
    """

    base_batch_size: int
    global_batch_size: int
    regret: float
    interval: Interval
    is_lower_bound: bool


@dataclass(frozen=True)
class RuleCurve:
    """A rule from every tuned batch size to every other one.

    Attributes:
        mean: Of the regrets of all pairs.
        regrets: One a pair, by rising base and then batch. None from a batch size whose best rate
            lies at an end of those tried: what would be carried is not known.
    """

    rule: str
    mean: Estimate
    regrets: tuple[CarriedRegret, ...]

    @property
    def worst(self) -> CarriedRegret:
        """The pair that costs the most."""
        return max(self.regrets, key=lambda regret: regret.regret)


def rule_curves(
    recipes: CarriedRecipes,
    batch_sizes: Sequence[int],
    at_edge: Sequence[bool],
    rules: Sequence[str],
) -> tuple[RuleCurve, ...]:
    """The rules that move the rate alone; the usual ones where there are none.

    Empty where every batch size has its best rate at an end of those tried.

    Args:
        recipes: Draws of the loss.
        batch_sizes: Those of its cells, rising.
        at_edge: Whether each of these has its best rate at an end of those tried, or beyond.
        rules: Names.
    """
    if all(at_edge):
        return ()
    return tuple(
        _curve(recipes, batch_sizes, at_edge, rule)
        for rule in rules or USUAL_RULES
        if moves_rate_alone(rule)
    )


def _curve(
    recipes: CarriedRecipes, batch_sizes: Sequence[int], at_edge: Sequence[bool], rule: str
) -> RuleCurve:
    regrets: list[CarriedRegret] = []
    total: NDArray[np.float64] | float = 0.0
    for base, here in enumerate(batch_sizes):
        for other, there in enumerate(batch_sizes):
            if base == other or at_edge[base]:
                continue
            ratio = scaled_lr(1.0, base_batch_size=here, global_batch_size=there, rule=rule)
            draws, outside = recipes.regrets(base, other, math.log(ratio))
            value = of_draws(draws)
            assert value.value is not None
            assert value.interval is not None
            is_bound = outside > _MOSTLY_INSIDE or at_edge[other]
            regrets.append(CarriedRegret(here, there, value.value, value.interval, is_bound))
            total = total + draws
    return RuleCurve(rule, of_draws(np.asarray(total) / len(regrets)), tuple(regrets))
