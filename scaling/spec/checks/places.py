"""Where in a study file a hyperparameter's values stand."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from scaling.spec.fields import given_fields
from scaling.spec.issues import Issue
from scaling.spec.sections import Fixed, Nuisance, Scientific
from scaling.spec.study import StudySpec


@dataclass(frozen=True)
class Place:
    """Values that a study gives a hyperparameter in one of its sections.

    Attributes:
        section: scientific, nuisance, fixed or cell_recipes.
        values: All it may be; for a searched range, the two bounds.
        recipe: Index of the cell recipe; None for the other sections.
    """

    section: Literal["scientific", "nuisance", "fixed", "cell_recipes"]
    path: str
    values: tuple[Any, ...]
    recipe: int | None = None

    @property
    def value(self) -> Any:
        """What to show: the one value, or the list of them."""
        return self.values[0] if len(self.values) == 1 else list(self.values)

    def issue(self, message: str, allowed: str = "") -> Issue:
        """What is wrong with the values here."""
        return Issue(self.path, message, self.value, allowed)


def places_of(spec: StudySpec, name: str, *, recipes: bool = True) -> list[Place]:
    """Every place that gives a hyperparameter; null counts as not given."""
    places: list[Place] = []
    values = given_value(spec.scientific, name)
    if values is not None:
        places.append(Place("scientific", f"scientific.{name}", values))
    drawn = given_value(spec.nuisance, name)
    if drawn is not None:
        listed = drawn.choice or drawn.ends or ()
        places.append(Place("nuisance", f"nuisance.{name}", listed))
    value = given_value(spec.fixed, name)
    if value is not None:
        places.append(Place("fixed", f"fixed.{name}", (value,)))
    return places + (recipe_places(spec, name) if recipes else [])


def recipe_places(spec: StudySpec, name: str) -> list[Place]:
    """Every recipe of a cell that gives a hyperparameter."""
    return [
        Place("cell_recipes", f"cell_recipes.{index}.fixed.{name}", (value,), recipe=index)
        for index, recipe in enumerate(spec.cell_recipes)
        if (value := given_value(recipe.fixed, name)) is not None
    ]


def given_value(section: Scientific | Nuisance | Fixed, name: str) -> Any:
    """What the file says in a section; None where it says nothing."""
    return given_fields(section).get(name)


def possible_values(spec: StudySpec, name: str) -> set[Any]:
    """Every listed value, or the bounds of a range; the default where none is given."""
    places = places_of(spec, name)
    possible = {value for place in places for value in place.values}
    if not any(place.section != "cell_recipes" for place in places):
        possible.add(Fixed.model_fields[name].default)
    return possible


def places_with(spec: StudySpec, name: str, value: str) -> list[Place]:
    """The places in which a hyperparameter may have a value."""
    return [place for place in places_of(spec, name) if value in place.values]


def at_most_one(spec: StudySpec, names: tuple[str, ...]) -> Iterator[Issue]:
    """No trial has two of these hyperparameters; null counts as not given."""
    before: list[Place] = []
    for name in names:
        places = [p for p in places_of(spec, name) if any(value is not None for value in p.values)]
        for place in places:
            rival = next((other for other in before if same_trial(place, other)), None)
            if rival is not None:
                yield place.issue(f"{rival.path} is given too; give one of them")
        before += places


RECIPE_SECTIONS: Final = frozenset({"scientific", "nuisance", "fixed", "cell_recipes"})


def same_trial(place: Place, other: Place) -> bool:
    """True where one trial has both."""
    return place.recipe is None or other.recipe is None or place.recipe == other.recipe


def cell_key(cell: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The cell as something that a set can hold, in any order of its names."""
    return tuple(sorted(cell.items()))
