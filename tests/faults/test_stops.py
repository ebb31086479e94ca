"""Signals at every moment, and outputs that are closed, full or gone."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import environment
from tests.end_to_end.studies import QUADRATIC, write_study
from tests.faults.disturbed import Running, working_in

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TO_GO_ON = "To go on: python -m scaling.study faulty.yaml --resume"
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def when_it_says(text: str, seconds: float = 0.0) -> Callable[[Running], None]:
    def wait(study: Running) -> None:
        study.wait_for(text, 300)
        time.sleep(seconds)

    return wait


def when_it_heeds_signals(study: Running) -> None:
    """Soon after Python itself has started, before any long import."""
    [driver] = study.processes(sys.executable)

    def heeds() -> bool:
        status = Path(f"/proc/{driver.pid}/status").read_text()
        caught = int(status.split("SigCgt:")[1].split()[0], 16)
        return bool(caught >> (signal.SIGHUP - 1) & 1)

    study.wait_until(heeds)
    time.sleep(0.1)


MOMENTS = {
    "imports": when_it_heeds_signals,
    "data": when_it_says("study faulty"),
    "Ray starts": when_it_says("state in", 1.5),
    "workers start": when_it_says("2 cells, 2 trials", 2.0),
    "trials": when_it_says("ready on", 0.2),
    "the report is written": when_it_says("[2/2]", 2.0),
}


def quadratic(folder: Path, *arguments: str) -> Running:
    if not (folder / "faulty.yaml").exists():
        path = write_study(folder, QUADRATIC | {"name": "faulty"})
        assert path.name == "faulty.yaml"
    return Running(folder, *arguments)


def assert_clean(study: Running, number: int) -> None:
    assert study.end(60) == STATUS[signal.Signals(number)], study.output
    assert study.output.rstrip().endswith(TO_GO_ON), study.output
    for stack in ("Traceback", "***", "Exception ignored", "terminate called"):
        assert stack not in study.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", MOMENTS)
def test_one_clean_end(tmp_path: Path, moment: str, number: int) -> None:
    study = quadratic(tmp_path)
    MOMENTS[moment](study)
    study.send(number)
    assert_clean(study, number)
    reports = tmp_path / "reports"
    assert not [path for path in reports.rglob(".*") if path.is_file()]
    if moment == "the report is written":
        study = quadratic(tmp_path, "--resume")
        assert study.end() == 0, study.output
        assert (reports / "faulty" / "report.html").exists()


def test_signals_while_it_ends_change_nothing(tmp_path: Path) -> None:
    study = quadratic(tmp_path)
    study.wait_for("ready on", 300)
    study.send(signal.SIGINT)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        time.sleep(0.3)
        study.send(number)
    assert_clean(study, signal.SIGINT)


def test_a_closed_terminal(tmp_path: Path) -> None:
    """The terminal hangs up on every process in it, and what is written to it fails from then."""
    write_study(tmp_path, QUADRATIC | {"name": "faulty"})
    ours, theirs = pty.openpty()
    script = (
        "import fcntl, os, sys, termios\n"
        "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'scaling.study', 'faulty.yaml'])"
    )
    study = subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment() | {"TERM": "xterm"},
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while b"starting worker groups" not in seen and b"cell" not in seen:
        seen += os.read(ours, 4096)
    os.close(ours)
    assert study.wait(90) == 129
    assert gone(tmp_path)
    again = quadratic(tmp_path, "--resume")
    assert again.end() == 0, again.output


def gone(folder: Path, seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while working_in(folder) and time.monotonic() < end:
        time.sleep(0.2)
    return not working_in(folder)


@pytest.mark.parametrize(
    "output",
    ["2>err | head -1", "2>&1 | head -1", ">/dev/full 2>&1", ">&- 2>err", ">&- 2>&- <&-"],
)
def test_an_output_that_is_gone_does_not_end_a_study(tmp_path: Path, output: str) -> None:
    write_study(tmp_path, QUADRATIC | {"name": "faulty"})
    command = f"{sys.executable} -m scaling.study faulty.yaml {output}"
    ran: Any = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, env=environment(),
        stdout=subprocess.DEVNULL, timeout=400, check=False,
    )  # fmt: skip
    assert ran.returncode == 0
    assert (tmp_path / "reports" / "faulty" / "report.html").exists()
    if (tmp_path / "err").exists():
        assert (tmp_path / "err").read_text() == ""
