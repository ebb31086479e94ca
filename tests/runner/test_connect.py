"""Connecting in a process that uses Ray already, and a start that is interrupted; without Ray."""

import subprocess
import sys
from pathlib import Path

_INTERRUPTED = """
import os, ray
from pathlib import Path
from scaling.runner import cluster
from scaling.runner.preflight import StartError

class Interrupted(cluster._Connection):
    def __init__(self, address, session):
        self.is_started_here, self._session = True, session
    def answers_soon(self):
        raise KeyboardInterrupt
    def close(self):
        print("closed")
        self._session.remove()

def open_files():
    return sorted(os.readlink(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")
                  if os.path.exists(f"/proc/self/fd/{n}"))

cluster._Connection = Interrupted
for attempt in range(3):
    try:
        cluster.connect("local", Path("ray.log"))
    except KeyboardInterrupt:
        print("interrupted", cluster._connection)
    if not attempt:
        before = open_files()
assert open_files() == before, (before, open_files())
cluster._connection = running = object.__new__(Interrupted)
try:
    cluster.connect("local", Path("ray.log"))
except StartError as error:
    print(error)
assert cluster._connection is running
cluster._connection, ray.is_initialized = None, lambda: True
try:
    cluster.connect("10.0.0.1:6379", Path("other.log"))
except StartError as error:
    print(error, Path("other.log").exists())
"""


def test_a_start_that_is_interrupted_or_refused_leaves_all_as_it_was(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED], cwd=tmp_path, capture_output=True, text=True,
        timeout=120, check=False, env={"PYTHONPATH": ":".join(sys.path), "HOME": str(tmp_path)},
    )  # fmt: skip
    runs = "this process runs a study already; wait for its end"
    refused = "this process uses Ray already; call ray.shutdown() first"
    said = ["closed", "interrupted None"] * 3 + [runs, f"{refused} False"]
    assert done.stdout.splitlines() == said, done.stderr
