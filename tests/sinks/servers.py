"""Starts and ends what a study's runs are written to: `mlflow server` and PostgreSQL."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_START_SECONDS = 240


class MlflowServer:
    """An `mlflow server` that can be killed and started again on the same port."""

    def __init__(self, folder: Path, store: str, port: int) -> None:
        folder.mkdir(exist_ok=True)
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._command = [sys.executable, "-m", "mlflow", "server", "--port", str(port)]
        self._command += ["--workers", "1", "--backend-store-uri", store]
        self._command += ["--artifacts-destination", str(folder / "artifacts")]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "MlflowServer":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._end(signal.SIGTERM)

    def start(self) -> None:
        """Start it and wait until it answers."""
        quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env=os.environ | quiet,
                start_new_session=True,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self._end(signal.SIGKILL)
            raise

    def kill(self) -> None:
        """SIGKILL, to its workers too."""
        self._end(signal.SIGKILL)

    def hang(self) -> None:
        """Stop answering, with the port open."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self._process.pid, number)

    def _end(self, number: int) -> None:
        assert self._process is not None
        self._signal(number)
        self._process.wait(60)
        self._process = None

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            assert process.poll() is None, (self._folder / "server.log").read_text()
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.3)
        raise TimeoutError(self.url)


@contextmanager
def running_postgres() -> Iterator[tuple[Path, str]]:
    """A PostgreSQL of its own; gives a folder and the address of its database.

    It listens on a Unix socket only, so no port is taken. The test is skipped where PostgreSQL
    is not installed.
    """
    # Not pytest's tmp_path: only its owner may enter that, and root may not run PostgreSQL.
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as name:
        folder = Path(name)
        data = folder / "data"
        data.mkdir()
        as_owner: list[str] = []
        if os.geteuid() == 0:
            folder.chmod(0o755)
            shutil.chown(data, "postgres", "postgres")
            as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        initdb = [*as_owner, _binary("initdb"), "-D", str(data), "-U", "mlflow", "-A", "trust"]
        subprocess.run([*initdb, "--no-sync"], check=True, capture_output=True, cwd="/")
        serve = [*as_owner, _binary("postgres"), "-D", str(data), "-c", "listen_addresses="]
        serve += ["-c", f"unix_socket_directories={data}", "-c", "fsync=off"]
        process = subprocess.Popen(
            serve, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait_until_ready(data, process)
            # SQLAlchemy 2.1 takes psycopg 3 where no driver is named.
            yield folder, f"postgresql+psycopg2://mlflow@/postgres?host={data}"
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown: open sessions are ended
            process.wait(60)


def _wait_until_ready(socket_folder: Path, process: subprocess.Popen[bytes]) -> None:
    is_ready = [_binary("pg_isready"), "--host", str(socket_folder), "--quiet"]
    for _ in range(200):
        assert process.poll() is None, "postgres ended while it started"
        if subprocess.run(is_ready, check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise TimeoutError("postgres did not start in 20 s")


def _binary(name: str) -> str:
    """Debian keeps PostgreSQL's programs out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    program = shutil.which(name) or (str(found[-1]) if found else None)
    if program is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    return program
