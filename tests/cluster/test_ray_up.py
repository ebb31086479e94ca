"""clusters/local.yaml from `ray up` to `ray down`, over SSH: a worker is lost and comes back."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from tests.cluster.hosts import LAPTOP, ROOT, Hosts, hosts, missing
from tests.end_to_end.studies import QUADRATIC, write_study
from tests.faults.disturbed import Losses, losses, losses_alone

pytestmark = [
    pytest.mark.ray, pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing()),
]  # fmt: skip
HEAD, WORKER = "10.77.0.10", "10.77.0.11"
STUDY: dict[str, Any] = QUADRATIC | {
    "name": "faulty",
    "nuisance": {"peak_lr": {"log_uniform": [0.01, 0.1]}},
    "fixed": {"optimizer": "sgd"},
    "budget": {"steps": 20_000},
    "evaluation": {"every_steps": 2000},
    "search": {"sampler": "qmc", "trials_per_cell": 2},
    "resources": {"num_workers": 1, "max_slots": 1},
    "checkpoints": {"every_seconds": 1},
}

SUBMIT = """
    ray job submit --submission-id one --address http://localhost:8265 --working-dir /root/studies
    -- python -m scaling.study faulty.yaml --resume
    --set storage=/mnt/runs/faulty --output /mnt/reports/faulty
"""

LEFT = """~/venv/bin/ray stop; pkill -f '[v]env/bin/mlflow server' || true"""
"""Ends what `ray down` leaves; in clusters/local.yaml, too."""


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """The losses of the study on a machine of its own."""
    return losses_alone(tmp_path_factory.mktemp("quiet"), STUDY)


def filled_in() -> str:
    """clusters/local.yaml for these hosts, where everything is installed but the package."""
    text = (ROOT / "clusters/local.yaml").read_text(encoding="utf-8")
    made_up = {
        "192.0.2.10": HEAD, "192.0.2.11, 192.0.2.12": WORKER, "/shared": "/mnt",
        "ssh_user: ubuntu": "ssh_user: root",
    }  # fmt: skip
    for shown, ours in made_up.items():
        assert shown in text
        text = text.replace(shown, ours)
    config = yaml.safe_load(text)
    installed = [line for line in config["setup_commands"] if 'pip" install' not in line]
    config["setup_commands"] = [
        f'ln -sfn {sys.prefix} "$HOME/venv"', *installed,
        "grep -qs PYTHONPATH ~/.bashrc || echo 'export PYTHONPATH=$HOME/scaling' >> ~/.bashrc",
    ]  # fmt: skip
    return yaml.safe_dump(config, sort_keys=False)


def test_the_file_says_how_to_end_what_is_left() -> None:
    assert LEFT in (ROOT / "clusters/local.yaml").read_text(encoding="utf-8")


def wait_for(is_true: Callable[[], bool], seconds: float, said: Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, said()
        time.sleep(0.5)


def log(there: Hosts) -> str:
    """What the submitted study has printed."""
    session = there.files(HEAD) / "tmp/ray"
    found = list(session.glob("session_2*/logs/job-driver-one.log"))
    return found[0].read_text(encoding="utf-8") if found else ""


def running(there: Hosts, host: str) -> list[str]:
    """What runs on a host, other than what answers to SSH and the question itself."""
    lines = there.run("ps", "axo", "args=", on=host).splitlines()
    ours = ("bash -euc", "sshd", "ps axo", "bash -c while true", "sleep")
    return [line for line in lines if not line.startswith(ours)]


def test_a_study_outlives_its_only_worker(tmp_path: Path, quiet: Losses) -> None:
    with hosts() as there:
        there.add(HEAD)
        there.add(WORKER)
        there.run("ray", "get-auth-token", "--generate")
        home = there.files(LAPTOP) / "root"
        (home / ".ray/auth_token").chmod(0o600)
        (home / "mine.yaml").write_text(filled_in(), encoding="utf-8")
        (home / "studies").mkdir()
        write_study(home / "studies", STUDY)

        there.run("ray", "up", "-y", "/root/mine.yaml")
        there.start("ray", "dashboard", "/root/mine.yaml")
        there.run("bash", "-c", "until (exec 3</dev/tcp/localhost/8265); do sleep 1; done")
        submitted = there.start(*SUBMIT.split())
        wait_for(lambda: "[1/" in log(there), 300, lambda: log(there))
        there.kill(WORKER)
        wait_for(lambda: "0 of 1 worker groups ready" in log(there), 180, lambda: log(there))
        there.add(WORKER)
        output, _ = submitted.communicate(timeout=600)
        assert submitted.returncode == 0, output
        assert losses(there.shared) == quiet
        assert (there.shared / "reports/faulty/summary.json").exists()
        assert "its machine was lost" in (there.shared / "runs/faulty/trials.jsonl").read_text()

        there.run("ray", "down", "-y", "/root/mine.yaml")
        for host in (HEAD, WORKER):
            there.run("ssh", "-oStrictHostKeyChecking=no", f"root@{host}", LEFT)
            wait_for(
                lambda host=host: running(there, host) == [],
                180,
                lambda host=host: "\n".join(running(there, host)),
            )
            assert there.run("ls", "/dev/shm", on=host) == ""
        client = MlflowClient(f"sqlite:///{there.files(HEAD)}/root/mlflow.db")
        [experiment] = [e for e in client.search_experiments() if e.name == "faulty"]
        runs = client.search_runs([experiment.experiment_id])
        recorded = [run.data.tags.get("trial_id", "study") for run in runs]
        assert sorted(recorded) == sorted([*quiet, "study"])
