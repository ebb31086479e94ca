"""The rounds of a search by the surface: what each has proposed, and the trials that it makes.

A round is proposed from the rounds before it, so its trials wait until all of theirs have ended.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scaling.space.cells import cell_name, cells
from scaling.space.layout import Facts
from scaling.space.trials import PlannedTrial, planned_point
from scaling.spec.study import StudySpec


@dataclass(frozen=True)
class ProposedTrial:
    """One trial that a round proposes: the name of its cell, and the nuisance values."""

    cell: str
    choices: Mapping[str, Any]


@dataclass(frozen=True)
class Rounds:
    """What a search has proposed so far. What was proposed stays, whatever comes to be known.

    Attributes:
        size: Trials of a round; the first one, a design, and the last one may have others. Fixed
            before the first.
        proposed: The rounds in their order, and the trials of each in theirs.
    """

    size: int
    proposed: tuple[tuple[ProposedTrial, ...], ...] = ()

    def followed_by(self, proposed: Sequence[ProposedTrial]) -> "Rounds":
        """These rounds and one more."""
        return replace(self, proposed=(*self.proposed, tuple(proposed)))


def default_round_size(num_trials: int, num_slots: int) -> int:
    """Trials of a round where the study file does not say: about a sixth of all, an even number.

    Slots wait at the end of each round. So it is rounded up to a multiple of the slots, unless
    that is more than a third of all trials: rounds would learn too little from each other.

    Args:
        num_trials: Of the whole search, at most.
        num_slots: Trials that run at once.
    """
    size = 2 * math.ceil(num_trials / 12)
    whole = math.ceil(size / num_slots) * num_slots
    return min(num_trials, whole if whole <= max(size, num_trials // 3) else size)


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
