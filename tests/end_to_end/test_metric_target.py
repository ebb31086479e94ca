"""A study of texts that is tuned for its accuracy, and counts the steps to one."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from scaling.records.trial import TrialRecord
from scaling.report.__main__ import main as report
from scaling.sinks.mlflow.load import load_study
from tests.commands import Finished
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.studies import QUADRATIC, summary, write_study
from tests.recipes import TINY_BERT

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TARGET = 0.8
STUDY: dict[str, Any] = QUADRATIC | {
    "name": "accurate",
    "workload": {
        "task": "text_classification",
        "model": TINY_BERT,
        "data": {"files": {"train": "rows.jsonl"}},
    },
    "fixed": {"warmup_steps": 2, "weight_average_half_life_examples": 16},
    "nuisance": {"peak_lr": {"choice": [1.0e-6, 3.0e-3]}},
    "scientific": {"global_batch_size": [8, 32]},
    "budget": {"steps": 40},
    "evaluation": {"every_steps": 5},
    "target": {"metric": "accuracy", "at_least": TARGET},
    "search": {"objective": "accuracy", "sampler": "grid", "trials_per_cell": 2},
    "confirm": {"num_seeds": 2},
    "resources": {"num_workers": 1},
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Finished:
    folder = tmp_path_factory.mktemp("accurate")
    rows = [{"text": f"{'ab'[n % 2] * 4}{n}", "label": "xy"[n % 2]} for n in range(160)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    write_study(folder, STUDY)
    return cluster.run(folder, "accurate.yaml")


def trials(folder: Path) -> list[TrialRecord]:
    return list(load_study("accurate", f"sqlite:///{folder / 'mlflow.db'}").trials)


def test_the_accuracy_decides_and_steps_are_counted_to_it(finished: Finished) -> None:
    assert finished.status == 0, finished.stderr
    assert "done, accuracy " in finished.stdout
    found = summary(finished, "accurate")
    assert found["num_failed"] == 0
    for cell in found["cells"]:
        assert cell["recipe_peak_lr"] == 3e-3
        assert cell["metrics"]["accuracy"]["value"] > TARGET
        assert 0 < cell["steps_to_target"] < 40
        assert 0 < cell["validation_loss"] < 0.69
    assert "an accuracy of 0.8" in found["answer"]
    assert found["recommendation"]["global_batch_size"] in (8, 32)
    assert not any("0.8 nats" in value for value in found.values() if isinstance(value, str))


def test_accuracies_are_recorded_along_the_runs(finished: Finished) -> None:
    for trial in trials(finished.folder):
        curve = [m.metrics["accuracy"] for m in trial.measurements]
        assert [m.step for m in trial.measurements] == list(range(0, 45, 5))
        if trial.phase == "confirm":
            reached = next(n for n, accuracy in enumerate(curve) if accuracy >= TARGET)
            assert any(after > before for before, after in pairwise(curve[: reached + 1]))


def test_the_same_report_from_mlflow_alone_and_from_an_ended_study(
    finished: Finished, cluster: Cluster, tmp_path: Path
) -> None:
    uri = f"sqlite:///{finished.folder / 'mlflow.db'}"
    assert report(["accurate", "--tracking-uri", uri, "--output", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again/summary.json").read_text())
    assert again == summary(finished, "accurate")
    resumed = cluster.run(finished.folder, "accurate.yaml", "--resume")
    assert resumed.status == 0, resumed.stderr
    assert summary(finished, "accurate") == again
