"""Branched training and a range that is extended, for real, cut off and resumed."""

import json
from pathlib import Path
from typing import Any

import pytest

from scaling.sinks import load_study
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.studies import write_study

pytestmark = pytest.mark.ray

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
}  # fmt: skip


def test_a_short_range_is_extended_and_branches_end_and_resume(
    tmp_path: Path, cluster: Cluster
) -> None:
    write_study(tmp_path, STUDY)
    first = cluster.run(tmp_path, "branches.yaml")
    assert first.status == 0, first.stderr
    assert "its best rate is the highest tried; 2 more trials beyond it" in first.stdout
    lines = (tmp_path / "runs/branches/trials.jsonl").read_text().splitlines()
    records = {r["trial_id"]: r for r in map(json.loads, lines)}
    beyond = [r for r in records.values() if r["search_round"] > 0]
    assert beyond
    assert all(r["recipe"]["hyperparameters"]["peak_lr"] >= 0.04 for r in beyond)
    branches = [r for r in records.values() if r["phase"] == "branch"]
    assert len(branches) == 2 * 3 * 2
    for record in branches:
        recipe, measured = record["recipe"]["hyperparameters"], record["measurements"]
        assert measured[-1]["examples"] == recipe["branch_from_examples"] + 256
        same = next(
            r for r in branches
            if r["recipe"]["seed"] == record["recipe"]["seed"]
            and r["recipe"]["hyperparameters"]["branch_from_examples"] == 256
            and r["recipe"]["hyperparameters"]["branch_multiple"] == 1
        )  # fmt: skip
        if recipe["branch_from_examples"] == 256:  # up to there it is the run that it leaves
            at_200 = [
                next(m["validation_loss"] for m in r["measurements"] if m["examples"] == 200)
                for r in (record, same)
            ]
            assert at_200[0] == at_200[1]
    summary = json.loads((tmp_path / "reports/branches/summary.json").read_text())
    assert [p["examples"] for p in summary["critical_batch_size"]["branched"]["at"]] == [64, 256]
    assert sum(entry["num_trials_beyond"] for entry in summary["extended_cells"]) == len(beyond)

    # As if it had been stopped after the search's first extension and three branches.
    kept = [line for line in lines if json.loads(line)["phase"] == "search"]
    kept += [line for line in lines if json.loads(line)["phase"] == "branch"][:3]
    (tmp_path / "runs/branches/trials.jsonl").write_text("\n".join(kept) + "\n")
    again = cluster.run(tmp_path, "branches.yaml", "--resume")
    assert again.status == 0, again.stderr
    resumed = (tmp_path / "runs/branches/trials.jsonl").read_text().splitlines()
    ids = [json.loads(line)["trial_id"] for line in resumed]
    assert sorted(ids) == sorted(records)
    assert resumed[: len(kept)] == kept
    for line in resumed:
        record = json.loads(line)
        assert record["recipe"] == records[record["trial_id"]]["recipe"]
        losses = [m["validation_loss"] for m in record["measurements"]]
        assert losses == [m["validation_loss"] for m in records[record["trial_id"]]["measurements"]]
    study = load_study("branches", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert {t.trial_id for t in study.trials} == set(records)
    assert sum(t.phase == "branch" for t in study.trials) == 12
