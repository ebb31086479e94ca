"""What is reserved for a worker group on a real Ray, after the group is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

_RELEASES = """
import sys, time
from pathlib import Path
from ray.util.placement_group import placement_group, placement_group_table
from scaling.runner import reservations
from scaling.runner.cluster import connect, disconnect

def states():
    table = placement_group_table()
    return [table[group.id.hex()]["state"] for group in groups]

def until(expected):
    while states() != expected:
        assert time.monotonic() < deadline, states()
        time.sleep(0.05)

connect(None, Path(sys.argv[1]))
deadline = time.monotonic() + 60
groups = [
    placement_group([{"CPU": 1}] * count, bundle_label_selector=[named] * count)
    for name, count in (("one", 1), ("other", 1), ("waits", 1000))
    for named in [reservations.label_selector(name)]
]
until(["CREATED", "CREATED", "PENDING"])
reservations.release("one")
until(["REMOVED", "CREATED", "PENDING"])
reservations.release("waits")
until(["REMOVED", "CREATED", "REMOVED"])
disconnect()
print("released")
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_lost_group_s_reservation_is_removed_and_no_other(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _RELEASES, str(tmp_path / "ray.log")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "released"), done.stderr
