"""Ctrl-C in a study of a user's own files with two scientific axes, and what resuming it gives."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scaling.records.ledger import read_records
from scaling.records.trial import TrialRecord
from scaling.sinks.mlflow.load import load_study
from tests.commands import Finished, environment
from tests.end_to_end.cluster import Cluster
from tests.end_to_end.studies import QUADRATIC, summary, write_study
from tests.recipes import TINY_BERT

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STUDY: dict[str, Any] = QUADRATIC | {
    "name": "own_files",
    "workload": {
        "task": "text_classification",
        "model": TINY_BERT,
        "data": {
            "files": {"train": "rows.jsonl"}, "text_column": "word", "label_column": "kind",
        },
    },
    "fixed": {"peak_lr": 0.01},
    "scientific": {"global_batch_size": [4], "clip_norm": [None, 1.0]},
    "budget": {"epochs": 4.5},
    "confirm": {"num_seeds": 2},
}  # fmt: skip
NUM_TRIALS = 6
TRIALS = "runs/own_files/trials.jsonl"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The study on a Ray of its own, which Ctrl-C ends after its first trial."""
    folder = tmp_path_factory.mktemp("own_files")
    lines = [f'{{"word": "text number {n}", "kind": "{"ab"[n % 2]}"}}' for n in range(80)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    write_study(folder, STUDY)
    command = [sys.executable, "-u", "-m", "scaling.study", "own_files.yaml"]
    started = subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert started.stdout is not None
    for line in started.stdout:
        if line.startswith("[1/2]"):
            break
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does, to the whole group
    output, _ = started.communicate(timeout=120)
    return Finished(folder, started.returncode, output, "")


@pytest.fixture(scope="module")
def kept(interrupted: Finished) -> list[str]:
    """Lines of the ledger that Ctrl-C left."""
    return (interrupted.folder / TRIALS).read_text().splitlines()


@pytest.fixture(scope="module")
def resumed(interrupted: Finished, kept: list[str], cluster: Cluster) -> Finished:
    """The same study, gone on with on another cluster."""
    assert kept
    return cluster.run(interrupted.folder, "own_files.yaml", "--resume")


def trials(folder: Path) -> list[TrialRecord]:
    return list(load_study("own_files", f"sqlite:///{folder / 'mlflow.db'}").trials)


def test_ctrl_c_keeps_what_ended(interrupted: Finished, kept: list[str]) -> None:
    assert interrupted.status == 130
    assert "--resume" in interrupted.stdout
    assert 1 <= len(kept) < NUM_TRIALS


def test_resume_goes_on(resumed: Finished, kept: list[str]) -> None:
    assert resumed.status == 0, resumed.stderr
    assert (resumed.folder / TRIALS).read_text().splitlines()[: len(kept)] == kept
    assert len(read_records(resumed.folder / TRIALS)) == NUM_TRIALS
    assert len(trials(resumed.folder)) == NUM_TRIALS
    assert {trial.status for trial in trials(resumed.folder)} == {"done"}


def test_relative_files_and_two_scientific_axes(resumed: Finished) -> None:
    assert [cell["cell"] for cell in summary(resumed, "own_files")["cells"]] == [
        {"global_batch_size": 4, "clip_norm": None}, {"global_batch_size": 4, "clip_norm": 1.0},
    ]  # fmt: skip
    steps = {t.recipe.hyperparameters.num_steps for t in trials(resumed.folder)}
    assert steps == {72}  # 4.5 times through 64 rows, 4 at a time
