"""Checks one after another, each under a time limit, in a process that a failure may spoil."""

import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Literal

import torch

Relation = Literal["at most", "at least", "equal to"]


@dataclass(frozen=True)
class Result:
    """A number and what is wanted of it."""

    name: str
    value: float
    relation: Relation
    bound: float

    @property
    def holds(self) -> bool:
        """False for NaN too."""
        match self.relation:
            case "at most":
                return self.value <= self.bound
            case "at least":
                return self.value >= self.bound
            case "equal to":
                return self.value == self.bound


@dataclass(frozen=True)
class Finding:
    """What a check came to.

    Attributes:
        passed: None where the device cannot carry the check.
        why: Of what did not pass, or was not judged.
    """

    passed: bool | None
    measured: Mapping[str, float | None] = field(default_factory=dict)
    wanted: Mapping[str, str] = field(default_factory=dict)
    why: str | None = None


def judged(*results: Result) -> Finding:
    """Passed where every result holds."""
    return _finding(all(result.holds for result in results), results, None)


def not_judged(why: str, *results: Result) -> Finding:
    """The numbers for what they are worth on a device that cannot carry the check."""
    return _finding(None, results, why)


def _finding(passed: bool | None, results: Sequence[Result], why: str | None) -> Finding:
    values = {r.name: float(f"{r.value:.4g}") if math.isfinite(r.value) else None for r in results}
    return Finding(passed, values, {r.name: f"{r.relation} {r.bound:g}" for r in results}, why)


@dataclass(frozen=True)
class Check:
    """A check by name.

    Attributes:
        work: Takes "cpu" or "cuda".
        seconds: Its time limit.
        spoils: Whether its process is of no use to the next one.
    """

    name: str
    work: Callable[[str], Finding]
    seconds: float
    spoils: bool = False


class _Process:
    """A process that runs checks; it is the first of a group, so that its own are ended with it."""

    def __init__(self, device: str) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, device))
        self._process.start()
        theirs.close()
        if not self._pipe.poll(START_SECONDS):
            self.end()
            raise RuntimeError(f"a process does not start within {START_SECONDS} s")
        self._pipe.recv()

    def run(self, check: Check, seconds: float) -> Finding | None:
        """The finding of a check; None where the process no longer answers."""
        self._pipe.send(check.work)
        if not self._pipe.poll(seconds):
            return Finding(False, why=f"not done within its {seconds:.0f} s")
        try:
            return self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(5)
            return Finding(False, why=f"its process died with status {self._process.exitcode}")

    def end(self) -> None:
        try:
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        except ProcessLookupError:
            self._process.kill()  # it has no group yet
        self._process.join()


START_SECONDS = 120.0


def _serve(pipe: Connection, device: str) -> None:
    os.setsid()
    os.dup2(2, 1)  # standard output is for the lines alone
    if device == "cpu":
        torch.set_num_threads(1)
    pipe.send("ready")
    while True:
        try:
            work: Any = pipe.recv()
        except EOFError:
            return
        try:
            finding = work(device)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next check is to run
            traceback.print_exc()
            text = str(error).strip() or repr(error)
            finding = Finding(False, why=f"{type(error).__name__}: {text.splitlines()[0]}")
        pipe.send(finding)


def findings(
    checks: Sequence[Check], device: str, total_seconds: float, patience: float = 1.0
) -> Iterator[tuple[Check, Finding, float]]:
    """Every check's finding and seconds, whatever becomes of those before it.

    Args:
        checks: In order.
        device: "cpu" or "cuda".
        total_seconds: After which no check is begun or waited for.
        patience: Times their time limits.
    """
    end = time.monotonic() + total_seconds
    process: _Process | None = None
    try:
        for check in checks:
            process = process or _Process(device)
            started = time.monotonic()
            left = end - started
            finding = process.run(check, min(patience * check.seconds, left)) if left > 0 else None
            finding = finding or Finding(False, why=f"no time left of {total_seconds:.0f} s")
            if check.spoils or (finding.passed is False and left > 0):
                process.end()
                process = None
            yield check, finding, time.monotonic() - started
    finally:
        if process is not None:
            process.end()


def line_of(check: Check, finding: Finding) -> dict[str, Any]:
    """What is printed of a check."""
    why = {} if finding.why is None else {"why": finding.why}
    line: dict[str, Any] = {
        "check": check.name, "passed": finding.passed,
        "measured": dict(finding.measured), "wanted": dict(finding.wanted),
    }  # fmt: skip
    return line | why


def note(text: str) -> None:
    """Say something on standard error."""
    print(text, file=sys.stderr, flush=True)
