"""A study with a secret wherever one can stand: none is in what it writes or prints."""

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tests.commands import environment
from tests.end_to_end.studies import QUADRATIC, write_study
from tests.sinks.servers import MlflowServer

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PASSWORD = "planted-tracking-password"
IN_ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": "planted-aws-secret",
    "AWS_SESSION_TOKEN": "planted-aws-session",
    "HF_TOKEN": "planted-hub-token",
    "MLFLOW_TRACKING_TOKEN": "planted-tracking-token",
    "WANDB_API_KEY": "planted-wandb-key",
}
SECRETS = (PASSWORD, *IN_ENVIRONMENT.values())


def holding(folder: Path) -> list[str]:
    """Files with a secret in them."""
    found: list[str] = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found += [f"{path}: {secret}" for secret in SECRETS if secret.encode() in content]
    return found


class RaysFolder(threading.Thread):
    """Looks into the folder of a study's Ray while there is one."""

    def __init__(self, study: "subprocess.Popen[str]") -> None:
        super().__init__()
        self._study = study
        self.folder: Path | None = None
        self.found: set[str] = set()

    def run(self) -> None:
        while self._study.poll() is None:
            with contextlib.suppress(psutil.Error):
                for process in psutil.Process(self._study.pid).children(recursive=True):
                    token = process.environ().get("RAY_AUTH_TOKEN_PATH", "")
                    if process.name() == "raylet" and token:
                        self.folder = Path(token).parent
            if self.folder is not None:
                with contextlib.suppress(FileNotFoundError):  # what Ray takes away as it ends
                    self.found.update(holding(self.folder))


def test_no_secret_is_written_or_printed(tmp_path: Path, free_port: int) -> None:
    study, server = tmp_path / "study", tmp_path / "server"
    study.mkdir()
    server.mkdir()
    write_study(study, QUADRATIC)
    address = f"http://someone:{PASSWORD}@127.0.0.1:{free_port}"
    with MlflowServer(server, f"sqlite:///{server}/mlflow.db", free_port):
        running = subprocess.Popen(
            [sys.executable, "-m", "scaling.study", "quadratic.yaml"], cwd=study, text=True,
            env=environment() | IN_ENVIRONMENT | {"MLFLOW_TRACKING_URI": address},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        rays = RaysFolder(running)
        rays.start()
        output, _ = running.communicate(timeout=400)
        rays.join()
        assert running.returncode == 0, output
        again = subprocess.run(
            [sys.executable, "-m", "scaling.report", "quadratic", "--output", "again"], cwd=study,
            env=environment() | {"MLFLOW_TRACKING_URI": address},
            capture_output=True, text=True, timeout=400, check=True,
        )  # fmt: skip
    printed = output + again.stdout + again.stderr
    assert not [secret for secret in SECRETS if secret in printed]
    assert rays.folder is not None
    assert not rays.found
    assert (study / "again/report.html").exists()
    assert not holding(study)
    assert not holding(server)
