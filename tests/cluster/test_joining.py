"""What is said of a cluster that cannot be joined: one line, and nothing is left behind."""

import platform
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from tests.cluster.machines import Machines, machines
from tests.end_to_end.studies import write_study
from tests.faults.disturbed import STUDY as FAULTY
from tests.faults.disturbed import Running

pytestmark = [pytest.mark.ray, pytest.mark.slow]
STUDY = FAULTY | {"resources": {"num_workers": 1}}


@pytest.fixture(scope="module")
def head() -> Iterator[Machines]:
    with machines(1) as cluster:
        yield cluster


def assert_refused(folder: Path, address: str, *said: str, **variables: str) -> None:
    """The study does not start, says so in its last line, and leaves nothing."""
    write_study(folder, STUDY)
    study = Running(folder, "--address", address, **variables)
    status = study.end()
    assert status == 2, study.output
    last = study.output.splitlines()[-1]
    for words in said:
        assert words in last, study.output
    for words in ("rpc_client", "gcs_client", "Traceback"):
        assert words not in study.output
    assert not (folder / "runs/faulty").exists()


def test_another_token(head: Machines, tmp_path: Path) -> None:
    said = ("has another token than this machine", "~/.ray/auth_token")
    assert_refused(tmp_path, head.address, *said, **head.variables | {"RAY_AUTH_TOKEN": "f" * 32})


def test_no_token(head: Machines, tmp_path: Path) -> None:
    said = ("is joined with a token, and there is none here", "RAY_AUTH_TOKEN")
    given = {n: v for n, v in head.variables.items() if n != "RAY_AUTH_TOKEN"}
    assert_refused(tmp_path, head.address, *said, **given | {"HOME": str(tmp_path)})


def test_no_token_mode(head: Machines, tmp_path: Path) -> None:
    given = head.variables | {"RAY_AUTH_MODE": "disabled"}
    assert_refused(tmp_path, head.address, "set RAY_AUTH_MODE=token", **given)


def test_what_listens_is_no_cluster(head: Machines, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        said = f"what listens at {address} does not answer as a Ray cluster does"
        assert_refused(tmp_path, address, said, **head.variables)


def test_a_cluster_of_another_version(tmp_path: Path) -> None:
    with machines(1, version="2.58.0") as other:
        said = f"2.58.0 and Python {platform.python_version()}, this machine Ray {ray.__version__}"
        assert_refused(tmp_path, other.address, said, "ray job submit", **other.variables)
