"""Noticing that a cluster is gone, without one; tests/faults/test_lost_parts.py has the rest."""

import signal
import socket
import subprocess
import sys
import time

import pytest

from scaling.process import InterruptedBySignal, interruptible
from scaling.runner import cluster_watch
from scaling.runner.cluster_watch import ClusterWatch, _refuses
from scaling.runner.preflight import ClusterError


def test_only_an_address_where_nothing_listens_refuses(free_port: int) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        assert not _refuses(address)
        assert not _refuses(address)  # its queue is full: slow, and there
    assert _refuses(address)
    assert _refuses(("127.0.0.1", free_port))


@pytest.mark.parametrize("stream", ["sys.stderr", "io.StringIO()", "None"])
def test_a_process_that_cannot_be_interrupted_says_how_to_go_on(stream: str) -> None:
    code = f"import io, sys; sys.stderr = {stream}; "
    code += "from scaling.runner.cluster_watch import _leave; _leave('scaling resume lr_vs_batch')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 1
    lost, go_on = done.stderr.splitlines()[-2:]
    assert lost.startswith("the Ray cluster is lost")
    assert go_on.endswith("To go on: scaling resume lr_vs_batch")


def test_ctrl_c_is_heard_after_a_cluster_was_lost(
    monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    monkeypatch.setattr(cluster_watch, "_addresses", lambda: [("127.0.0.1", free_port)])
    monkeypatch.setattr(cluster_watch, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(cluster_watch, "LOST_AFTER_SECONDS", 0.1)
    with interruptible() as signals:
        with pytest.raises(ClusterError, match="the Ray cluster is lost") as lost, ClusterWatch(""):
            time.sleep(60)
        assert signals.status_after(lost.value) is None  # nobody has asked for the end
        with pytest.raises(InterruptedBySignal):  # and one can
            signal.raise_signal(signal.SIGINT)
