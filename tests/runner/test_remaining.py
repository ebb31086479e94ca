"""What is left of a study, by its study file and what has ended."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from scaling.records.measurement import Measurement
from scaling.records.outcome import left_over
from scaling.records.study import StudyRecord, of_best_recipes
from scaling.records.trial import TrialRecord
from scaling.runner.remaining import stages
from scaling.space.layout import Facts
from scaling.spec.checks.sizes import num_trials
from scaling.spec.patches import set_field
from scaling.spec.phases import Confirm
from scaling.spec.study import StudySpec
from tests.space.test_space import study

FACTS = Facts(num_train=None, tokens_per_example=None)
BRANCH = {"base_batch_size": 16, "at_examples": [64], "multiples": [1, 2], "window_examples": 64}


def extended(trials_per_cell: int, num_seeds: int = 2) -> Any:
    return study(
        nuisance={"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
        search={"trials_per_cell": trials_per_cell},
        transfer={"base_batch_size": 16, "rules": ["none"], "num_seeds": num_seeds},
        confirm={"num_seeds": num_seeds},
        branch={**BRANCH, "num_seeds": num_seeds},
    )


def ended(planned: Any, loss: float) -> TrialRecord:
    """The record of a trial that ended with a loss, as the ledger reads it back."""
    measured = (Measurement(5, 80, None, 1.0, validation_loss=loss),)
    record = replace(planned.record(), status="done", measurements=measured)
    return TrialRecord.from_json(record.to_json())


def run(spec: StudySpec, records: dict[str, TrialRecord], losses: Mapping[str, float]) -> list[str]:
    """Runs what is missing; the trials that ran."""
    ran: list[str] = []
    for stage in stages(spec, records, FACTS):
        for trial in stage.missing:
            records[trial.trial_id] = ended(trial, losses.get(trial.trial_id, 1.0))
            ran.append(trial.trial_id)
    return ran


LOSSES = {f"search-global_batch_size={b}-001": 0.5 for b in (16, 64)}
BETTER = LOSSES | {"search-global_batch_size=16-003": 0.4}


def test_a_study_that_ended_has_nothing_left() -> None:
    records: dict[str, TrialRecord] = {}
    assert len(run(extended(2), records, LOSSES)) == 4 + 2 + 4 + 4
    assert run(extended(2), records, LOSSES) == []


def test_more_seeds_and_trials_run_what_is_missing_alone() -> None:
    records: dict[str, TrialRecord] = {}
    run(extended(2), records, LOSSES)
    fresh: dict[str, TrialRecord] = {}
    run(extended(4, num_seeds=3), fresh, LOSSES)
    before = dict(records)
    ran = run(extended(4, num_seeds=3), records, LOSSES)
    assert not set(ran) & set(before)
    assert records == fresh


def test_replicates_of_another_best_recipe_have_other_ids_and_are_never_mixed() -> None:
    records: dict[str, TrialRecord] = {}
    run(extended(2), records, BETTER)
    before = {n: r for n, r in records.items() if r.phase != "search"}
    spec = extended(4, num_seeds=3)
    ran = run(spec, records, BETTER)
    assert {n: records[n] for n in before} == before
    assert "confirm-global_batch_size=16-seed1-of-003" in ran
    assert "confirm-global_batch_size=16-seed3-of-003" in ran
    assert "transfer-global_batch_size=64-none-seed2-of-003" in ran
    assert "branch-global_batch_size=16-at64-x2-seed1-of-003" in ran
    assert "confirm-global_batch_size=64-seed3" in ran  # the other cell's best is what it was
    assert "confirm-global_batch_size=64-seed1" not in ran
    assert run(spec, records, BETTER) == []
    *_, last = stages(spec, records, FACTS)
    kept = of_best_recipes(StudyRecord(spec, tuple(records.values())))
    left = {record.trial_id for record in left_over(list(records.values()), spec, {})}
    assert left == {n for n in before if not n.startswith("confirm-global_batch_size=64")}
    assert {trial.trial_id for trial in kept.trials} == records.keys() - left
    [note] = kept.notes
    assert note.startswith(f"Left out: {len(left)} trials of recipes that later search trials")
    assert tuple(last.notes) == (note,)
    fresh: dict[str, TrialRecord] = {}
    run(spec, fresh, BETTER)

    def recipes(trials: Any) -> set[Any]:
        return {(t.phase, t.rule, t.recipe) for t in trials}

    assert recipes(kept.trials) == recipes(fresh.values())
    assert len(kept.trials) == len(fresh)
    # A longer search that finds nothing better changes nothing.
    assert all(n.startswith("search") for n in run(extended(5, num_seeds=3), records, BETTER))


def test_replicates_recorded_without_their_search_trial_are_known_by_their_recipe() -> None:
    records: dict[str, TrialRecord] = {}
    run(extended(2), records, BETTER)
    old = {name: replace(record, recipe_of=None) for name, record in records.items()}
    assert run(extended(2), dict(old), BETTER) == []
    ran = run(extended(4), old, BETTER)
    assert "transfer-global_batch_size=64-none-seed1-of-003" in ran
    assert "confirm-global_batch_size=16-seed1-of-003" in ran
    assert "confirm-global_batch_size=64-seed1" not in ran


def both(trials_per_cell: int = 4) -> StudySpec:
    """A study that confirms the recipe for the loss and that for the target."""
    return study(
        nuisance={"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
        search={"trials_per_cell": trials_per_cell},
        target={"at_most": 0.9},
        confirm={"num_seeds": 2, "recipe_for_target": True},
    )


FASTEST = {"search-global_batch_size=16-002": 40, "search-global_batch_size=64-001": 40}
"""Step at which a trial is first evaluated at the target; none for the others of 64."""


def run_to_target(spec: StudySpec, records: dict[str, TrialRecord]) -> list[str]:
    """Losses as `LOSSES`; at 16 every trial reaches the target, at 64 the one with the lowest."""
    ran: list[str] = []
    for stage in stages(spec, records, FACTS):
        for trial in stage.missing:
            step = FASTEST.get(trial.trial_id, 80 if trial.cell["global_batch_size"] == 16 else 999)
            reached = [(step, 0.9)] if step < 200 else []
            last = (200, LOSSES.get(trial.trial_id, 0.8) if reached else 1.0)
            record = replace(
                trial.record(), status="done",
                measurements=tuple(
                    Measurement(s, s * 16, None, 1.0, validation_loss=loss)
                    for s, loss in [(0, 2.0), *reached, last]
                ),
            )  # fmt: skip
            records[trial.trial_id] = TrialRecord.from_json(record.to_json())
            ran.append(trial.trial_id)
    return ran


def test_the_recipe_for_the_target_is_confirmed_where_it_is_another() -> None:
    records: dict[str, TrialRecord] = {}
    spec = both()
    run_to_target(spec, records)
    for_target = {n: r for n, r in records.items() if r.phase == "confirm_target"}
    # At 64 the trial with the lowest loss is the only one that reaches the target: run once.
    assert sorted(for_target) == [f"confirm_target-global_batch_size=16-seed{s}" for s in (1, 2)]
    assert {r.recipe_of for r in for_target.values()} == {"search-global_batch_size=16-002"}
    for_loss = [r for r in records.values() if r.phase == "confirm"]
    assert len(for_loss) == 4
    assert {r.recipe.seed for r in for_target.values()} == {r.recipe.seed for r in for_loss}
    assert num_trials(spec) == {"search": 8, "confirm": 4, "confirm_target": 4}
    assert run_to_target(spec, records) == []
    assert left_over(list(records.values()), spec, {}) == []


def test_a_study_that_ended_confirms_the_recipe_for_the_target_when_it_goes_on() -> None:
    records: dict[str, TrialRecord] = {}
    confirm = Confirm(num_seeds=2, recipe_for_target=False)
    once = both().model_copy(update={"confirm": confirm})
    run_to_target(once, records)
    assert not any(r.phase == "confirm_target" for r in records.values())
    before = dict(records)
    ran = run_to_target(both(), records)
    assert sorted(ran) == [f"confirm_target-global_batch_size=16-seed{s}" for s in (1, 2)]
    assert {n: records[n] for n in before} == before


@pytest.mark.parametrize(("changes", "confirms"), [
    ({}, True),
    ({"target": None}, False),
    ({"confirm": None}, False),
    ({"search.objective": "steps_to_target"}, False),
    ({"transfer": {"base_batch_size": 16, "rules": ["sqrt"]}}, False),
    ({"transfer": {"base_batch_size": 16, "rules": ["sqrt"]}, "confirm.recipe_for_target": True},
     True),
    ({"confirm.recipe_for_target": False}, False),
])  # fmt: skip
def test_the_recipe_for_the_target_is_confirmed_where_there_is_one(
    changes: dict[str, Any], confirms: bool
) -> None:
    study = both().model_dump(mode="json", exclude_unset=True) | {"confirm": {"num_seeds": 2}}
    for path, value in changes.items():
        set_field(study, path.split("."), value)
    spec = StudySpec.model_validate(study)
    assert spec.confirms_target is confirms
    assert ("confirm_target" in num_trials(spec)) is confirms


def test_where_no_trial_reached_the_target_nothing_is_confirmed_for_it() -> None:
    records: dict[str, TrialRecord] = {}
    run(both(), records, LOSSES | {f"search-global_batch_size={b}-001": 0.95 for b in (16, 64)})
    assert not any(r.phase == "confirm_target" for r in records.values())
