"""What a command is to its process: a signal ends it cleanly, a closed output does not end it."""

import gc
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TextIO

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RAISE_AGAIN_SECONDS = 0.1


class InterruptedBySignal(KeyboardInterrupt):
    """A signal asks for the end."""

    def __init__(self, signals: "Signals", number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self._signals, self._number = signals, number

    def __del__(self) -> None:
        self._signals.gone(self._number)


class Signals:
    """Which signal asked for the end, if one did."""

    def __init__(self) -> None:
        self._number: int | None = None
        self._is_heeded = False

    def status_after(self, error: BaseException) -> int | None:
        """Exit status where an error is the end that was asked for; None where it is another.

        As shells have it: 128 and the number of the signal. A library that is interrupted in the
        middle may make another error of it.
        """
        if self._number is None and isinstance(error, KeyboardInterrupt):
            return 128 + signal.SIGINT
        self._is_heeded = True
        return None if self._number is None else 128 + self._number

    def interrupt(self, number: int, _frame: FrameType | None) -> None:
        """The handler: raises once."""
        if self._number is None:
            self._number = number
            raise InterruptedBySignal(self, number)

    def gone(self, number: int) -> None:
        """An interrupt is no more. Where nobody heeded it, it was lost, and is raised again.

        Python loses it in a finalizer; some libraries clear any error of an import.
        """
        if self._is_heeded or self._number is None:
            return
        self._number = None
        again = threading.Timer(_RAISE_AGAIN_SECONDS, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    def unraisable(self, args: Any) -> None:
        """Python's hook for an error that nobody can catch: ours needs no word."""
        if not isinstance(args.exc_value, InterruptedBySignal):
            sys.__unraisablehook__(args)


@contextmanager
def interruptible() -> Iterator[Signals]:
    """The first Ctrl-C, SIGTERM or SIGHUP raises InterruptedBySignal; those after it do nothing.

    So what ends cleanly is not disturbed while it does. A hang-up that is ignored, as under nohup,
    stays so; an ignored SIGINT does not, since a shell has every job in the background ignore it.
    Nothing is changed off the main thread, where Python can set no handler.
    """
    signals = Signals()
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return
    before = {number: signal.getsignal(number) for number in _ENDING}
    hook_before, sys.unraisablehook = sys.unraisablehook, signals.unraisable
    for number in _ENDING:
        if number == signal.SIGINT or before[number] != signal.SIG_IGN:
            signal.signal(number, signals.interrupt)
    try:
        yield signals
    finally:
        sys.unraisablehook = hook_before
        for number, handler in before.items():
            if handler is not None:  # None: not set from Python, so it cannot be set again
                signal.signal(number, handler)


def reclaim_signals() -> None:
    """Give Python's handlers the signals back that a library in C has taken or set free.

    Does nothing off the main thread, where Python has no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number in _ENDING:
        handler = signal.getsignal(number)
        if callable(handler):
            signal.signal(number, handler)


def exit_with(status: int) -> None:
    """End this process, all of whose work is done: signals change nothing any more."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


_is_exempt = False
"""Whether `exempt_loaded` was called; to count what is frozen takes a tenth of a second."""


def exempt_loaded() -> None:
    """Let later garbage collections pass over what this process has loaded by now.

    A collection looks at every object of torch and transformers, a fifth of a second between any
    two trials, and they stay to the process's end.
    """
    global _is_exempt
    gc.collect()
    gc.freeze()
    _is_exempt = True


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Do not look for cycles of objects that nobody uses.

    Importing libraries and reading tables makes many objects that stay, and is a quarter faster
    when they are not looked through again and again. So they count as old afterwards: what has
    just been made would be looked through three times, a fifth of a second for torch and
    transformers each time.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not (_is_exempt or gc.get_freeze_count()):  # or what was frozen would be thawed
                gc.freeze()
                gc.unfreeze()
            gc.enable()


class _Output(io.FileIO):
    """A file descriptor that drops what it cannot write.

    The reader of a pipe has gone, the terminal was closed, the disk is full: the work goes on.
    """

    def write(self, data: Any) -> int:
        try:
            while (written := super().write(data)) is None:  # it does not block, and is full
                select.select([], [self], [])
        except OSError:
            return len(data)
        return written


@contextmanager
def lasting_output() -> Iterator[None]:
    """Standard output and error that may be closed, full or gone without an error.

    Python's error output gets a descriptor of its own, so that it is what it was while a library
    in C has its messages elsewhere. Streams that a test or a notebook has put in their place stay.
    """
    for descriptor in (0, 1, 2):
        _fill(descriptor)
    before = sys.stdout, sys.stderr
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lasting(sys.stdout, 1)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(sys.stderr, os.dup(2))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _fill(descriptor: int) -> None:
    """Open a standard descriptor that is closed, so that no file of ours gets its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # closed when Python started
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 -- stays open
    stream.flush()
    binary = io.BufferedWriter(_Output(descriptor, "wb", closefd=False))
    return io.TextIOWrapper(
        binary,
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=bool(stream.line_buffering) or stream.isatty(),
    )
