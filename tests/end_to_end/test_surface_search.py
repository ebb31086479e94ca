"""A search by the surface for real: killed and gone on with on other slots, it is the same."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from scaling.records.ledger import read_records
from scaling.records.trial import TrialRecord
from tests.commands import run
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.studies import write_study
from tests.faults.disturbed import Running

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STUDY: dict[str, Any] = {
    "name": "faulty",
    "question": "Does the surface try the same whatever happens?",
    "workload": {"task": "noisy_quadratic", "num_chains": 20},
    "scientific": {"global_batch_size": [4, 16, 64]},
    "nuisance": {"peak_lr": {"log_uniform": [0.01, 1.5]}},
    "fixed": {"optimizer": "sgd"},
    "budget": {"steps": 60},
    "evaluation": {"every_steps": 20},
    "search": {"num_trials": 12, "stop": None, "round_size": 2},
    "confirm": {"num_seeds": 1},
}


def trials(folder: Path) -> dict[str, TrialRecord]:
    return read_records(folder / "runs/faulty/trials.jsonl")


def measured(folder: Path) -> dict[str, tuple[Any, ...]]:
    """What was tried and what came of it, by id; the search's and what follows from it."""
    return {
        name: (
            trial.choices, trial.surface_round, trial.recipe_of,
            [m.validation_loss for m in trial.measurements],
        )
        for name, trial in trials(folder).items()
    }  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Path:
    """The folder of the study, run in one go."""
    folder = tmp_path_factory.mktemp("whole")
    write_study(folder, STUDY)
    done = cluster.run(folder, "faulty.yaml")
    assert done.status == 0, done.stderr
    (folder / "output.txt").write_text(done.stdout)
    return folder


@pytest.mark.ci
def test_a_killed_search_goes_on_to_the_same_trials_on_other_slots(
    whole: Path, tmp_path: Path, cluster: Cluster
) -> None:
    write_study(tmp_path, STUDY)
    study = Running(tmp_path, "--address", cluster.address, **cluster.variables)
    study.wait_for("[9/10]")  # in the middle of the second round
    study.kill_and_wait()
    known = trials(tmp_path)
    assert 9 <= len(known) < 13
    done = cluster.run(tmp_path, "faulty.yaml", "--resume", "--set", "resources.max_slots=1")
    assert done.status == 0, done.stderr
    assert measured(tmp_path) == measured(whole)
    assert {name: trials(tmp_path)[name] for name in known} == known


def test_confirm_runs_what_the_surface_recommends_and_the_report_says_so(whole: Path) -> None:
    known = json.loads((whole / "runs/faulty/study.json").read_text())["rounds"]["end"]
    recommended = {recipe["name"]: recipe["choices"] for recipe in known["recipes"]}
    confirm = [trial for trial in trials(whole).values() if trial.phase == "confirm"]
    assert {trial.recipe_of: trial.choices for trial in confirm} == recommended
    assert len(recommended) == 3
    tried = [dict(trial.choices) for trial in trials(whole).values() if trial.phase == "search"]
    assert any(choices not in tried for choices in recommended.values())
    summary = json.loads((whole / "reports/faulty/summary.json").read_text())
    said = summary["recommendation"]
    [chosen] = [
        trial for trial in confirm
        if trial.cell["global_batch_size"] == said["global_batch_size"]
    ]  # fmt: skip
    assert said["peak_lr"] == chosen.choices["peak_lr"]
    assert f"peak_lr: {said['peak_lr']}" in said["recipe"]
    again = run(whole, "faulty", "--output", "again", module="scaling.report")
    assert again.status == 0, again.stderr
    assert json.loads((whole / "again/summary.json").read_text()) == summary


def test_every_cell_is_tried_and_optuna_knows_all_trials(whole: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(whole / "runs/faulty/optuna.journal")))
    told: dict[str, Any] = {}
    for batch in (4, 16, 64):
        study = optuna.load_study(study_name=f"faulty/global_batch_size={batch}", storage=storage)
        assert study.trials
        told |= {t.user_attrs["trial_id"]: (t.params, t.value) for t in study.trials}
    assert told == {
        name: (trial.choices, trial.final and trial.final.validation_loss)
        for name, trial in trials(whole).items()
        if trial.phase == "search"
    }


def test_it_says_how_far_it_is_round_by_round(whole: Path) -> None:
    lines = (whole / "output.txt").read_text().splitlines()
    found = [line for line in lines if "expected regret: global_batch_size=4 " in line]
    assert [line.split(";")[0] for line in found] == [
        "search: 8 of at most 12 trials have ended",
        "search: 10 of at most 12 trials have ended",
        "search over: all of its 12 trials have run",
    ]
    rounds = json.loads((whole / "runs/faulty/study.json").read_text())["rounds"]
    assert [len(proposed) for proposed in rounds["proposed"]] == [8, 2, 2]
