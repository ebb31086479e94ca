"""Noticing that a cluster is gone, without one; tests/faults/test_lost_parts.py has the rest."""

import socket
import subprocess
import sys

from scaling.runner.cluster_watch import _refuses


def test_only_an_address_where_nothing_listens_refuses(free_port: int) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        assert not _refuses(address)
        assert not _refuses(address)  # its queue is full: slow, and there
    assert _refuses(address)
    assert _refuses(("127.0.0.1", free_port))


def test_a_process_that_cannot_be_interrupted_says_how_to_go_on() -> None:
    code = (
        "import sys; sys.argv = ['study.py', 'a study.yaml', '--resume', '--set', 'seed=1'];"
        "from scaling.runner.cluster_watch import _leave; _leave()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 1
    lost, go_on = done.stderr.splitlines()[-2:]
    assert lost.startswith("the Ray cluster is lost")
    assert go_on.endswith("python -m scaling.study 'a study.yaml' --set seed=1 --resume")
