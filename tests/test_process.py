"""Signals and outputs of a command, without a study."""

import gc
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scaling import process
from scaling.process import exempt_loaded, without_garbage_collection

COMMAND = """
import os, signal, sys, time
from scaling.process import exit_with, interruptible, lasting_output

def swallow():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except BaseException:
        pass

class Finalizes:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

def translate():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except BaseException:
        raise ImportError("no module") from None

def main():
    with lasting_output(), interruptible() as signals:
        try:
            {body}
            time.sleep(5)
            return 0
        except BaseException as error:
            status = signals.status_after(error)
            if status is None:
                raise
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                os.kill(os.getpid(), number)
            print("ended")
            return status

exit_with(main())
"""


def run(body: str, redirection: str = "") -> tuple[int, str, str]:
    # The tests themselves may run under nohup.
    command = f'env --default-signal=HUP "$0" -c "$1" {redirection}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, COMMAND.format(body=body)],
        capture_output=True, text=True, timeout=60, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "body",
    [
        "os.kill(os.getpid(), signal.SIGTERM)",
        "swallow()",  # as C code that clears the error of an import
        "Finalizes()",
        "translate()",
    ],
)
def test_an_interrupt_is_never_lost(body: str) -> None:
    assert run(body) == (143, "ended\n", "")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_status_is_that_of_shells(name: str) -> None:
    status, _, error = run(f"os.kill(os.getpid(), signal.{name})")
    assert (status, error) == (128 + signal.Signals[name], "")


def test_another_error_stays_an_error() -> None:
    status, _, error = run("raise ValueError('ours')")
    assert status == 1
    assert "ValueError: ours" in error


def test_a_hang_up_that_is_ignored_stays_so() -> None:
    before = "trap '' HUP; true"
    body = "os.kill(os.getpid(), signal.SIGHUP); os._exit(7)"
    done = subprocess.run(
        ["bash", "-c", f'{before}; "$0" -c "$1"', sys.executable, COMMAND.format(body=body)],
        timeout=60, check=False, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 7


@pytest.mark.parametrize("redirection", [">&-", ">&- 2>&- <&-", ">/dev/full", ">/dev/full 2>&1"])
def test_an_output_that_is_gone_is_no_error(redirection: str) -> None:
    status, _, error = run("print('x' * 100_000, flush=True); return 5", redirection)
    assert (status, error) == (5, "")


def test_a_pipe_that_nobody_reads_is_no_error() -> None:
    body = "time.sleep(0.5); print('x' * 100_000, flush=True); return 5"
    status, _, error = run(body, "| true; exit ${PIPESTATUS[0]}")
    assert (status, error) == (5, "")


def test_off_the_main_thread_nothing_is_changed() -> None:
    body = (
        "import threading; found = []\n            "
        "def work():\n                "
        "with interruptible(): found.append(signal.getsignal(signal.SIGTERM))\n            "
        "worker = threading.Thread(target=work); worker.start(); worker.join()\n            "
        "return len(found)"
    )
    assert run(body)[0] == 1


def test_what_was_made_without_garbage_collection_is_not_looked_through_at_once() -> None:
    gc.unfreeze()
    looked_through: list[int] = []

    def callback(phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            looked_through.append(len(gc.get_objects(generation=0)))

    gc.callbacks.append(callback)
    try:
        with without_garbage_collection():
            made: list[list[int]] = [[number] for number in range(100_000)]
        more = [[number] for number in range(3_000)]
    finally:
        gc.callbacks.remove(callback)
    assert looked_through  # after the block it goes on
    assert max(looked_through) < 10_000
    assert gc.get_freeze_count() == 0
    assert len(made) + len(more) == 103_000


def is_looked_through(value: object) -> bool:
    """Whether a collection would look at it: what is frozen is in no generation."""
    return any(one is value for one in gc.get_objects())


def test_what_is_frozen_stays_so() -> None:
    loaded = ["here"]
    gc.freeze()
    try:
        with without_garbage_collection():
            pass
        assert not is_looked_through(loaded)
    finally:
        gc.unfreeze()
    assert is_looked_through(loaded)


def test_what_a_worker_has_exempted_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting looks at each of half a million objects, at every model that is built."""

    def count() -> int:
        raise AssertionError("counted")

    monkeypatch.setattr(process, "_is_exempt", False)
    loaded = ["here"]
    try:
        exempt_loaded()
        with monkeypatch.context() as patched:
            patched.setattr(gc, "get_freeze_count", count)
            with without_garbage_collection():
                pass
        assert not is_looked_through(loaded)
    finally:
        gc.unfreeze()
