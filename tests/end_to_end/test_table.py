"""A study whose trials are rows of a table, from its file to its report."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run
from tests.end_to_end.studies import write_study

pytestmark = [pytest.mark.ray, pytest.mark.slow]
RUNS = Path(__file__).parents[1] / "data" / "runs.csv"
STUDY: dict[str, Any] = {
    "name": "looked_up",
    "question": "Where is the best rate of a table that is known?",
    "workload": {
        "task": "table", "file": "runs.csv", "where": {"model": "small"}, "noise_ratio": 1.0e-4,
        "columns": {"global_batch_size": "bs", "peak_lr": "lr"},
        "validation_loss_column": "loss", "train_loss_column": "train", "test_loss_column": "test",
    },
    "scientific": {"global_batch_size": [32, 64, 128]},
    "nuisance": {"peak_lr": {"choice": [0.001, 0.002, 0.004, 0.008, 0.016, 0.032]}},
    "budget": {"steps": 100},
    "evaluation": {"every_steps": 100},
    "search": {"sampler": "grid", "trials_per_cell": 6},
    "confirm": {"num_seeds": 3},
    "resources": {"num_workers": 1},
}  # fmt: skip


def test_a_table_is_searched_and_reported(tmp_path: Path) -> None:
    shutil.copy(RUNS, tmp_path)
    write_study(tmp_path, STUDY)
    ended = run(tmp_path, "looked_up.yaml")
    assert ended.status == 0, ended.stderr
    summary = json.loads((tmp_path / "reports/looked_up/summary.json").read_text())
    cells = {cell["global_batch_size"]: cell for cell in summary["cells"]}
    assert summary["num_trials"] == 18 + 9
    assert summary["num_diverged"] == 1
    assert 0.002 <= cells[32]["best_peak_lr"] <= 0.004
    assert 0.004 <= cells[128]["best_peak_lr"] <= 0.008
    for cell in cells.values():
        assert cell["generalization_gap"] == pytest.approx(0.12, rel=1e-3)  # of test, in confirm
    trials = (tmp_path / "runs/looked_up/trials.jsonl").read_text().splitlines()
    for trial in map(json.loads, trials):
        assert [measured["step"] for measured in trial["measurements"]] == [100]

    other = (tmp_path / "runs.csv").read_text().replace("2.545000", "2.546000")
    (tmp_path / "runs.csv").write_text(other)
    again = run(tmp_path, "looked_up.yaml", "--resume", "--set", "confirm.num_seeds=4")
    assert again.status == 2
    assert "the data of the study in runs/looked_up have changed" in again.stderr
