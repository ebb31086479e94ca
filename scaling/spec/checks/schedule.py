"""Warmup, decay and the steps that they take."""

import math
from collections.abc import Iterator

from scaling.arithmetic.batching import BatchRamp
from scaling.spec.checks.batch import StepsOf, batches_of, ramps_of, steps_by_file
from scaling.spec.checks.places import Place, at_most_one, places_of, possible_values, same_trial
from scaling.spec.issues import Issue
from scaling.spec.study import StudySpec


def warmup_field_issues(spec: StudySpec) -> Iterator[Issue]:
    """Warmup is given in one of its units."""
    yield from at_most_one(spec, ("warmup_steps", "warmup_ratio", "warmup_examples"))


def warmup_issues(spec: StudySpec, steps_of: StepsOf = steps_by_file) -> Iterator[Issue]:
    """No run is over before its warmup is."""
    yield from _late_issues(spec, steps_of, 1.0, "outlasts the run")


def decay_issues(spec: StudySpec, steps_of: StepsOf = steps_by_file) -> Iterator[Issue]:
    """The decay of wsd starts after warmup."""
    if "wsd" not in possible_values(spec, "schedule"):
        return
    decay = max(possible_values(spec, "decay_ratio"))
    message = f"ends after the decay of wsd starts, which takes the last {decay:g} of the run"
    for place in places_of(spec, "warmup_ratio"):
        if max(place.values) > 1 - decay + 1e-9:
            yield Issue(place.path, message, max(place.values), f"at most {1 - decay:g}")
    yield from _late_issues(spec, steps_of, 1 - decay, message)


def _late_issues(spec: StudySpec, steps_of: StepsOf, share: float, message: str) -> Iterator[Issue]:
    """Warmups that are not over after a share of the steps of some run, and what all runs allow."""
    for place in places_of(spec, "warmup_steps") + places_of(spec, "warmup_examples"):
        runs = [
            (*_longest_warmup(spec, place, ramp, int(steps * share + 1e-9)), steps, ramp.first)
            for batch in sorted(batches_of(spec, place), reverse=True)
            for ramp in ramps_of(spec, batch)
            if (steps := steps_of(spec, ramp)) is not None
        ]
        most, base, steps, batch = min(runs, key=lambda run: run[0], default=(math.inf, None, 0, 0))
        if max(place.values) > most:
            carried = (
                f"carried from global_batch_size {base} by warmup_scaling, it " if base else ""
            )
            said = f"{carried}{message}, which has {steps} steps at global_batch_size {batch}"
            yield Issue(place.path, said, max(place.values), f"at most {most}")


def _longest_warmup(
    spec: StudySpec, place: Place, ramp: BatchRamp, num_steps: int
) -> tuple[int, int | None]:
    """The most that a place may say, in its own unit, for a warmup of at most so many steps.

    Returns:
        That, and the batch size from which warmup_scaling carries it; None where it is as said.
    """
    if place.path.endswith("warmup_examples"):
        return ramp.examples_after(num_steps), None
    bases = [
        size
        for other in places_of(spec, "base_batch_size")
        if same_trial(place, other)
        for size in other.values
    ]
    scalings = possible_values(spec, "warmup_scaling")
    is_kept = not bases or "steps" in scalings  # in trials of the search
    if spec.transfer is not None:
        bases.append(spec.transfer.base_batch_size)
    if not bases or "examples" not in scalings:
        return num_steps, None
    carried = num_steps * ramp.first // max(bases)
    return (num_steps, None) if is_kept and num_steps <= carried else (carried, max(bases))


def horizon_issues(spec: StudySpec) -> Iterator[Issue]:
    """Steps to a target, and a budget in seconds, need a schedule that knows no horizon."""
    knowing, others = {"linear", "cosine", "wsd"}, "constant, inverse_sqrt"
    decaying = [p for p in places_of(spec, "schedule") if set(p.values) & knowing]
    is_by_time = spec.budget.seconds is not None
    for place in decaying:
        if spec.target is not None:
            message = (
                "steps to target depend on where a decaying schedule ends, so that the same "
                "recipe needs more of them at a larger budget; drop target, or use constant"
            )
            yield place.issue(message, others)
        if is_by_time:
            message = "a budget in seconds does not say at which step the decay ends"
            yield place.issue(message, others)
    for place in places_of(spec, "warmup_ratio") if is_by_time else ():
        why = "a budget in seconds has no number of steps to take a share of"
        yield place.issue(f"{why}; give warmup_steps")
