"""A process that leaves its group keeps nothing of it."""

import subprocess
import sys
from pathlib import Path

import pytest

# In a process of its own: another test may have imported what the group's end depends on.
JOINS_AND_LEAVES = """
import sys
from pathlib import Path
from scaling.training.parallel.workers import join_group, leave_group
join_group("gloo", sys.argv[1], rank=0, world_size=1)
import torch._dynamo  # as DDP does
during = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
leave_group()
after = {path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")}
print(sorted(name for name in during if "gloo" in name))
print(sorted(name for name in after if "gloo" in name or "tcpstore" in name))
"""


@pytest.mark.slow
def test_the_groups_threads_end_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", JOINS_AND_LEAVES, f"file://{tmp_path}/meeting"]
    during, after = subprocess.check_output(command, text=True).splitlines()
    assert "gloo" in during
    assert after == "[]"
