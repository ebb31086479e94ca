"""The cells of a study, and a trial's hyperparameters before they are resolved."""

import itertools
from collections.abc import Mapping
from typing import Any, Final

from scaling.spec.fields import given_fields
from scaling.spec.hyperparameters import Setting
from scaling.spec.study import StudySpec

Cell = Mapping[str, Any]
_NO_QUOTES: Final = str.maketrans("", "", "'\"`\\")
Choices = Mapping[str, Any]


def cells(spec: StudySpec) -> tuple[dict[str, Any], ...]:
    """Every combination of the scientific values; one empty cell when there are none.

    Those of a ladder are the cells of each size, with the fields that make the size.
    """
    if spec.sizes:
        sized = zip(spec.size_labels, spec.sizes, strict=True)
        return tuple({**label, **cell} for label, size in sized for cell in cells(size))
    values = spec.scientific_values()
    return tuple(
        dict(zip(values, combination, strict=True))
        for combination in itertools.product(*values.values())
    )


def cell_name(cell: Cell) -> str:
    """A cell as a person and a file name can read it, as in global_batch_size=64.

    Without quotes, which MLflow's filters cannot escape.
    """
    named = ",".join(f"{name}={value}" for name, value in sorted(cell.items()))
    return named.translate(_NO_QUOTES) or "all"


def cell_places(spec: StudySpec, before: Mapping[str, int]) -> dict[str, int]:
    """The place of each cell in a study, by the cell's name.

    Args:
        spec: The study.
        before: The places of the cells that it had before it was extended. They keep them, since
            a cell's search is seeded by its place; new cells take what is free.
    """
    places = dict(before)
    taken, highest = set(places.values()), max(places.values(), default=-1)
    for place, cell in enumerate(cells(spec)):
        if cell_name(cell) not in places:
            free = place if place not in taken else highest + 1
            places[cell_name(cell)] = free
            taken.add(free)
            highest = max(highest, free)
    return places


def cell_seed(spec: StudySpec, cell: Cell, places: Mapping[str, int]) -> int:
    """Seed of a cell's search, from the study's seed and the cell's place in the study.

    Args:
        spec: The study.
        cell: Which cell.
        places: From `cell_places`, of a study that was extended; empty for any other.
    """
    place = 0
    spec = spec.at(cell)
    for name, values in spec.scientific_values().items():
        place = place * len(values) + values.index(cell[name])
    return (spec.seed * 10_007 + places.get(cell_name(cell), place)) % 2**32


def hyperparameters(spec: StudySpec, cell: Cell, choices: Choices) -> Setting:
    """A trial's hyperparameters: the cell's and the search's, else fixed ones."""
    spec = spec.at(cell)
    own = {name: cell[name] for name in spec.scientific_values() if name in cell}
    values = dict(spec.fixed)
    for known in spec.cell_recipes:
        if dict(known.cell) == own:
            values |= given_fields(known.fixed)
    return Setting.of(values | own | dict(choices))
