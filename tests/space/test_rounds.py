"""The trials that the rounds of a search by the surface make."""

from typing import Any

import pytest

from scaling.space.rounds import ProposedTrial, Rounds, default_round_size, planned_rounds
from tests.space.test_space import DATA, study


def by_surface(**search: Any) -> Any:
    return study(search={"sampler": "surface", "num_trials": 12, **search})


def test_trials_of_a_cell_are_numbered_over_all_rounds() -> None:
    spec = by_surface()
    first, second = "global_batch_size=16", "global_batch_size=64"
    point = {"peak_lr": 0.01, "clip_norm": None}
    rounds = Rounds(2, ((ProposedTrial(first, point), ProposedTrial(second, point)),))
    rounds = rounds.followed_by([ProposedTrial(first, point), ProposedTrial(first, point)])
    planned = planned_rounds(spec, rounds, DATA)
    assert [[trial.trial_id for trial in trials] for trials in planned] == [
        [f"search-{first}-000", f"search-{second}-000"],
        [f"search-{first}-001", f"search-{first}-002"],
    ]
    assert [trial.record().surface_round for trials in planned for trial in trials] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("num_trials", "num_slots", "size"),
    [
        (24, 1, 4),
        (24, 2, 4),
        (24, 3, 6),
        (24, 4, 8),
        (24, 8, 8),  # one for each slot; two would be more than a third of all
        (24, 16, 4),
        (40, 2, 8),
        (12, 2, 4),
        (3, 2, 2),
        (1, 4, 1),
    ],
)
def test_a_round_is_about_a_sixth_and_keeps_few_slots_waiting(
    num_trials: int, num_slots: int, size: int
) -> None:
    assert default_round_size(num_trials, num_slots) == size


def test_one_slot_and_two_try_the_same() -> None:
    sizes = [default_round_size(num_trials, 1) for num_trials in range(1, 200)]
    assert sizes == [default_round_size(num_trials, 2) for num_trials in range(1, 200)]
