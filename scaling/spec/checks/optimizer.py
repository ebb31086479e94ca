"""Hyperparameters that the optimizer, the schedule or another one leaves without effect."""

from collections.abc import Iterator
from typing import Final

from scaling.optimizers.catalog import OPTIMIZERS, elementwise_optimizers, optimizers_that_read
from scaling.spec.checks.places import at_most_one, places_of, possible_values
from scaling.spec.issues import Issue
from scaling.spec.sections import TABLE
from scaling.spec.study import StudySpec

NEEDS: Final = {
    **{
        name: ("optimizer", optimizers_that_read(name))
        for name in sorted({name for facts in OPTIMIZERS.values() for name in facts.reads})
    },
    "weight_decay": (
        "optimizer",
        {n for n, facts in OPTIMIZERS.items() if facts.reads_weight_decay},
    ),
    **{row.name: row.entry.needs for row in TABLE if row.entry.needs is not None},
}
"""Hyperparameters without effect unless another one has one of these values."""

_HARMLESS: Final = {"min_lr_ratio": (0.0,), "nesterov": (False,), "weight_decay": (0.0,)}
"""Values that say what is so anyway."""


def effect_issues(spec: StudySpec) -> Iterator[Issue]:
    """A hyperparameter that no trial uses is a mistake, not a detail."""
    for name, (of, useful) in NEEDS.items():
        possible = possible_values(spec, of)
        if possible & useful:
            continue
        for place in places_of(spec, name):
            if place.values != _HARMLESS.get(name):
                message = f"has no effect with {of} {' or '.join(sorted(possible))}"
                yield place.issue(message, f"only with {of} {' or '.join(sorted(useful))}")


def clipping_issues(spec: StudySpec) -> Iterator[Issue]:
    """A gradient is clipped in one way at most."""
    yield from at_most_one(spec, ("clip_norm", "clip_value", "clip_percentile"))
    if possible_values(spec, "clip_percentile") == {None}:
        for place in places_of(spec, "clip_history_steps"):
            yield place.issue("has no effect without clip_percentile")


def nesterov_issues(spec: StudySpec) -> Iterator[Issue]:
    """Looking ahead along a momentum needs one."""
    looking_ahead = optimizers_that_read("nesterov") & possible_values(spec, "optimizer")
    if not looking_ahead or True not in possible_values(spec, "nesterov"):
        return
    if possible_values(spec, "momentum") & {None, 0.0}:
        without = [p for p in places_of(spec, "momentum") if 0.0 in p.values]
        for place in without or places_of(spec, "nesterov"):
            yield place.issue("nesterov needs a momentum above 0")


def elementwise_issues(spec: StudySpec, why: str) -> Iterator[Issue]:
    """Optimizers whose step of one weight depends on others, where that cannot be."""
    allowed = elementwise_optimizers()
    for place in places_of(spec, "optimizer"):
        for optimizer in sorted(set(place.values).difference(allowed)):
            yield Issue(place.path, why, optimizer, ", ".join(allowed))
