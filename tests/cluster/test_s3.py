"""A study whose storage is a bucket, here moto's on loopback, loses a machine."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import pytest

from tests.cluster.machines import machines
from tests.cluster.test_elastic import STUDY, joined
from tests.faults.disturbed import Losses, losses, losses_alone

pytestmark = [pytest.mark.ray, pytest.mark.slow]
KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "key", "AWS_REGION": "us-east-1"}


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


@pytest.fixture
def bucket(free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket that workers reach by the environment alone."""
    pytest.importorskip("s3fs", reason="the extra s3 is not installed")
    pytest.importorskip("moto", reason="the group dev is not installed")
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port}"}.items():
        monkeypatch.setenv(name, value)
    with subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(free_port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        try:
            deadline = time.monotonic() + 60
            while not answers(free_port):
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.1)
            fsspec.filesystem("s3").mkdir("studies")
            yield "s3://studies"
        finally:
            server.kill()


def test_a_lost_machines_trial_goes_on_from_the_bucket(tmp_path: Path, bucket: str) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    quiet: Losses = losses_alone(alone, STUDY)
    storage = f"storage={bucket}/runs/faulty"
    with machines(1) as cluster:
        number = cluster.add(num_cpus=1)
        study = joined(tmp_path, cluster, "--set", storage)
        study.wait_for("2 worker groups of 1 worker ready")
        study.wait_for("[1/")
        cluster.kill(number)
        study.wait_for("1 of 2 worker groups ready; waiting for 1 CPU", 60)
        assert study.end() == 0, study.output
    assert not list((tmp_path / "runs").rglob("checkpoints"))
    fs = fsspec.filesystem("s3")
    fs.invalidate_cache()
    copied = tmp_path / "bucket/runs/faulty/trials.jsonl"
    fs.get("studies/runs/faulty/trials.jsonl", str(copied))
    assert losses(tmp_path / "bucket") == quiet
    assert "its machine was lost" in copied.read_text()
