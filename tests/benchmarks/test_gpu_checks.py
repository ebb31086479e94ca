"""The checks for a GPU run on a CPU, with few packages; what their frame makes of bad ones."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from gpu_frame import Check, Finding, Result, findings, judged, line_of

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu_checks.py"
# What neither the checks nor what they use of ours may need.
BLOCKED = (
    "ray", "mlflow", "optuna", "pandas", "datasets", "scipy", "sklearn", "altair", "pyarrow",
    "lightning", "deepspeed", "peft", "vegafusion", "matplotlib",
)  # fmt: skip


def finds(device: str) -> Finding:
    return judged(Result("a", 1.5, "at most", 2), Result("b", 2, "equal to", 2))


def misses(device: str) -> Finding:
    return judged(Result("a", float("nan"), "at most", 2), Result("b", 2, "at least", 2))


def raises(device: str) -> Finding:
    raise ValueError("what went wrong\nand more")


def sleeps(device: str) -> Finding:
    time.sleep(600)
    raise AssertionError


def dies(device: str) -> Finding:
    os._exit(7)


@pytest.mark.slow
def test_all_run_whatever_becomes_of_the_others() -> None:
    checks = [Check(work.__name__, work, 60) for work in (raises, misses, finds, dies)]
    checks += [Check("sleeps", sleeps, 0.5), Check("again", finds, 60)]
    lines = [line_of(check, found) for check, found, _ in findings(checks, "cpu", 600)]
    wanted = {"a": "at most 2", "b": "equal to 2"}
    good: dict[str, Any] = {"passed": True, "measured": {"a": 1.5, "b": 2.0}, "wanted": wanted}
    nothing: dict[str, Any] = {"passed": False, "measured": {}, "wanted": {}}
    assert lines == [
        {"check": "raises", **nothing, "why": "ValueError: what went wrong"},
        {"check": "misses", "passed": False, "measured": {"a": None, "b": 2.0},
         "wanted": {"a": "at most 2", "b": "at least 2"}},
        {"check": "finds", **good},
        {"check": "dies", **nothing, "why": "its process died with status 7"},
        {"check": "sleeps", **nothing, "why": "not done within its 0 s"},
        {"check": "again", **good},
    ]  # fmt: skip
    late = [line_of(check, found) for check, found, _ in findings(checks[2:3], "cpu", 0.0)]
    assert late == [{"check": "finds", **nothing, "why": "no time left of 0 s"}]


def lines_of(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    """What the script prints where the blocked packages cannot be imported."""
    block = f"import sys\nfor name in {BLOCKED!r}:\n    sys.modules[name] = None\n"
    (folder / "sitecustomize.py").write_text(block, encoding="ascii")
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], cwd=folder, timeout=600,
        env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_without_a_gpu_nothing_is_false(tmp_path: Path) -> None:
    names = ["syncs", "tf32"]
    syncs, tf32 = lines_of(tmp_path, "--device", "cpu", "--only", *names)
    assert syncs["passed"] is True
    assert syncs["measured"] == {"a step of 1 micro-batches": 1, "a step of 4 micro-batches": 1}
    assert tf32["passed"] is None
    assert tf32["why"] == "a CPU has no tf32"


@pytest.mark.slow
def test_all_run_on_a_cpu(tmp_path: Path) -> None:
    lines = lines_of(tmp_path, "--device", "cpu")
    assert len(lines) == len({line["check"] for line in lines}) == 21
    judged_here = {line["check"] for line in lines if line["passed"]}
    assert len(judged_here) >= 10
    for line in lines:
        assert line["passed"] or line["why"]
        assert line["measured"].keys() == line["wanted"].keys()
