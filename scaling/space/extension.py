"""A search that goes on beyond the end of its rates that turned out to be too near.

Each time the new part is half as wide as the range of the study file, in the logarithm, and gets
half as many trials, so that they lie as close as before.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from scaling.space.cells import Cell
from scaling.space.designs import design
from scaling.space.layout import Facts
from scaling.space.trials import PlannedTrial, planned_point
from scaling.spec.checks.sizes import num_cells
from scaling.spec.sections import Distribution
from scaling.spec.study import StudySpec

Edge = Literal["low", "high"]

_SEED_STRIDE = 1_000_003
"""Between the seeds of two rounds' designs."""


def rate_name(spec: StudySpec) -> str | None:
    """The searched hyperparameter that is a learning rate; None where none is searched."""
    searched = spec.nuisance.distributions()
    return next((name for name in ("peak_lr", "base_lr") if name in searched), None)


def most_extension_trials(spec: StudySpec) -> int:
    """Trials beyond the ranges, if every cell is extended as often as it may be."""
    times = spec.search.extend_undertuned
    return times * num_cells(spec) * _num_trials(spec) if times else 0


def beyond(
    drawn: Distribution[Any], edges: Sequence[Edge]
) -> tuple[Distribution[Any], Distribution[Any]]:
    """The part beyond the last of some edges, and the whole after all of them.

    Args:
        drawn: What the study file says: log_uniform, or a choice of rates.
        edges: The ends that were too near, one a round, in their order.
    """
    assert edges
    if drawn.choice is not None:
        return _choice_beyond(tuple(sorted(drawn.choice)), edges)
    assert drawn.log_uniform is not None
    low, high = drawn.log_uniform
    factor = math.sqrt(high / low)
    new = (low, high)
    for edge in edges:
        if edge == "low":
            new = (low / factor, low)
            low = new[0]
        else:
            new = (high, high * factor)
            high = new[1]
    return Distribution(log_uniform=new), Distribution(log_uniform=(low, high))


def _choice_beyond(
    values: tuple[float, ...], edges: Sequence[Edge]
) -> tuple[Distribution[Any], Distribution[Any]]:
    """Rates go on in the ratio of the two at that end."""
    num_new = math.ceil(len(values) / 2)
    new: tuple[float, ...] = ()
    for edge in edges:
        first, second = (values[0], values[1]) if edge == "low" else (values[-1], values[-2])
        new = tuple(sorted(first * (first / second) ** place for place in range(1, num_new + 1)))
        values = tuple(sorted((*values, *new)))
    return Distribution(choice=new), Distribution(choice=values)


def planned_extension(
    spec: StudySpec, cell: Cell, edges: Sequence[Edge], facts: Facts
) -> list[PlannedTrial]:
    """The next round of a cell's search; recipes are None where an adaptive sampler decides.

    Args:
        spec: The study.
        cell: Which cell.
        edges: The ends of its rates that were too near, one a round; the last one is new.
        facts: Sizes of the data, and of trials' worker groups.

    Returns:
        Trials in the new part alone; with tpe, in the whole extended range.
    """
    name = rate_name(spec)
    assert name is not None
    drawn = spec.nuisance.distributions()[name]
    assert isinstance(drawn, Distribution)
    new, whole = beyond(drawn, edges)
    search_round, count = len(edges), _num_trials(spec)
    restricted = {  # for drawing points alone
        "seed": spec.seed + _SEED_STRIDE * search_round,
        "nuisance": spec.nuisance.model_copy(update={name: new}),
        "search": spec.search.model_copy(update={"trials_per_cell": count}),
    }
    points = design(spec.model_copy(update=restricted), cell, facts.cell_places)
    first = spec.search.per_cell + (search_round - 1) * count
    return [
        replace(
            planned_point(spec, cell, number, choices, facts),
            search_round=search_round,
            extended={name: whole},
        )
        for number, choices in enumerate(points or [None] * count, start=first)
    ]


def _num_trials(spec: StudySpec) -> int:
    """Trials of a cell in one round beyond its range."""
    name = rate_name(spec)
    if name is None:
        return 0
    drawn = spec.nuisance.distributions()[name]
    if spec.search.sampler != "grid":
        return math.ceil(spec.search.per_cell / 2)
    num_rates = len(drawn.choice or ())
    return spec.search.per_cell // num_rates * math.ceil(num_rates / 2)
