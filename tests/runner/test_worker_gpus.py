"""Which GPUs a worker sees: those that it was given, and none where it was given none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SEEN = """
import os, sys
from pathlib import Path
import ray
from scaling.runner.cluster import connect, disconnect

connect("local", Path(sys.argv[1]))

@ray.remote(num_cpus=1)
def seen():
    return os.environ.get("CUDA_VISIBLE_DEVICES")

try:
    print(repr(ray.get(seen.remote())))
finally:
    disconnect()
"""


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.ray
def test_a_worker_without_a_gpu_sees_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SEEN, str(tmp_path / "ray.log")],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "7"},  # a machine's own list, whatever it has
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "''"), done.stderr
