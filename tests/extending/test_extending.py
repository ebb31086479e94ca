"""What docs/how-to/extend.md says is done to a copy of the package, which then runs a study."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import scaling

EXAMPLES = sorted(Path(__file__).parent.glob("*.patch"))
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "extend.md"
STUDY = {
    "name": "extended",
    "question": "Does a study run with what was added?",
    "workload": {"task": "linear_regression", "num_train": 400},
    "scientific": {"global_batch_size": [8, 32]},
    "nuisance": {"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
    "fixed": {"optimizer": "signum"},
    "budget": {"examples": 1600},
    "evaluation": {"every_examples": 400, "num_examples": 200},
    "search": {"sampler": "halton", "trials_per_cell": 3},
    "confirm": {"num_seeds": 2},
    "resources": {"max_slots": 1},
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_extension_is_two_source_files_at_most(example: Path) -> None:
    changed = re.findall(r"^\+\+\+ b/(scaling/\S+\.py)$", example.read_text(), re.MULTILINE)
    assert 1 <= len(changed) <= 2


def test_the_page_shows_what_the_examples_do() -> None:
    added = {
        line[1:].strip()
        for example in EXAMPLES
        for line in example.read_text().splitlines()
        if line.startswith("+")
    }
    page = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    shown = [line.strip() for block in blocks for line in block.splitlines() if line.strip()]
    assert len(shown) > 20
    assert [line for line in shown if line not in added and line != "..."] == []
    assert all(f"tests/extending/{example.name}" in page for example in EXAMPLES)


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.ray
def test_a_study_runs_with_all_that_was_added(tmp_path: Path) -> None:
    package = tmp_path / "scaling"
    shutil.copytree(
        Path(scaling.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__")
    )
    for example in EXAMPLES:
        subprocess.run(
            ["git", "apply", "-p1", example], cwd=tmp_path, check=True,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path.parent)},
        )  # fmt: skip
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-m", "scaling.study", "study.yaml"], cwd=folder, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    summary = json.loads((folder / "reports/extended/summary.json").read_text())
    page = (folder / "reports/extended/report.md").read_text()
    trials = (folder / "runs/extended/trials.jsonl").read_text().splitlines()

    # the sampler: Halton's points for this cell
    from scipy.stats import qmc

    records = [json.loads(line) for line in trials]
    rates = [
        record["choices"]["peak_lr"]
        for record in sorted(records, key=lambda record: record["trial_id"])
        if record["phase"] == "search" and record["cell"] == {"global_batch_size": 8}
    ]
    points = qmc.Halton(1, scramble=True, rng=0).random(3)[:, 0]
    assert rates == pytest.approx([1e-3 * 100**share for share in points])
    # the task: a known answer, ½ nat of noise and a little more
    losses = [cell["test_loss"] for cell in summary["cells"]]
    assert all(0.4 < loss < 0.8 for loss in losses)
    assert summary["metrics"]["absolute_error"]["direction"] == "minimize"
    assert "mean absolute error" in page
    # the optimizer
    assert all(r["recipe"]["hyperparameters"]["optimizer"] == "signum" for r in records)
    # the measurement: recorded and shown
    norms = [r["measurements"][-1]["weight_norm"] for r in records]
    assert all(norm > 0 for norm in norms)
    assert "weight norm" in page
    # the place that is told: every trial once
    with (folder / "runs/extended/trials.csv").open(encoding="utf-8", newline="") as lines:
        told = list(csv.DictReader(lines))
    assert sorted(line["trial_id"] for line in told) == sorted(r["trial_id"] for r in records)
    assert {line["status"] for line in told} == {"done"}
