"""The coverage run over every case, two studies each: it draws, reads and writes what it should."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/interval_coverage.py"


@pytest.mark.slow
def test_every_case_is_drawn_and_read() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--studies", "2"], capture_output=True, text=True, check=True
    )
    lines = json.loads(done.stdout.splitlines()[-1])
    assert len(lines) > 20
    assert any(line["covered_share"] == 1.0 for line in lines.values())
