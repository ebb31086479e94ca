"""Warmup, decay and the steps that they take."""

import math
from collections.abc import Iterator

from scaling.spec.checks.batch import batches_of, examples_of_runs, fewest_steps
from scaling.spec.checks.places import at_most_one, places_of, possible_values
from scaling.spec.issues import Issue
from scaling.spec.study import StudySpec


def warmup_field_issues(spec: StudySpec) -> Iterator[Issue]:
    """Warmup is given in one of its units."""
    yield from at_most_one(spec, ("warmup_steps", "warmup_ratio", "warmup_examples"))


def warmup_issues(spec: StudySpec) -> Iterator[Issue]:
    """No cell's run is over before its warmup is."""
    for place in places_of(spec, "warmup_steps"):
        batches = batches_of(spec, place)
        num_steps = fewest_steps(spec, batches)
        if num_steps is not None and max(place.values) > num_steps:
            at_batch = f" at global_batch_size {max(batches)}" if batches else ""
            yield Issue(
                place.path,
                f"outlasts the run, which has {num_steps} steps{at_batch}",
                max(place.values),
                f"at most {num_steps}",
            )
    for place in places_of(spec, "warmup_examples"):
        for batch in batches_of(spec, place):
            examples = min(examples_of_runs(spec, batch), default=math.inf)
            if max(place.values) > examples:
                yield Issue(
                    place.path,
                    f"outlasts the run, which has {examples} examples at global_batch_size {batch}",
                    max(place.values),
                    f"at most {examples}",
                )
                break


def decay_issues(spec: StudySpec) -> Iterator[Issue]:
    """The decay of wsd starts after warmup."""
    if "wsd" not in possible_values(spec, "schedule"):
        return
    decay = max(possible_values(spec, "decay_ratio"))
    for name in ("warmup_ratio", "warmup_steps"):
        for place in places_of(spec, name):
            num_steps = 1 if name == "warmup_ratio" else fewest_steps(spec, spec.batch_sizes())
            if num_steps is not None and max(place.values) > num_steps * (1 - decay) + 1e-9:
                yield Issue(
                    place.path,
                    f"ends after the decay of wsd starts, which takes the last {decay:g} of the "
                    "run's steps",
                    max(place.values),
                    f"at most {num_steps * (1 - decay):g}",
                )


def horizon_issues(spec: StudySpec) -> Iterator[Issue]:
    """Steps to a target, and a budget in seconds, need a schedule that knows no horizon."""
    knowing = {"linear", "cosine", "wsd"}
    decaying = [p for p in places_of(spec, "schedule") if set(p.values) & knowing]
    for place in decaying:
        if spec.target is not None:
            yield place.issue(
                "steps to target depend on where a decaying schedule ends, so that the same "
                "recipe needs more of them at a larger budget; drop target, or use constant",
                "constant, inverse_sqrt",
            )
        if spec.budget.seconds is not None:
            yield place.issue(
                "a budget in seconds does not say at which step the decay ends",
                "constant, inverse_sqrt",
            )
    if spec.budget.seconds is not None:
        for place in places_of(spec, "warmup_ratio"):
            yield place.issue(
                "a budget in seconds has no number of steps to take a share of; give warmup_steps"
            )
