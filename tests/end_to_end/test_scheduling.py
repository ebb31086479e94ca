"""Early stopping and mixed world sizes through Ray, on real workers."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scaling.sinks.mlflow.load import load_study
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.studies import PRONUNCIATION, QUADRATIC, write_study

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def trials(folder: Path, name: str) -> list[Any]:
    return list(load_study(name, f"sqlite:///{folder / 'mlflow.db'}").trials)


def test_trials_are_stopped_at_the_exact_step_of_a_rung(tmp_path: Path, cluster: Cluster) -> None:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    study = QUADRATIC | {
        "name": "halving",
        "scientific": {"global_batch_size": [4]},
        "nuisance": {"peak_lr": {"log_uniform": [0.001, 0.5]}},
        "fixed": {"optimizer": "sgd"},
        "budget": {"steps": 400},
        # The rungs are where nothing else is evaluated.
        "evaluation": {"every_steps": 130},
        "search": {
            "trials_per_cell": 8,
            "early_stopping": {"rule": "asha", "first_rung_examples": 200, "reduction_factor": 2},
        },
    }  # fmt: skip
    write_study(tmp_path, study)
    done = cluster.run(tmp_path, "halving.yaml")
    assert done.status == 0, done.stderr
    ended = trials(tmp_path, "halving")
    stopped = [trial for trial in ended if trial.status == "stopped"]
    assert len(ended) == 8
    assert 1 <= len(stopped) <= 7
    for trial in stopped:
        assert trial.measurements[-1].examples in (200, 400, 800)
    for trial in ended:
        examples = [m.examples for m in trial.measurements]
        if trial.status == "done":
            assert examples == [0, 200, 400, 520, 800, 1040, 1560, 1600]
    journal = tmp_path / "runs/halving/optuna.journal"
    storage = JournalStorage(JournalFileBackend(str(journal)))
    known = optuna.load_study(study_name="halving/global_batch_size=4", storage=storage)
    states = Counter(trial.state.name for trial in known.trials)
    assert states["PRUNED"] == len(stopped)
    assert states["COMPLETE"] == sum(trial.status == "done" for trial in ended)


@pytest.mark.slow
def test_world_sizes_are_decided_once_and_may_differ(tmp_path: Path, cluster: Cluster) -> None:
    # Not the noisy quadratic, whose draws follow the cut.
    base = QUADRATIC | {"workload": PRONUNCIATION["workload"]}
    study = base | {"name": "open_sizes", "resources": {"num_workers": "auto", "max_slots": 1}}
    alone = base | {"name": "alone", "resources": {"num_workers": 1}}
    for one in (study, alone):
        write_study(tmp_path, one)
    assert cluster.run(tmp_path, "alone.yaml").status == 0
    first = cluster.run(tmp_path, "open_sizes.yaml")
    assert first.status == 0, first.stderr
    state = tmp_path / "runs/open_sizes"
    known = json.loads((state / "study.json").read_text())
    decided = known["decided"]["world_sizes"]
    for trial in trials(tmp_path, "open_sizes"):
        assert trial.recipe.layout.world_size == decided.get(
            str(trial.recipe.hyperparameters.global_batch_size), 1
        )

    # What was decided holds, whatever this machine would decide: here one trial of each size.
    known["decided"]["world_sizes"] = {"16": 2}
    known["study_id"] += "-again"
    (state / "study.json").write_text(json.dumps(known))
    (state / "trials.jsonl").unlink()
    (state / "optuna.journal").unlink()
    again = cluster.run(tmp_path, "open_sizes.yaml", "--resume")
    assert again.status == 0, again.stderr
    assert "1 worker group of 2 workers ready" in again.stdout
    sizes = {
        t.recipe.hyperparameters.global_batch_size: t.recipe.layout.world_size
        for t in trials(tmp_path, "open_sizes")
    }
    assert sizes == {4: 1, 16: 2}
    for other, trial in zip(trials(tmp_path, "alone"), trials(tmp_path, "open_sizes"), strict=True):
        expected = [m.validation_loss for m in other.measurements]
        assert [m.validation_loss for m in trial.measurements] == pytest.approx(expected, rel=1e-5)
