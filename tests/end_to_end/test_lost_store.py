"""MLflow's store goes while a study runs: the study has everything, and tells a new one."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from scaling.records.ledger import read_records
from scaling.records.trial import TrialRecord
from scaling.sinks import load_study
from tests.commands import run
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.studies import QUADRATIC, write_study

pytestmark = pytest.mark.ray

STUDY: dict[str, Any] = QUADRATIC | {
    "search": {"trials_per_cell": 2},
    "nuisance": {"peak_lr": {"log_uniform": [0.01, 0.3]}},
    "fixed": {"optimizer": "sgd"},
    "confirm": {"num_seeds": 2},
    "resources": {"num_workers": 1},
}


def losses(trials: Iterable[TrialRecord]) -> dict[str, list[float | None]]:
    return {t.trial_id: [m.validation_loss for m in t.measurements] for t in trials}


def test_a_store_deleted_in_the_middle(tmp_path: Path, cluster: Cluster) -> None:
    for name in ("undisturbed", "disturbed"):
        (tmp_path / name).mkdir()
        write_study(tmp_path / name, STUDY)
    folder = tmp_path / "disturbed"
    trials = folder / "runs/quadratic/trials.jsonl"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(cluster.run, folder, "quadratic.yaml")
        while not (trials.exists() and trials.stat().st_size):
            assert not running.done(), running.result()
            time.sleep(0.01)
        (folder / "mlflow.db").unlink()
    ended = running.result()
    assert ended.status == 1, ended
    assert "mlflow.db is gone; the study's folder has everything" in ended.stderr
    assert "To go on: python -m scaling.study quadratic.yaml" in ended.stderr
    assert (folder / "reports/quadratic/report.html").exists()
    assert cluster.run(tmp_path / "undisturbed", "quadratic.yaml").status == 0

    resumed = run(folder, "quadratic.yaml", "--resume")

    assert resumed.status == 0, resumed.stderr
    expected = read_records(tmp_path / "undisturbed/runs/quadratic/trials.jsonl").values()
    recorded = load_study("quadratic", f"sqlite:///{folder}/mlflow.db")
    assert len(recorded.trials) == 8
    assert losses(recorded.trials) == losses(read_records(trials).values()) == losses(expected)
