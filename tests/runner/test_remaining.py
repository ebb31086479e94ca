"""What is left of a study, by its study file and what has ended."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from scaling.records.measurement import Measurement
from scaling.records.outcome import left_over
from scaling.records.study import StudyRecord, of_best_recipes
from scaling.records.trial import TrialRecord
from scaling.runner.remaining import stages
from scaling.space.layout import Facts
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
    left = {record.trial_id for record in left_over(list(records.values()), spec)}
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
