"""What a trial is worth to the search."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scaling.records.measurement import Measurement, TrialResult
from scaling.records.metrics import Metric
from scaling.records.objective import objective_of, objective_of_target
from scaling.records.recipe import Recipe
from scaling.records.trial import TrialRecord
from scaling.spec.evaluation import Target
from scaling.spec.phases import TO_TARGET
from scaling.spec.study import StudySpec


@dataclass(frozen=True)
class Crossing:
    """Where a run first reaches a target: steps, examples and training seconds, interpolated.

    Attributes:
        first_gap: The steps of the first two evaluations, where the target lies between them: how
            the loss fell from its start is not known there. None where it lies later.
    """

    steps: float
    examples: float
    seconds: float
    first_gap: tuple[float, float] | None = None


def crossing(measurements: Sequence[Measurement], target: Target) -> Crossing | None:
    """First point at which the target's metric is as good as the target.

    Between the evaluation before and the one that reaches it, steps are interpolated linearly
    in the logarithm of the loss (in the value itself of what is maximized, or not above zero). A
    metric that gets worse again afterwards changes nothing; measurements without it are passed
    over; where the first evaluation is there already, it counts, as an upper bound.

    Returns:
        None when no evaluation reaches the target (the trial is censored).
    """
    objective = objective_of_target(target, {})
    enough = objective.oriented(target.value)
    before: Measurement | None = None
    num_before = 0
    for now in measurements:
        cost = objective.cost_of(now)
        if cost is None:
            continue
        if cost <= enough:
            share = _log_share(objective.cost_of(before) if before else None, cost, enough)
            start = before or now
            return Crossing(
                steps=start.step + share * (now.step - start.step),
                examples=start.examples + share * (now.examples - start.examples),
                seconds=start.seconds + share * (now.seconds - start.seconds),
                first_gap=(start.step, now.step) if num_before == 1 else None,
            )
        before, num_before = now, num_before + 1
    return None


def trial_result(record: TrialRecord, target: Target | None) -> TrialResult:
    """What a trial comes to, as far as its measurements go."""
    reached = None if target is None else crossing(record.measurements, target)
    return TrialResult(
        best_validation_loss=record.best_validation_loss,
        generalization_gap=_generalization_gap(record),
        steps_to_target=reached.steps if reached else None,
        examples_to_target=reached.examples if reached else None,
        seconds_to_target=reached.seconds if reached else None,
    )


def _generalization_gap(record: TrialRecord) -> float | None:
    """At the end: on test in confirm, on validation elsewhere."""
    final = record.final
    if final is None or final.train_loss is None:
        return None
    held_out = final.test_loss if record.phase == "confirm" else final.validation_loss
    return None if held_out is None else held_out - final.train_loss


def _log_share(before: float | None, after: float, at_most: float) -> float:
    """How far between two costs, in log cost, the target lies; 1 when it is at the later one."""
    if before is None or before <= after:
        return 1.0
    if after <= 0:
        return (before - at_most) / (before - after)
    return math.log(before / at_most) / math.log(before / after)


CENSORED = 1e12  # above every number of steps or examples that a trial can take


def is_censored(value: float) -> bool:
    """Whether a number of steps or examples is one that only orders trials that missed a target."""
    return value >= CENSORED


def objective_value(
    record: TrialRecord, spec: StudySpec, metrics: Mapping[str, Metric]
) -> float | None:
    """What the search minimizes, as one number; None for a trial with no finite outcome.

    A metric that is maximized counts negative. Of `steps_to_target` and `examples_to_target` it is
    `value_to_target`. This number only orders trials; it is never reported as a result.
    """
    if spec.target is not None and spec.search.objective in TO_TARGET:
        return value_to_target(record, spec.target, by=spec.search.objective)
    final = record.final
    if record.status in ("diverged", "failed") or final is None:
        return None
    return objective_of(spec, metrics).cost_of(final)


def value_to_target(
    record: TrialRecord, target: Target, *, by: str = "steps_to_target"
) -> float | None:
    """How soon a trial reached a target, as a number that orders trials.

    One that reached it is worth the steps or examples it took. A censored one is worth
    CENSORED × (1 + final loss / target), more than any that reached it, and of two censored trials
    the one with the better final loss, or metric, is better.

    Args:
        record: The trial.
        target: What there is to reach.
        by: steps_to_target or examples_to_target.

    Returns:
        None for a trial that was lost, or has no final value.
    """
    final = record.final
    if record.status in ("diverged", "failed") or final is None:
        return None
    objective = objective_of_target(target, {})
    cost = objective.cost_of(final)
    if cost is None:
        return None
    reached = crossing(record.measurements, target)
    if reached is not None:
        return reached.steps if by == "steps_to_target" else reached.examples
    missing = cost - objective.oriented(target.value)
    return CENSORED * (2 + missing / (abs(target.value) or 1.0))


def left_to_target(measurements: Sequence[Measurement], target: Target) -> float | None:
    """The share of the way to a target that a run had left at its end.

    The way is from its first evaluation to the target, in the logarithm of the loss (in the value
    itself of what is maximized, or not above zero).

    Returns:
        0 or less at the target or beyond it, 1 or more of a run that came nowhere; None with fewer
        than two evaluations, or where the first was there already.
    """
    objective = objective_of_target(target, {})
    costs = [cost for m in measurements if (cost := objective.cost_of(m)) is not None]
    enough = objective.oriented(target.value)
    if len(costs) < 2 or costs[0] <= enough:
        return None
    if min(costs[-1], enough) > 0:
        return math.log(costs[-1] / enough) / math.log(costs[0] / enough)
    return (costs[-1] - enough) / (costs[0] - enough)


def best_trial(
    records: Sequence[TrialRecord], spec: StudySpec, metrics: Mapping[str, Metric]
) -> TrialRecord | None:
    """The record with the lowest `objective_value`; of equals the first; None if none has one.

    A trial that was stopped early was measured at less than the budget, so it is the best only
    where none ran to its end.
    """
    return _lowest(records, [objective_value(record, spec, metrics) for record in records])


def fastest_trial(records: Sequence[TrialRecord], spec: StudySpec) -> TrialRecord | None:
    """The record that reached the target in the fewest steps; None where none reached it."""
    if spec.target is None:
        return None
    values = [value_to_target(record, spec.target) for record in records]
    reached = [None if value is None or is_censored(value) else value for value in values]
    return _lowest(records, reached)


def _lowest(records: Sequence[TrialRecord], values: Sequence[float | None]) -> TrialRecord | None:
    ran = any(record.status == "done" for record in records)
    finite = [
        (value, place)
        for place, (record, value) in enumerate(zip(records, values, strict=True))
        if value is not None and not (ran and record.status == "stopped")
    ]
    return records[min(finite)[1]] if finite else None


@dataclass(frozen=True)
class BestRecipe:
    """The recipe that a cell's search has come to; the phases after it repeat, carry or branch it.

    Attributes:
        name: The search trial that has it, or from `surface_recipe_name` or `target_recipe_name`;
            `recipe_of` of those phases' trials.
        cell: As in `TrialRecord`; so are `choices`.
        recipe: With the seed of the search.
    """

    name: str
    cell: Mapping[str, Any]
    choices: Mapping[str, Any]
    recipe: Recipe

    @classmethod
    def of_trial(cls, record: TrialRecord) -> "BestRecipe":
        """The recipe of a search trial."""
        return cls(record.trial_id, record.cell, record.choices, record.recipe)


_SURFACE, _SURFACE_OF_STEPS = "surface-", "target-"


def surface_recipe_name(cell: str, num_trials: int) -> str:
    """Name of the recipe that the surface recommends for a cell after so many search trials."""
    return f"{_SURFACE}{cell}-{num_trials:03d}"


def target_recipe_name(cell: str, num_trials: int, num_moved: int) -> str:
    """The same by the surface of steps to the target, which has moved so often after as many."""
    moved = f".{num_moved}" if num_moved else ""
    return f"{_SURFACE_OF_STEPS}{cell}-{num_trials:03d}{moved}"


def repeats(replicate: TrialRecord, best: BestRecipe) -> bool:
    """Whether a trial of the phases after the search is of a recipe that the search came to."""
    if replicate.recipe_of is not None:
        return replicate.recipe_of == best.name
    # Recorded before `recipe_of` was: all that was searched, or the rate that a rule carried.
    carried = replicate.recipe.origin.base_lr is not None and replicate.phase == "transfer"
    if carried:
        return replicate.recipe.origin.base_lr == best.recipe.hyperparameters.peak_lr
    return dict(replicate.choices) == dict(best.choices)


def left_over(
    trials: Sequence[TrialRecord],
    spec: StudySpec,
    metrics: Mapping[str, Metric],
    planned: Sequence[str | None] = (),
) -> list[TrialRecord]:
    """Replicates of a recipe that is no longer the best of its cell, since the study was extended.

    So are the checks of what a ladder predicted before. They are no replicates of what the study
    compares, and are never pooled with those that are. Of the recipes that the surface recommended
    for a cell the latest is the best. It follows from the records which one that is, once a trial
    has it.

    Args:
        trials: Of the study.
        spec: The study.
        metrics: What the task says of its metrics.
        planned: Names of recipes that are repeated next, which no trial may have yet.
    """
    names = [*(t.recipe_of for t in trials), *planned]
    latest = {of: _latest_surface_recipes(names, of) for of in (_SURFACE, _SURFACE_OF_STEPS)}
    searched: dict[str, list[TrialRecord]] = {}
    for trial in sorted(trials, key=lambda trial: trial.trial_id):
        if trial.phase == "search" and trial.status != "running":
            searched.setdefault(_key(trial.cell), []).append(trial)
    best_tried = {key: best_trial(records, spec, metrics) for key, records in searched.items()}
    fastest = {key: fastest_trial(records, spec) for key, records in searched.items()}

    def source(replicate: TrialRecord) -> TrialRecord | None:
        if replicate.phase == "confirm":
            return best_tried.get(_key(replicate.cell))
        if replicate.phase == "confirm_target":
            return fastest.get(_key(replicate.cell))
        section = spec.transfer if replicate.phase == "transfer" else spec.branch
        if section is None:
            return None
        known = (r for r in best_tried.values() if r is not None)
        sizes = ((r, r.recipe.hyperparameters.global_batch_size) for r in known)
        return next((r for r, size in sizes if size == section.base_batch_size), None)

    def is_left_over(replicate: TrialRecord) -> bool:
        cell = _searched_cell(replicate.recipe_of)
        is_of_steps = replicate.phase == "confirm_target"
        of_cells = latest[_SURFACE_OF_STEPS if is_of_steps else _SURFACE]
        if cell in of_cells:
            return replicate.recipe_of != of_cells[cell]
        found = source(replicate)
        return found is not None and not repeats(replicate, BestRecipe.of_trial(found))

    return [trial for trial in trials if trial.phase != "search" and is_left_over(trial)]


def _latest_surface_recipes(names: Sequence[str | None], start: str) -> dict[str | None, str]:
    """By cell, the name of the recipe that a surface recommended last."""
    surface = {name for name in names if name is not None and name.startswith(start)}

    def numbers(name: str) -> list[tuple[int, str]]:
        return [(len(number), number) for number in name.rpartition("-")[2].split(".")]

    by_number = sorted(surface, key=numbers)
    return {_searched_cell(name): name for name in by_number}


def _searched_cell(recipe_of: str | None) -> str | None:
    """The cell's name in that of a search trial or of a recipe that the surface recommends."""
    return recipe_of and recipe_of.partition("-")[2].rpartition("-")[0]


def _key(cell: Mapping[str, object]) -> str:
    return repr(sorted(cell.items()))
