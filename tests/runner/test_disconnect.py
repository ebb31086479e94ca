"""Leaving a cluster while other threads run."""

import subprocess
import sys
from pathlib import Path

import pytest

# A thread lets go of Ray's objects, in cycles that only garbage collection finds, all the while.
_LEAVES = """
import sys, threading
from pathlib import Path
import ray
from scaling.runner.cluster import connect, disconnect

class Node: ...

def let_go():
    while True:
        held = [Node() for _ in range(200)]
        for node in held:
            node.itself = node
        if references:
            held[0].reference = references.pop()

connect(None, Path(sys.argv[1]))
references = [ray.put(b"x") for _ in range(20_000)]
threading.Thread(target=let_go, daemon=True).start()
disconnect()
print("left")
"""


@pytest.mark.slow
@pytest.mark.ray
def test_threads_that_let_go_of_rays_objects_do_not_end_the_process(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LEAVES, str(tmp_path / "ray.log")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "left"), done.stderr
