"""Branched training and a range that is extended, for real; cut off, and gone on with.

MLflow's store is deleted while it goes on: the study has everything, and tells a new one.
"""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from scaling.records.ledger import read_records
from scaling.records.trial import TrialRecord
from scaling.sinks.mlflow.load import load_study
from tests.commands import Finished, run
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.studies import write_study

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STUDY: dict[str, Any] = {
    "name": "branches",
    "question": "How far may the batch grow along a run?",
    "workload": {"task": "noisy_quadratic", "num_chains": 50},
    "scientific": {"global_batch_size": [4, 16]},
    "nuisance": {"peak_lr": {"log_uniform": [0.01, 0.04]}},
    "fixed": {"optimizer": "sgd"},
    "budget": {"examples": 640},
    "evaluation": {"every_examples": 200},
    "search": {"trials_per_cell": 4, "extend_undertuned": 2},
    "branch": {
        "base_batch_size": 4, "at_examples": [64, 256], "multiples": [1, 4, 16],
        "window_examples": 256, "num_seeds": 2,
    },
    "resources": {"max_slots": 1},
}  # fmt: skip
TRIALS = "runs/branches/trials.jsonl"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Finished:
    """The study from its first trial to its last."""
    folder = tmp_path_factory.mktemp("branches")
    write_study(folder, STUDY)
    return cluster.run(folder, "branches.yaml")


@pytest.fixture(scope="module")
def known(whole: Finished) -> dict[str, TrialRecord]:
    """Its trials."""
    return read_records(whole.folder / TRIALS)


@pytest.fixture(scope="module")
def kept(whole: Finished) -> list[str]:
    """Lines of its ledger, as if it had stopped after the search and three branches."""
    lines = (whole.folder / TRIALS).read_text().splitlines()
    search = [line for line in lines if json.loads(line)["phase"] == "search"]
    return search + [line for line in lines if json.loads(line)["phase"] == "branch"][:3]


@pytest.fixture(scope="module")
def gone_on(
    whole: Finished, known: dict[str, TrialRecord], kept: list[str], cluster: Cluster
) -> Finished:
    """The study that was cut off, resumed; MLflow's store is deleted after its next trial."""
    assert len(known) > len(kept)
    trials = whole.folder / TRIALS
    trials.write_text("\n".join(kept) + "\n")
    size = trials.stat().st_size
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(cluster.run, whole.folder, "branches.yaml", "--resume")
        while trials.stat().st_size == size:
            assert not running.done(), running.result()
            time.sleep(0.01)
        (whole.folder / "mlflow.db").unlink()
    return running.result()


def losses(trials: dict[str, TrialRecord]) -> dict[str, list[float | None]]:
    return {name: [m.validation_loss for m in t.measurements] for name, t in trials.items()}


def test_a_short_range_is_extended(whole: Finished, known: dict[str, TrialRecord]) -> None:
    assert whole.status == 0, whole.stderr
    assert "its best rate is the highest tried; 2 more trials beyond it" in whole.stdout
    beyond = [trial for trial in known.values() if trial.search_round > 0]
    assert beyond
    assert all(trial.recipe.hyperparameters.peak_lr >= 0.04 for trial in beyond)
    summary = json.loads((whole.folder / "reports/branches/summary.json").read_text())
    assert sum(entry["num_trials_beyond"] for entry in summary["extended_cells"]) == len(beyond)


def test_branches_leave_one_run_and_end(whole: Finished, known: dict[str, TrialRecord]) -> None:
    branches = [trial for trial in known.values() if trial.phase == "branch"]
    assert len(branches) == 2 * 3 * 2
    for trial in branches:
        recipe = trial.recipe.hyperparameters
        assert recipe.branch_from_examples is not None
        assert trial.measurements[-1].examples == recipe.branch_from_examples + 256
    for seed in {trial.recipe.seed for trial in branches}:  # up to where they leave it
        late = {
            m.validation_loss
            for trial in branches
            if trial.recipe.seed == seed
            and trial.recipe.hyperparameters.branch_from_examples == 256
            for m in trial.measurements
            if m.examples == 200
        }
        assert len(late) == 1
    summary = json.loads((whole.folder / "reports/branches/summary.json").read_text())
    assert [p["examples"] for p in summary["critical_batch_size"]["branched"]["at"]] == [64, 256]


def test_a_study_that_was_cut_off_ends_the_same(
    gone_on: Finished, known: dict[str, TrialRecord], kept: list[str]
) -> None:
    trials = gone_on.folder / TRIALS
    assert trials.read_text().splitlines()[: len(kept)] == kept
    now = read_records(trials)
    assert {name: t.recipe for name, t in now.items()} == {
        name: t.recipe for name, t in known.items()
    }
    assert losses(now) == losses(known)


def test_a_store_deleted_in_the_middle_is_written_again(
    gone_on: Finished, known: dict[str, TrialRecord]
) -> None:
    assert gone_on.status == 1, gone_on
    assert "mlflow.db is gone; the study's folder has everything" in gone_on.stderr
    assert "To go on: python -m scaling.study branches.yaml" in gone_on.stderr
    assert (gone_on.folder / "reports/branches/report.html").exists()
    resumed = run(gone_on.folder, "branches.yaml", "--resume")
    assert resumed.status == 0, resumed.stderr
    recorded = load_study("branches", f"sqlite:///{gone_on.folder}/mlflow.db").trials
    assert len(recorded) == len(known)
    assert losses({t.trial_id: t for t in recorded}) == losses(known)
