"""Steps, examples and seconds to the target, and which trials they are taken from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from scaling.analysis.critical_batch.censored import with_expected_steps
from scaling.analysis.statistics.uncertainty import (
    ABSENT,
    Estimate,
    Interval,
    bounded,
    mean_estimate,
    seed_variance,
    t_quantile,
    without_tie,
)
from scaling.analysis.trial_rows import TrialRow

Measure = Literal["steps_to_target", "examples_to_target", "seconds_to_target"]
_ENOUGH_DEGREES = 4
"""Of freedom of seeds' noise, from which on a single trial may count as lucky."""


@dataclass(frozen=True)
class ToTarget:
    """What one cell took to reach the target.

    Attributes:
        steps: Optimizer steps. A mean over the replicates that reached the target would flatter
            the cell: one that nearly did has the steps expected of it, where most others reached
            it; else there is no value.
        trials: The replicates that ended, all with one recipe where it was reached; with the
            expected steps where `steps` has a value.
        best_tuned: Steps of the search's fastest recipe, picked and measured on the same trials
            and therefore somewhat too few; None where no recipe has steps.
        above: What `steps` is above where it has no value, from the steps that were run without
            reaching the target; None where nothing ran to its budget.
    """

    steps: Estimate = ABSENT
    examples: Estimate = ABSENT
    seconds: Estimate = ABSENT
    num_reached: int = 0
    trials: tuple[TrialRow, ...] = ()
    best_tuned: float | None = None
    above: float | None = None

    @property
    def first_gap(self) -> Interval | None:
        """Steps between which the target lies, where a replicate reached it in its first gap."""
        gaps = [row.first_gap for row in self.trials if row.first_gap is not None]
        return (min(low for low, _ in gaps), max(high for _, high in gaps)) if gaps else None

    @property
    def peak_lr(self) -> float | None:
        """The learning rate of the recipe whose steps these are; None where none reached it."""
        return self.trials[0].peak_lr if self.steps.value is not None else None


def to_target(confirm: Sequence[TrialRow], search: Sequence[TrialRow]) -> ToTarget:
    """Mean over the confirm replicates; without any, the search's fastest recipe.

    Source: for the fastest of the tuned trials, Shallue et al. 2018 (arXiv:1811.03600) sec. 3.
    """
    tuned = fastest(search)
    rows = tuple(row for row in (confirm or tuned) if row.ended)
    best = of_recipe(tuned).steps.value
    found = of_recipe(rows)
    if found.steps.value is None:
        above = _mean_above(rows) if confirm else _fastest_above(rows)
        return replace(found, best_tuned=best, above=above)
    return replace(found, best_tuned=best)


def of_recipe(rows: Sequence[TrialRow]) -> ToTarget:
    """What the replicates of one recipe took; no value where that is not known of all."""
    num_reached = sum(row.steps_to_target is not None for row in rows)
    trials = with_expected_steps(rows)
    if not trials:
        return ToTarget(num_reached=num_reached, trials=tuple(rows))
    return ToTarget(
        steps=_mean(trials, "steps_to_target"),
        examples=_mean(trials, "examples_to_target"),
        seconds=_mean(trials, "seconds_to_target"),
        num_reached=num_reached,
        trials=trials,
    )


def fastest(search: Sequence[TrialRow]) -> tuple[TrialRow, ...]:
    """The replicates of the recipe that reaches the target in the fewest steps on average.

    When most replicates of every recipe missed it, the result is every trial.
    """
    known: list[tuple[list[float], list[TrialRow]]] = []
    for rows in by_recipe(search):
        if trials := with_expected_steps(rows):
            known.append(([row.steps_to_target or 0.0 for row in trials], rows))
    return tuple(_lowest(known) or search)


def by_recipe(rows: Sequence[TrialRow]) -> list[list[TrialRow]]:
    """Rows grouped by recipe (they differ in the seed alone), in order of appearance."""
    groups: dict[str, list[TrialRow]] = {}
    for row in rows:
        groups.setdefault(row.recipe_key, []).append(row)
    return list(groups.values())


def best_recipe(search: Sequence[TrialRow]) -> tuple[TrialRow, ...]:
    """The replicates of the recipe with the lowest mean objective; of equals the first.

    A single trial that is lowest by no more than seeds explain gives way to a recipe with several.
    A recipe of which one replicate has no objective (it diverged or failed) is not eligible, nor,
    where a trial ran to its end, one whose loss is of a trial that was stopped before.
    """
    ran = any(row.status == "done" for row in search)
    known: list[tuple[list[float], list[TrialRow]]] = []
    for rows in by_recipe(search):
        if ran and any(row.status == "stopped" and row.objective == row.cost for row in rows):
            continue
        values = [row.objective for row in rows if row.objective is not None]
        if len(values) == len(rows):
            known.append((values, rows))
    return tuple(_lowest(known))


def _lowest(recipes: Sequence[tuple[list[float], list[TrialRow]]]) -> list[TrialRow]:
    """The rows of the recipe with the lowest mean; nothing of none.

    The lowest of many single trials is a lucky one. Where seeds explain (one-sided, at 5%) that it
    is below the lowest recipe with several seeds, that one is taken. A pair or two of seeds explain
    anything, and count for nothing here.
    """
    if not recipes:
        return []
    lowest = min(recipes, key=_mean_of)
    replicated = [recipe for recipe in recipes if len(recipe[0]) > 1]
    if len(lowest[0]) > 1 or not replicated:
        return lowest[1]
    noise = seed_variance(
        [
            {n if row.seed is None else row.seed: value for n, (value, row) in enumerate(pairs)}
            for pairs in (list(zip(*recipe, strict=True)) for recipe in replicated)
        ]
    )
    best = min(replicated, key=_mean_of)
    if noise is None or noise.degrees < _ENOUGH_DEGREES:
        return lowest[1]
    error = math.sqrt(noise.variance * (1 + 1 / len(best[0])))
    is_lucky = _mean_of(best) - t_quantile(noise.degrees) * error <= _mean_of(lowest)
    return (best if is_lucky else lowest)[1]


def _mean_of(recipe: tuple[list[float], list[TrialRow]]) -> float:
    return sum(recipe[0]) / len(recipe[0])


def _mean(rows: Sequence[TrialRow], measure: Measure) -> Estimate:
    """No value unless every row has one: a mean over some would flatter the cell.

    Where a row reached the target before its second evaluation, the interval is as wide as that
    gap: how the loss fell within it is not known. Seeds that tie have no other interval.
    """
    values: list[float] = [v for row in rows if (v := getattr(row, measure)) is not None]
    if len(values) < len(rows):
        return ABSENT
    estimate = bounded(mean_estimate(values), 0)
    if measure == "seconds_to_target":
        estimate = _by_ratios(values, estimate)
    if all(row.first_gap is None for row in rows):
        return without_tie(estimate)
    if estimate.interval is None:
        return estimate
    ends = [_in_gap(row, value) for row, value in zip(rows, values, strict=True)]
    low, high = (fmean(side) for side in zip(*ends, strict=True))
    widened = min(estimate.interval[0], low), max(estimate.interval[1], high)
    return replace(estimate, interval=widened)


def _by_ratios(values: Sequence[float], estimate: Estimate) -> Estimate:
    """The mean with an interval from the logarithms: what else a machine does multiplies seconds.

    One seed that ran on a busy machine would put the lower end of Student's interval below zero.
    """
    if min(values) <= 0:
        return estimate
    in_logs = mean_estimate([math.log(value) for value in values])
    if in_logs.interval is None or estimate.value is None:
        return estimate
    low, high = (math.exp(end) for end in in_logs.interval)
    return replace(estimate, interval=(min(low, estimate.value), max(high, estimate.value)))


def _in_gap(row: TrialRow, value: float) -> Interval:
    """Between which a row's value lies, as far as its evaluations tell."""
    if row.first_gap is None or not row.steps_to_target:
        return value, value
    low, high = row.first_gap
    return value * low / row.steps_to_target, value * high / row.steps_to_target


def _mean_above(rows: Sequence[TrialRow]) -> float | None:
    """The replicates' mean is above this: a censored one takes more steps than it was run."""
    least = [row.steps_to_target if row.steps_to_target is not None else row.steps for row in rows]
    known = [steps for steps in least if steps is not None]
    return fmean(known) if known and len(known) == len(rows) else None


def _fastest_above(rows: Sequence[TrialRow]) -> float | None:
    """No recipe of the search that ran to its budget reached the target in this many steps."""
    ran = [row.steps for row in rows if row.status == "done" and row.steps is not None]
    never = all(row.steps_to_target is None for row in rows)
    return min(ran) if ran and never else None
