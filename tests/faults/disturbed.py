"""A study as a process that is watched, disturbed and compared with an undisturbed one."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from scaling.files.names import file_name
from scaling.records.ledger import read_records
from scaling.records.trial import TrialRecord
from scaling.sinks.mlflow.load import load_study
from tests.commands import environment
from tests.end_to_end.studies import write_study
from tests.recipes import TINY_BERT

INJECTION = Path(__file__).parent / "injection"

STUDY: dict[str, Any] = {
    "name": "faulty",
    "question": "Does what happens around training change what is measured?",
    "workload": {
        "task": "text_classification",
        # With dropout, so that the state of the random numbers counts, too.
        "model": TINY_BERT | {"config": {"hidden_dropout_prob": 0.1}, "hidden_size": 32},
        "data": {
            "source": "builtin:part_of_speech", "num_train": 400, "num_validation": 60,
            "num_test": 60,
        },
    },
    "scientific": {"global_batch_size": [8, 32]},
    "nuisance": {"peak_lr": {"log_uniform": [1.0e-3, 3.0e-2]}},
    "fixed": {"weight_average_half_life_examples": 400},
    "budget": {"steps": 300},
    "evaluation": {"every_steps": 50, "num_examples": 50},
    "search": {"sampler": "qmc", "trials_per_cell": 3},
    "confirm": {"num_seeds": 1},
    "checkpoints": {"every_seconds": 0.3},
    "resources": {"num_workers": 2, "max_slots": 1},  # on a machine of many CPUs too
}  # fmt: skip
NUM_TRIALS = 8

Losses = dict[str, tuple[str, tuple[float | None, ...]]]


class Running:
    """`python -m scaling.study` in a folder, its output in `output.txt`."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self.folder = folder
        self._output = (folder / "output.txt").open("ab")
        self._offset = self._output.tell()
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "scaling.study", "faulty.yaml", *arguments],
            cwd=folder, env=environment() | variables,
            stdout=self._output, stderr=self._output, start_new_session=True,
        )  # fmt: skip

    @property
    def output(self) -> str:
        """What it has printed."""
        return (self.folder / "output.txt").read_bytes()[self._offset :].decode()

    def wait_for(self, text: str, seconds: float = 300) -> None:
        """Wait until it has printed a text."""
        self.wait_until(lambda: text in self.output, seconds)

    def wait_until(self, is_true: Callable[[], bool], seconds: float = 300) -> None:
        """Wait for something while it runs."""
        deadline = time.monotonic() + seconds
        while not is_true():
            assert self._process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def interrupt(self) -> None:
        """Ctrl-C as a terminal sends it: to all processes of the group."""
        os.killpg(self._process.pid, signal.SIGINT)

    def send(self, number: int) -> None:
        """A signal to the driver alone, as `kill` sends it."""
        self._process.send_signal(number)

    def end(self, seconds: float = 600) -> int:
        """Wait for its end, and for that of all it started; returns the status."""
        status = self._process.wait(seconds)
        self._output.close()
        # Helpers of Ray's that outlive a killed driver notice within a minute.
        deadline = time.monotonic() + 120
        while left := working_in(self.folder):
            assert time.monotonic() < deadline, f"processes left: {left}"
            time.sleep(0.2)
        return status

    def kill(self) -> None:
        """SIGKILL to the driver."""
        self._process.kill()
        assert self._process.wait(60) == -signal.SIGKILL, "it had ended before"
        self._output.close()

    def kill_and_wait(self, seconds: float = 120) -> None:
        """SIGKILL to the driver, and wait until what it has started has noticed."""
        self.kill()
        deadline = time.monotonic() + seconds
        while left := working_in(self.folder):
            assert time.monotonic() < deadline, f"processes left: {left}"
            time.sleep(0.2)

    def processes(self, title: str) -> list[psutil.Process]:
        """Itself and its descendants, those whose command line begins so."""
        driver = psutil.Process(self._process.pid)
        found = [driver, *driver.children(recursive=True)]
        return [process for process in found if _title(process).startswith(title)]


def in_the_middle_of_a_trial(study: Running) -> None:
    """Wait until two trials have ended, and then for half of what the second one took."""
    study.wait_for("[1/6]", 400)
    began = time.monotonic()
    study.wait_for("[2/6]", 400)
    time.sleep((time.monotonic() - began) / 2)


def wait_for_checkpoints(study: Running, at_least: int = 1) -> Path:
    """Wait until a trial that has not ended has so many checkpoints; returns their folder.

    One that has ended keeps its own for a moment after its end is on record and printed.
    """
    found: list[Path] = []

    def are_there() -> bool:
        known = read_records(study.folder / "runs/faulty/trials.jsonl")
        ended = {file_name(name) for name, trial in known.items() if trial.status != "failed"}
        found[:] = [
            trial
            for trial in (study.folder / "runs/faulty/checkpoints").glob("*")
            if trial.name not in ended and len(list(trial.glob("step-*.pt"))) >= at_least
        ]
        return bool(found)

    study.wait_until(are_there)
    return found[0]


def working_in(folder: Path) -> list[str]:
    """Processes whose working directory is in a folder, which all of a study's inherit."""
    found: list[str] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if Path(process.cwd()).is_relative_to(folder):
                found.append(f"{process.pid} {_title(process).strip()}")
    return found


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def started(
    folder: Path, *arguments: str, changes: Mapping[str, Any] | None = None, **variables: str
) -> Running:
    """Write the study file where there is none, and start the study."""
    if not (folder / "faulty.yaml").exists():
        write_study(folder, STUDY | dict(changes or {}))
    return Running(folder, *arguments, **variables)


def with_fault(folder: Path, **fault: Any) -> dict[str, str]:
    """Environment variables that let a fault happen in the workers."""
    described = json.dumps(fault | {"folder": str(folder)})
    path = os.pathsep.join(filter(None, (str(INJECTION), os.environ.get("PYTHONPATH"))))
    return {"FAULT": described, "PYTHONPATH": path}


def records(folder: Path) -> list[TrialRecord]:
    """The trials as the study's own journal has them; each has ended once, failures aside."""
    lines = (folder / "runs/faulty/trials.jsonl").read_text().splitlines()
    trials = [TrialRecord.from_json(line) for line in lines]
    ends = Counter(trial.trial_id for trial in trials if trial.status != "failed")
    assert set(ends.values()) <= {1}, ends
    return [trial for trial in trials if trial.status != "failed"]


def losses(folder: Path) -> Losses:
    """Status and every validation loss of every trial."""
    return {
        trial.trial_id: (trial.status, tuple(m.validation_loss for m in trial.measurements))
        for trial in records(folder)
    }


def losses_alone(folder: Path, study: Mapping[str, Any]) -> Losses:
    """The losses of a study that nothing disturbs, on this machine alone."""
    write_study(folder, dict(study))
    running = Running(folder)
    assert running.end() == 0, running.output
    return losses(folder)


def incidents(folder: Path) -> Counter[str]:
    """How often each kind of incident is on record."""
    return Counter(i["kind"] for trial in records(folder) for i in trial.incidents)


def assert_recorded_once(folder: Path, uri: str | None = None) -> None:
    """MLflow has one run for each trial and one for the study, all ended, with their losses."""
    from mlflow import MlflowClient

    uri = uri or f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    [experiment] = [e for e in client.search_experiments() if e.name == "faulty"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    known = Counter(run.data.tags.get("trial_id", "study") for run in runs)
    assert set(known.values()) == {1}, known
    assert len(runs) == NUM_TRIALS + 1
    assert {run.info.status for run in runs} <= {"FINISHED", "FAILED", "KILLED"}
    recorded = {
        trial.trial_id: tuple(m.validation_loss for m in trial.measurements)
        for trial in load_study("faulty", uri).trials
    }
    assert recorded == {name: values for name, (_, values) in losses(folder).items()}


@dataclass(frozen=True)
class Moment:
    """So many seconds after the start, or after the workers are ready."""

    when_ready: bool
    seconds: float


def random_moments(seed: int, number: int) -> list[Moment]:
    """When to disturb; about a third of them while the study starts."""
    chance = random.Random(seed)
    is_late = [chance.random() < 0.7 for _ in range(number)]
    return [Moment(late, chance.uniform(0, 5.0 if late else 15.0)) for late in is_late]
