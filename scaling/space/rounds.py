"""The rounds of a search by the surface: what each has proposed, and the trials that it makes.

A round is proposed from the rounds before it, so its trials wait until all of theirs have ended.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scaling.records.outcome import surface_recipe_name, target_recipe_name
from scaling.space.cells import cell_name, cells
from scaling.space.ladder import PredictedRecipe
from scaling.space.layout import Facts
from scaling.space.trials import PlannedTrial, planned_point
from scaling.spec.evaluation import Target
from scaling.spec.study import StudySpec


@dataclass(frozen=True)
class ProposedTrial:
    """One trial that a round proposes: the name of its cell, and the nuisance values."""

    cell: str
    choices: Mapping[str, Any]


@dataclass(frozen=True)
class SurfaceRecipe:
    """The recipe that the surface recommends for a cell: its name, the cell's, nuisance values."""

    name: str
    cell: str
    choices: Mapping[str, Any]


PREDICTED = "predicted"
"""In the place of a cell's name: what the last size of a ladder is checked at."""


@dataclass(frozen=True)
class SearchEnd:
    """What a search came to: the recipes that the phases after it repeat, carry and branch off.

    Attributes:
        num_trials: Its trials that had not failed. With more of them it is decided anew.
        recipes: One a cell, but for cells of which no trial has a loss (or reached the target).
        for_target: Those that the surface of steps to the target recommends, where they are
            confirmed too; of cells of which a trial reached it.
        target: What they are for; None before there were any, and where trials came since then
            while they were not asked for.
        num_moved: How often after as many trials they were recommended for another target.
    """

    num_trials: int
    recipes: tuple[SurfaceRecipe, ...]
    for_target: tuple[SurfaceRecipe, ...] = ()
    target: Target | None = None
    num_moved: int = 0


@dataclass(frozen=True)
class Rounds:
    """What a search has proposed so far. What was proposed stays, whatever comes to be known.

    Attributes:
        size: Trials of a round; the first one, a design, and the last one may have others. Fixed
            before the first.
        proposed: The rounds in their order, and the trials of each in theirs.
        end: What the search came to when it was last over; None before.
    """

    size: int
    proposed: tuple[tuple[ProposedTrial, ...], ...] = ()
    end: SearchEnd | None = None

    @property
    def prediction(self) -> PredictedRecipe | None:
        """What the last size of a ladder is checked at; None before the end, or without a check."""
        recipes = self.end.recipes if self.end else ()
        found = next((recipe for recipe in recipes if recipe.cell == PREDICTED), None)
        return None if found is None else PredictedRecipe(found.name, **found.choices)

    def followed_by(self, proposed: Sequence[ProposedTrial]) -> "Rounds":
        """These rounds and one more."""
        return replace(self, proposed=(*self.proposed, tuple(proposed)))

    def ended(
        self,
        points: Mapping[str, Mapping[str, Any]],
        num_trials: int,
        for_target: Mapping[str, Mapping[str, Any]] | None = None,
        target: Target | None = None,
    ) -> "Rounds":
        """These rounds at the end of the search; what it came to after as many trials stays.

        What it came to for the target stays for as long as that is the target.

        Args:
            points: The nuisance values that the surface recommends, by the cell's name. Where they
                are those that it recommended before, the recipe keeps its name.
            num_trials: Those that it knows.
            for_target: As `points`, for the target; None where it is not asked for.
            target: What those are for.
        """
        end = self.end or SearchEnd(0, ())
        is_new = end.num_trials != num_trials
        if is_new:
            names = {cell: surface_recipe_name(cell, num_trials) for cell in points}
            recipes = _named(points, end.recipes, names)
            end = replace(end, num_trials=num_trials, recipes=recipes, target=None, num_moved=0)
        if for_target is not None and end.target != target:
            moved = end.num_moved + (not is_new and bool(end.for_target))
            names = {cell: target_recipe_name(cell, num_trials, moved) for cell in for_target}
            steps = _named(for_target, end.for_target, names)
            end = replace(end, for_target=steps, target=target, num_moved=moved)
        return replace(self, end=end)


def _named(
    points: Mapping[str, Mapping[str, Any]],
    before: Sequence[SurfaceRecipe],
    new_names: Mapping[str, str],
) -> tuple[SurfaceRecipe, ...]:
    """Recipes by their points; one that is as it was before keeps its name."""
    known = {recipe.cell: recipe for recipe in before}
    return tuple(
        same
        if (same := known.get(cell)) and dict(same.choices) == dict(point)
        else SurfaceRecipe(new_names[cell], cell, point)
        for cell, point in points.items()
    )


def default_round_size(num_trials: int, num_slots: int) -> int:
    """Trials of a round where the study file does not say: at least four and about a sixth of all.

    Slots wait at the end of a round, so it has two trials for each slot, or else one, where that
    is at most a third of all trials: longer rounds would learn too little from each other. On one
    slot and on two it is the same.
    """
    third = max(2, num_trials // 3)
    size = min(max(4, 2 * math.ceil(num_trials / 12)), third)
    for each in (2, 1):
        whole = math.ceil(max(size, each * num_slots) / num_slots) * num_slots
        if whole <= third:
            return whole
    return min(size, num_trials)


def planned_rounds(spec: StudySpec, rounds: Rounds, facts: Facts) -> list[list[PlannedTrial]]:
    """The trials of each round. Those of a cell are numbered from 0, over all rounds."""
    known = {cell_name(cell): cell for cell in cells(spec)}
    numbers = Counter[str]()
    planned: list[list[PlannedTrial]] = []
    for number, proposals in enumerate(rounds.proposed):
        trials: list[PlannedTrial] = []
        for proposal in proposals:
            cell, place = known[proposal.cell], numbers[proposal.cell]
            trial = planned_point(spec, cell, place, proposal.choices, facts)
            trials.append(replace(trial, surface_round=number))
            numbers[proposal.cell] += 1
        planned.append(trials)
    return planned
