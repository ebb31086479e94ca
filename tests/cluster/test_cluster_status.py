"""`scaling status --address`: the studies submitted to a cluster, and what is said without any."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from scaling.runner import submitted_studies
from scaling.runner.preflight import ClusterError
from scaling.runner.submitted_studies import last_line, study_of
from tests.commands import environment
from tests.end_to_end.studies import QUADRATIC, write_study

RAY = str(Path(sys.executable).with_name("ray"))


@pytest.mark.parametrize(("entrypoint", "study"), [
    ("python -m scaling.study lr_vs_batch.yaml --resume --set seed=1", "lr_vs_batch"),
    ("/home/ubuntu/venv/bin/scaling run gallery/ladder", "ladder"),
    ("scaling resume 'my studies/one.yaml'", "one"),
    ("python -m scaling.study --set seed=1 two.yaml", "two"),
    ("scaling plan one.yaml", None),
    ("python train.py scaling", None),
    ("scaling run 'one", None),
])  # fmt: skip
def test_a_job_is_a_study_s_by_its_command(entrypoint: str, study: str | None) -> None:
    assert study_of(entrypoint) == study


def test_the_last_line_says_something_and_has_no_colors() -> None:
    assert last_line("one\n\x1b[32m[3/9] done\x1b[0m\n \n") == "[3/9] done"
    assert last_line("") == ""


def test_a_port_that_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setattr(submitted_studies, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (silent.getsockname()[1], free_port):
            with pytest.raises(ClusterError, match=f"127.0.0.1:{port}: nobody answers"):
                submitted_studies.submitted_studies(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConnectionError("Failed to connect to Ray at address: http://h:8403."), "nobody answers"),
        (RuntimeError("Request failed with status code 403: no."), "the cluster asks for a token"),
        (RuntimeError("401 Client Error for url: http://h:8403"), "the cluster asks for a token"),
        (RuntimeError("Version check returned 404."), "Version check returned 404."),
    ],
)
def test_a_port_is_no_status(error: Exception, reason: str) -> None:
    assert submitted_studies._reason(error, "http://h:8403").startswith(reason)


@dataclass(frozen=True)
class Head:
    """A machine to which jobs may be submitted."""

    dashboard: str
    variables: Mapping[str, str]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    ports = [str(_free_port()) for _ in range(3)]
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 2}
    dashboard = f"http://127.0.0.1:{ports[1]}"
    with tempfile.TemporaryDirectory() as folder:  # a socket's path may not be long
        command = [
            RAY, "start", "--head", "--block", "--num-cpus", "1",
            "--port", ports[0], "--dashboard-port", ports[1],
            "--dashboard-agent-listen-port", ports[2], "--temp-dir", folder,
            "--disable-usage-stats",
        ]  # fmt: skip
        started = subprocess.Popen(
            command, env=environment() | variables, stdout=subprocess.DEVNULL
        )
        try:
            while status(dashboard, variables)[1].endswith("forwards the port\n"):
                assert started.poll() is None
            yield Head(dashboard, variables)
        finally:
            started.terminate()
            started.wait(60)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def status(address: str, variables: Mapping[str, str]) -> tuple[int, str]:
    """The exit status and what is said."""
    command = [sys.executable, "-c", "from scaling.cli.app import main; main()"]
    ended = subprocess.run(
        [*command, "status", "--address", address], env=environment() | dict(variables),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended.returncode, ended.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_what_was_submitted_is_listed_with_its_last_line(head: Head, tmp_path: Path) -> None:
    code, said = status(head.dashboard, head.variables)
    assert code == 2
    assert "no study was submitted to this cluster" in said

    study = write_study(tmp_path, QUADRATIC | {"resources": {"num_workers": 1}})
    submit = [
        RAY, "job", "submit", "--address", head.dashboard,
        "--", sys.executable, "-m", "scaling.study", str(study), "--plan",
    ]  # fmt: skip
    here = environment() | dict(head.variables) | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(30):  # the machine's agent, which takes jobs, comes up after its dashboard
        submitted = subprocess.run(
            submit, env=here, check=False, capture_output=True, text=True, timeout=300
        )
        if "No available agent" not in submitted.stdout + submitted.stderr:
            break
        time.sleep(2)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr

    code, said = status(head.dashboard, head.variables)
    assert code == 0
    assert "quadratic" in said
    assert "succeeded" in said
    assert "1 trial per cell" in " ".join(said.split())


@pytest.mark.ray
@pytest.mark.slow
def test_another_token_and_nobody_are_one_line_each(head: Head, free_port: int) -> None:
    code, said = status(head.dashboard, dict(head.variables) | {"RAY_AUTH_TOKEN": "f" * 32})
    assert code == 2
    assert "the cluster asks for a token" in said
    code, said = status(f"http://127.0.0.1:{free_port}", head.variables)
    assert code == 2
    assert "nobody answers" in said
    assert len(said.splitlines()) == 1
