"""One more run of a recipe: for how many steps, and what loss it ends with.

Predictive intervals: a mean's error and the scatter of a single run together, by Student's t.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from scipy.special import stdtrit  # pyright: ignore -- scipy ships no types

from scaling.analysis.critical_batch.targets import ToTarget
from scaling.analysis.statistics.interpolation import interpolated
from scaling.analysis.statistics.uncertainty import (
    ABSENT,
    Estimate,
    Interval,
    SeedVariance,
    root_mean_square,
    seed_variance,
    t_quantile,
)
from scaling.analysis.trial_rows import TrialRow
from scaling.records.objective import VALIDATION_LOSS, Objective

CHANCE = 0.9
"""That one more run reaches the target in the steps that are recommended."""
_OWN_SEEDS = 10
"""From as many on a cell's own scatter counts, and not that of all cells together."""


@dataclass(frozen=True)
class StepsOfRun:
    """How many steps a run to the target gets.

    Attributes:
        steps: Enough for one more run with `CHANCE`; without a spread, the mean of those seen.
        mean: Geometric mean of the steps to target, with the interval of the mean.
        one_more: 90% interval of the steps at which one more run reaches the target.
        spread: Predictive standard deviation of log steps.
        degrees: Of freedom behind it.
    """

    steps: int
    mean: Estimate
    one_more: Interval | None
    spread: float | None
    degrees: float


def steps_spread(cells: Sequence[ToTarget]) -> SeedVariance | None:
    """Variance of log steps to target over seeds, of all cells together.

    Args:
        cells: What each cell's recipe took; one of which a seed missed the target says nothing.

    Returns:
        None without replicates, or where those of every cell reached the target at the same
        evaluation: how far they scatter between two is not known.
    """
    groups: list[dict[int, float]] = []
    for cell in cells:
        steps = {
            place if row.seed is None else row.seed: math.log(row.steps_to_target)
            for place, row in enumerate(cell.trials)
            if row.steps_to_target
        }
        if len(steps) == cell.num_reached == len(cell.trials):
            groups.append(steps)
    found = seed_variance(groups)
    return found if found is not None and found.variance > 0 else None


def steps_of_run(target: ToTarget, spread: SeedVariance | None) -> StepsOfRun | None:
    """Steps that reach the target with a chance of 90%; None where steps to it are not known.

    Args:
        target: What the recipe's replicates took. Where one missed the target, their own scatter
            counts, if it is more than that of all cells.
        spread: Of all cells, for one with fewer than ten seeds.
    """
    logs = [math.log(row.steps_to_target) for row in target.trials if row.steps_to_target]
    if not logs or target.steps.value is None:
        return None
    count, centre = len(logs), fmean(logs)
    own_variance = variance(logs) if count > 1 else 0.0
    is_wider = target.num_reached < count and own_variance > (spread.variance if spread else 0.0)
    if is_wider or (count >= _OWN_SEEDS and own_variance > 0):
        spread = SeedVariance(own_variance, count - 1)
    if spread is None:
        mean = Estimate(math.exp(centre), None, count)
        return StepsOfRun(math.ceil(target.steps.value), mean, None, None, 1.0)
    own = math.sqrt(spread.variance / count)
    single = math.sqrt(spread.variance * (1 + 1 / count))
    t_two, t_one = t_quantile(spread.degrees), float(stdtrit(spread.degrees, CHANCE))  # pyright: ignore -- untyped
    steps = math.ceil(math.exp(centre + t_one * single) - 1e-9)
    return StepsOfRun(
        steps,
        Estimate(math.exp(centre), _around(centre, t_two * own), count),
        _around(centre, t_two * single),
        single,
        spread.degrees,
    )


def _around(centre: float, half: float) -> Interval:
    return math.exp(centre - half), math.exp(centre + half)


def loss_after(
    steps: int, rows: Sequence[TrialRow], objective: Objective = VALIDATION_LOSS
) -> Estimate:
    """The loss, or a metric, of one more run after so many steps, between evaluations by steps.

    Returns:
        No value where a replicate was not evaluated before and after.
    """
    values = [_between(row, steps, objective) for row in rows]
    stderrs = [row.validation_loss_stderr if objective.is_loss else None for row in rows]
    return one_more(values, stderrs)


def one_more(values: Sequence[float | None], stderrs: Sequence[float | None]) -> Estimate:
    """The mean over replicates, with a 90% interval for one more run.

    Args:
        values: Of each replicate; no value where one is missing.
        stderrs: Of evaluating on a sample that all replicates share.
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return ABSENT
    if len(known) == 1:
        return Estimate(known[0], None, 1)
    shared = root_mean_square([error for error in stderrs if error is not None]) or 0.0
    over_seeds = variance(known) * (1 + 1 / len(known))
    half = math.hypot(t_quantile(len(known) - 1) * math.sqrt(over_seeds), t_quantile(1e6) * shared)
    mean = fmean(known)
    return Estimate(mean, (mean - half, mean + half), len(known))


def _between(row: TrialRow, steps: int, objective: Objective) -> float | None:
    points = [(m.step, objective.value_of(m)) for m in row.measurements]
    known = [(step, loss) for step, loss in points if loss is not None]
    return interpolated([step for step, _ in known], [loss for _, loss in known], steps)
