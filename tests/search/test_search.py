"""Outcomes reach Optuna as what they are."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from ray.tune.search import Searcher

from scaling.records.measurement import Measurement
from scaling.records.outcome import objective_value
from scaling.records.trial import TrialRecord
from scaling.runner.searcher import PlannedTrials
from scaling.search.optuna import CellSearches
from scaling.space.trials import planned_search
from tests.space.test_space import DATA, study


def ended(record: TrialRecord, status: Any, loss: float) -> TrialRecord:
    point = Measurement(5, 80, 80, 0.1, validation_loss=loss)
    return replace(record, status=status, measurements=(point,))


def stored(folder: Path, name: str) -> list[optuna.trial.FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.journal")))
    return optuna.load_study(study_name=name, storage=storage).trials


def test_each_outcome_is_told_as_what_it_is(tmp_path: Path) -> None:
    spec = study(search={"trials_per_cell": 4, "sampler": "qmc"})
    searches = CellSearches(spec, tmp_path, DATA, {})
    planned = planned_search(spec, DATA)[:4]
    for trial, (status, loss) in zip(
        planned, [("done", 0.5), ("stopped", 2.0), ("diverged", 9.0), ("failed", 1.0)], strict=True
    ):
        decided = searches.decide(trial)
        assert decided == trial
        searches.tell(ended(decided.record(), status, loss))
    trials = stored(tmp_path, "s/global_batch_size=16")
    assert [t.state for t in trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL,
    ]  # fmt: skip
    assert trials[0].value == 0.5
    assert trials[1].intermediate_values == {5: 2.0}
    assert [t.params for t in trials] == [dict(p.choices) for p in planned]


def test_tpe_improves_on_what_it_was_told(tmp_path: Path) -> None:
    spec = study(
        nuisance={"peak_lr": {"log_uniform": [1e-4, 1.0]}},
        search={"trials_per_cell": 40, "sampler": "tpe"},
    )
    searches = CellSearches(spec, tmp_path, DATA, {})
    rates: list[float] = []
    for trial in planned_search(spec, DATA)[:40]:
        decided = searches.decide(trial)
        assert decided.recipe is not None
        rates.append(decided.recipe.hyperparameters.peak_lr)
        distance = abs(decided.recipe.hyperparameters.peak_lr / 0.01 - 1)
        searches.tell(ended(decided.record(), "done", distance))
    early, late = (sum(abs(r / 0.01 - 1) < 2 for r in part) for part in (rates[:10], rates[-10:]))
    assert late > early


def tpe_study() -> Any:
    return study(
        nuisance={"peak_lr": {"log_uniform": [1e-4, 1.0]}},
        search={"trials_per_cell": 4, "sampler": "tpe"},
    )


def test_a_trial_that_a_lost_run_asked_for_keeps_its_point(tmp_path: Path) -> None:
    spec = tpe_study()
    first, second, *_ = planned_search(spec, DATA)
    asked = CellSearches(spec, tmp_path, DATA, {}).decide(first)
    again = CellSearches(spec, tmp_path, DATA, {})
    decided = again.decide(first)
    assert decided == asked
    again.tell(ended(decided.record(), "done", 0.5))
    states = [t.state for t in stored(tmp_path, "s/global_batch_size=16")]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]
    # And the next one is not the first point drawn again.
    assert again.decide(second).choices != asked.choices


@pytest.mark.parametrize("status", ["done", "stopped"])
def test_a_trial_that_was_told_and_whose_line_is_lost_keeps_its_point(
    status: str, tmp_path: Path
) -> None:
    spec = tpe_study()
    [first, *_] = planned_search(spec, DATA)
    before = CellSearches(spec, tmp_path, DATA, {})
    asked = before.decide(first)
    before.tell(ended(asked.record(), status, 0.5))
    assert CellSearches(spec, tmp_path, DATA, {}).decide(first) == asked


def test_a_trial_that_ended_and_was_not_told_is_told_on_resume(tmp_path: Path) -> None:
    spec = tpe_study()
    [first, *_] = planned_search(spec, DATA)
    record = ended(CellSearches(spec, tmp_path, DATA, {}).decide(first).record(), "done", 0.25)
    again = CellSearches(spec, tmp_path, DATA, {record.trial_id: record})
    again.decide(planned_search(spec, DATA)[1])
    [told, _] = stored(tmp_path, "s/global_batch_size=16")
    assert (told.state, told.value) == (TrialState.COMPLETE, 0.25)


@pytest.mark.parametrize("sampler", ["qmc", "tpe"])
def test_a_date_as_a_seed_is_a_seed(sampler: str, tmp_path: Path) -> None:
    spec = study(seed=20_261_124, search={"trials_per_cell": 2, "sampler": sampler})
    [first, *_] = planned_search(spec, DATA)
    assert CellSearches(spec, tmp_path, DATA, {}).decide(first).recipe is not None


@pytest.mark.parametrize("objective", ["steps_to_target", "examples_to_target"])
def test_censored_trials_rank_after_all_that_reached_the_target(objective: str) -> None:
    spec = study(target={"at_most": 1.0}, search={"trials_per_cell": 4, "objective": objective})
    [trial, *_] = planned_search(spec, DATA)

    def run(*losses: float) -> TrialRecord:
        points = tuple(
            Measurement(s * 5, s * 80, s * 80, 0.1, validation_loss=loss)
            for s, loss in enumerate(losses)
        )
        return replace(trial.record(), status="done", measurements=points)

    outcomes = [(2.0, 0.5, 3.0), (2.0, 2.0, 0.9), (2.0, 2.0, 1.1), (2.0, 2.0, 1.9)]
    values = [objective_value(run(*losses), spec, {}) or 0.0 for losses in outcomes]
    assert values == sorted(values)
    assert len(set(values)) == 4
    assert objective_value(replace(run(2.0), status="diverged"), spec, {}) is None


def test_the_searcher_gives_every_planned_trial_once(tmp_path: Path) -> None:
    spec = study(search={"trials_per_cell": 2})
    planned = planned_search(spec, DATA)
    records = {p.trial_id: replace(p.record(), status="done") for p in planned}
    searcher = PlannedTrials(
        iter([planned]), lambda p: {"trial_id": p.trial_id}, records, None, lambda: 9
    )
    given = [searcher.suggest(str(number)) for number in range(5)]
    assert [config["trial_id"] for config in given[:4]] == [p.trial_id for p in planned]
    assert given[4] is None  # some run, and may have to be given again
    for number in range(4):
        searcher.on_trial_complete(str(number))
    assert searcher.suggest("5") == Searcher.FINISHED


def test_the_next_stage_is_asked_for_when_all_trials_of_one_have_ended() -> None:
    first, second, third, *_ = planned_search(study(search={"trials_per_cell": 2}), DATA)
    asked: list[str] = []

    def stages() -> Any:
        for stage in ([], [first, second], [], [third]):
            asked.append(f"{len(stage)} trials")
            yield stage

    searcher = PlannedTrials(stages(), lambda p: {"trial_id": p.trial_id}, {}, None, lambda: 9)
    assert searcher.suggest("a")["trial_id"] == first.trial_id
    assert searcher.suggest("b")["trial_id"] == second.trial_id
    searcher.on_trial_complete("b")
    assert searcher.suggest("c") is None
    assert asked == ["0 trials", "2 trials"]
    searcher.on_trial_complete("a")
    assert searcher.suggest("d")["trial_id"] == third.trial_id
    assert searcher.suggest("e") is None
    searcher.on_trial_complete("d")
    assert searcher.suggest("f") == Searcher.FINISHED


def test_a_trial_whose_actor_died_is_given_again_as_it_was(tmp_path: Path) -> None:
    spec = study(search={"trials_per_cell": 2, "sampler": "tpe"})
    [first, second, *_] = planned_search(spec, DATA)
    records: dict[str, TrialRecord] = {}
    searches = CellSearches(spec, tmp_path, DATA, records)
    searcher = PlannedTrials(
        iter([[first, second]]), lambda p: {"planned": p}, records, searches, lambda: 9
    )
    lost = searcher.suggest("a")["planned"]
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("b")["planned"] == lost
    assert searcher.suggest("c")["planned"].trial_id == second.trial_id
    # One that failed by its own error has ended.
    records[lost.trial_id] = replace(lost.record(), status="failed")
    searcher.on_trial_complete("b", error=True)
    assert searcher.suggest("d") is None
