"""A study that goes on: moved, by another version's study file, and extended."""

import json
from pathlib import Path
from typing import Any

import pytest

from scaling.records.ledger import read_records
from scaling.records.trial import TrialRecord
from scaling.sinks.mlflow.load import load_study
from tests.commands import Finished, run
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.studies import write_study

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SMALL: dict[str, Any] = {
    "name": "grown",
    "question": "Is a study that was extended the larger study?",
    "workload": {"task": "noisy_quadratic", "num_chains": 20},
    "scientific": {"global_batch_size": [4, 16]},
    "nuisance": {"peak_lr": {"log_uniform": [0.01, 1.0]}},
    "fixed": {"optimizer": "sgd"},
    "budget": {"steps": 30},
    "evaluation": {"every_steps": 10},
    "search": {"trials_per_cell": 4},
    "confirm": {"num_seeds": 2},
}
LARGE: dict[str, Any] = SMALL | {
    "scientific": {"global_batch_size": [4, 8, 16]},
    "search": {"trials_per_cell": 7},
    "transfer": {"base_batch_size": 4, "rules": ["none", "sqrt"], "num_seeds": 2},
    "confirm": {"num_seeds": 3},
    "resources": {"max_slots": 1},
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Path:
    """The folder of a small study that ended, moved to where it is now."""
    before = tmp_path_factory.mktemp("grown") / "before"
    before.mkdir()
    write_study(before, SMALL)
    done = cluster.run(before, "grown.yaml")
    assert done.status == 0, done.stderr
    return before.rename(before.with_name("now"))


def trials(folder: Path) -> dict[str, TrialRecord]:
    return read_records(folder / "runs/grown/trials.jsonl")


def losses(records: Any) -> dict[tuple[object, ...], list[tuple[int, float | None]]]:
    """Every validation loss, by all that tells trials apart but for their ids."""
    return {
        (t.phase, t.rule, *t.cell.values(), t.recipe.hyperparameters.peak_lr, t.recipe.seed): [
            (m.step, m.validation_loss) for m in t.measurements
        ]
        for t in records
    }


def summary(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "reports/grown/summary.json").read_text())


def test_a_folder_that_was_moved_goes_on_and_is_reported(small: Path) -> None:
    before, known = summary(small), trials(small)
    reported = run(small, "grown", module="scaling.report")
    assert reported.status == 0, reported.stderr
    assert summary(small) == before
    resumed = run(small, "grown.yaml", "--resume")
    assert resumed.status == 0, resumed.stderr
    assert summary(small) == before
    assert trials(small) == known
    assert not small.with_name("before").exists()


@pytest.fixture(scope="module")
def extended(small: Path, cluster: Cluster) -> tuple[dict[str, TrialRecord], Finished]:
    """The small study's trials, and its run that made it the large one."""
    known = trials(small)
    file = small / "runs/grown/study.json"
    recorded = json.loads(file.read_text())
    del recorded["spec"]["checkpoints"]["keep"]  # a field that there was not yet
    recorded["spec"]["resources"]["num_threads"] = 4  # one that is gone, at its default
    file.write_text(json.dumps(recorded))
    write_study(small, LARGE)
    return known, cluster.run(small, "grown.yaml", "--resume")


@pytest.mark.ci
def test_an_extended_study_keeps_what_ended_and_is_the_larger_study(
    small: Path, extended: tuple[dict[str, TrialRecord], Finished], tmp_path: Path, cluster: Cluster
) -> None:
    known, done = extended
    assert done.status == 0, done.stderr
    now = trials(small)
    assert {trial_id: now[trial_id] for trial_id in known} == known
    # New cells take the places behind the old ones, so a fresh study names them last.
    write_study(tmp_path, LARGE | {"scientific": {"global_batch_size": [4, 16, 8]}})
    fresh = cluster.run(tmp_path, "grown.yaml")
    assert fresh.status == 0, fresh.stderr
    whole = losses(trials(tmp_path).values())
    assert {key: curve for key, curve in losses(now.values()).items() if key in whole} == whole
    assert losses(load_study("grown", f"sqlite:///{small}/mlflow.db").trials) == whole


def test_replicates_of_a_beaten_recipe_are_said_and_left_out(
    small: Path, extended: tuple[dict[str, TrialRecord], Finished]
) -> None:
    known, _ = extended
    beaten = [name for name in known if f"{name}-of-006" in trials(small)]
    assert beaten  # else this study shows nothing
    page = (small / "reports/grown/report.md").read_text()
    assert f"Left out: {len(beaten)} trials of recipes that later search trials have beaten" in page
    assert {cell["num_seeds"] for cell in summary(small)["cells"]} == {3}
