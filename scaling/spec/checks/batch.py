"""The batch of a study: its sizes, and how it may grow."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Final

from scaling.arithmetic.batching import BatchRamp, nearest_feasible
from scaling.spec.checks.places import Place, at_most_one, places_of, possible_values
from scaling.spec.fields import MAX_BATCH_SIZE
from scaling.spec.issues import NO_VALUE, Issue
from scaling.spec.study import StudySpec

MAX_RAMPS: Final = 100_000
"""Ways in which a batch may grow, over all batch sizes or recipes: so many are gone through."""


def batches_of(spec: StudySpec, place: Place) -> tuple[int, ...]:
    """The batch sizes of the trials that a place speaks of."""
    if place.recipe is not None:
        batch = spec.cell_recipes[place.recipe].cell.get("global_batch_size")
        if isinstance(batch, int) and batch > 0:
            return (batch,)
    return spec.batch_sizes()


StepsOf = Callable[[StudySpec, BatchRamp], int | None]
"""Optimizer steps of a trial under the budget; None where that is not known."""


def examples_of_runs(spec: StudySpec, batch: int, steps_of: StepsOf) -> list[int]:
    """Examples of trials that start at a batch size, by how it grows; empty where not known."""
    known = ((ramp, steps_of(spec, ramp)) for ramp in ramps_of(spec, batch))
    return [ramp.examples_after(steps) for ramp, steps in known if steps is not None]


def steps_by_file(spec: StudySpec, ramp: BatchRamp) -> int | None:
    """Steps of a trial as far as the study file says; None of a budget that the data decide."""
    budget = spec.budget
    if budget.steps is not None:
        return max(budget.steps, budget.min_steps)
    if budget.examples is not None:
        return ramp.steps_for(budget.examples, min_steps=budget.min_steps)
    return None


RAMPS: Final = ("batch_ramp_every_examples", "batch_ramp_at_examples")
_RAMP_FIELDS: Final = (*RAMPS, "batch_ramp_factor")


def ramps_of(spec: StudySpec, batch: int) -> list[BatchRamp]:
    """Every way in which the batch of a trial may grow from this size."""
    possible = (possible_values(spec, name) for name in _RAMP_FIELDS)
    ramps: list[BatchRamp] = []
    for every, at, factor in itertools.product(*possible):
        if every is None:
            ramps.append(BatchRamp(batch, at or (), factor))
        else:
            ramps.append(BatchRamp.every(every, first=batch, factor=factor, largest=MAX_BATCH_SIZE))
    return ramps


def ramp_count_issues(spec: StudySpec) -> Iterator[Issue]:
    """As many ways for the batch to grow as can be gone through."""
    count = math.prod(len(possible_values(spec, name)) for name in _RAMP_FIELDS)
    count *= max(1, len(spec.batch_sizes()), len(spec.cell_recipes))
    if count > MAX_RAMPS and (
        places := [p for name in _RAMP_FIELDS for p in places_of(spec, name)]
    ):
        most = max(places, key=lambda place: len(place.values))
        message = f"makes {count:,} ways in which the batch grows"
        yield Issue(most.path, message, NO_VALUE, f"at most {MAX_RAMPS:,}")


def ramp_issues(spec: StudySpec, message: str) -> Iterator[Issue]:
    """Every place that lets the batch grow, where it may not."""
    for place in (place for name in RAMPS for place in places_of(spec, name)):
        yield place.issue(message)


def other_axis_issues(spec: StudySpec, section: str) -> Iterator[Issue]:
    """Every compared hyperparameter but the batch, where a section compares batches alone."""
    for name in spec.scientific_values():
        if name != "global_batch_size":
            message = f"with {section}, global_batch_size is the only scientific axis"
            yield Issue(f"scientific.{name}", message)


def batch_ramp_issues(spec: StudySpec, steps_of: StepsOf = steps_by_file) -> Iterator[Issue]:
    """A batch that grows does so within the run, one size at a time."""
    yield from at_most_one(spec, RAMPS)
    places = [
        place
        for name in RAMPS
        for place in places_of(spec, name)
        if any(value is not None for value in place.values)
    ]
    if not places:
        for place in places_of(spec, "batch_ramp_factor"):
            yield place.issue("has no effect without a batch ramp")
    for place in places:
        every = place.path.endswith(RAMPS[0])
        if spec.target is not None and "global_batch_size" in spec.scientific_values():
            remedy = "drop target, or take global_batch_size out of scientific"
            why = "the critical batch size is fitted to steps to target at constant batches"
            yield place.issue(f"{why}; {remedy}")
        if every and spec.budget.seconds is not None:
            why = "a budget in seconds does not say how far the batch grows"
            yield place.issue(f"{why}; give batch_ramp_at_examples")
        yield from _ramp_fits(spec, place, steps_of, every=every)


def _ramp_fits(spec: StudySpec, place: Place, steps_of: StepsOf, *, every: bool) -> Iterator[Issue]:
    """Each growth comes before the end of some run, and after a step of the size before."""
    batches = batches_of(spec, place)
    ends = [
        ramp.examples_after(steps - 1)  # where the last step starts
        for batch in batches
        for ramp in ramps_of(spec, batch)
        if (steps := steps_of(spec, ramp)) is not None
    ]
    values = [value for value in place.values if value is not None]
    last = max(values) if every else values[0][-1]
    if ends and last > max(ends):
        yield Issue(place.path, "is past the end of every run", last, f"at most {max(ends)}")
    for ramp in (ramp for batch in batches[-1:] for ramp in ramps_of(spec, batch)):
        steps = steps_of(spec, ramp)
        if steps is not None:
            ramp = ramp.up_to(steps)
        elif every:
            continue
        if ramp.skips:
            growing = f"a batch that grows {ramp.factor}-fold from {ramp.first}"
            yield place.issue(f"{growing} passes two of its marks in one step; space them wider")
            return


def batch_size_issues(spec: StudySpec) -> Iterator[Issue]:
    """A batch size is given, and every worker gets an equal share of it."""
    num_workers = spec.resources.num_workers
    workers = 1 if num_workers == "auto" else num_workers // spec.resources.num_parts
    places = places_of(spec, "global_batch_size", recipes=False)
    if not places:
        message = "no batch size is given: give it in scientific, nuisance or fixed"
        yield Issue("fixed.global_batch_size", message)
    for place in places:
        for size in place.values:
            feasible = nearest_feasible(size, workers)
            if size not in feasible:
                message = f"must be a multiple of resources.num_workers {workers}"
                yield Issue(place.path, message, size, " or ".join(map(str, feasible)))
