"""What a run needs to go on exactly where it was, written so that nobody sees half of it."""

import contextlib
import errno
import io
import logging
import os
import pickle
import re
import struct
import uuid
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import torch
from fsspec.implementations.local import LocalFileSystem

from scaling.files.shown_url import without_credentials
from scaling.files.url_errors import as_os_error
from scaling.training.checkpoint_check import State, fault_of
from scaling.training.parallel.workers import Workers

_NAME = re.compile(r"step-(\d{12})(?:\.worker-(\d{5}))?\.pt")
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.part")
_LOG = logging.getLogger(__name__)
# What torch's unpickler raises besides on bytes that are no checkpoint.
_UNREADABLE = (
    pickle.UnpicklingError, ArithmeticError, AssertionError, AttributeError, ImportError,
    LookupError, TypeError, struct.error, zipfile.BadZipFile,
)  # fmt: skip

CANNOT_BE_READ = "it cannot be read"


def _name(step: int, rank: int) -> str:
    return f"step-{step:012d}.worker-{rank:05d}.pt" if rank else f"step-{step:012d}.pt"


class CheckpointStore:
    """One trial's checkpoints, in a folder or under an fsspec URL.

    A checkpoint is a file, or, where weights are cut among the workers, a file of each; the first
    worker's comes last, and without it there is no checkpoint. A file has its name only once it
    is whole. It holds tensors, numbers, strings, lists and mappings alone, and is read with
    `weights_only`, so that reading one runs no code.

    Args:
        folder: Local folder or URL; it need not exist.
        keep: Newest checkpoints that stay.
    """

    def __init__(self, folder: str, *, keep: int) -> None:
        self._fs: Any
        self._fs, self._folder = fsspec.core.url_to_fs(folder)
        self._keep = keep

    def save(self, step: int, state: State, rank: int = 0) -> None:
        """Write a worker's part; the first worker's ends a checkpoint and removes the oldest.

        Raises:
            OSError: If it cannot be written, and what was there before stays; or if the oldest
                cannot be removed.
        """
        with as_os_error(self._folder):
            self._write(_name(step, rank), state)
            if rank == 0:
                self._remove_before(step)

    def _remove_before(self, step: int) -> None:
        # A later step's was passed over, or the run would not be here again.
        kept = [saved for saved in self.steps() if saved <= step][-self._keep :]
        # First workers' parts go first: what is left of a checkpoint is then none.
        for of_step, of_rank in sorted(self._files(), key=lambda file: file[1]):
            if of_step not in kept:
                self._fs.rm_file(f"{self._folder}/{_name(of_step, of_rank)}")

    def read(self, step: int, rank: int = 0) -> Any:
        """A worker's part of a checkpoint; None where it is not there or cannot be read.

        What was read may be anything: see `scaling.training.checkpoint_check`.
        """
        path = f"{self._folder}/{_name(step, rank)}"
        try:
            with as_os_error(path), self._fs.open(path, "rb") as file:
                content = io.BytesIO(file.read())
            with zipfile.ZipFile(content) as parts:
                damaged = parts.testzip()  # torch itself does not look at the check sums
            if damaged is not None:
                raise ValueError(f"{damaged} is damaged")
            content.seek(0)
            return torch.load(content, map_location="cpu", weights_only=True)
        except (*_UNREADABLE, OSError, EOFError, RuntimeError, ValueError) as error:
            # A disk that lost what it had confirmed: the one before is as good a start.
            _LOG.warning("checkpoint %s cannot be read: %s", path, error)
            return None

    def steps(self) -> list[int]:
        """Steps of the checkpoints, the oldest first."""
        return sorted(step for step, rank in self._files() if rank == 0)

    def _files(self) -> list[tuple[int, int]]:
        """Step and worker of each file."""
        try:
            paths: list[str] = self._fs.ls(self._folder, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        names = [_NAME.fullmatch(path.rsplit("/", 1)[-1]) for path in paths]
        return [(int(name[1]), int(name[2] or 0)) for name in names if name is not None]

    def _write(self, name: str, state: State) -> None:
        if isinstance(self._fs, LocalFileSystem) and Path(self._folder).is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link", self._folder)
        self._fs.makedirs(self._folder, exist_ok=True)
        path, partial = f"{self._folder}/{name}", f"{self._folder}/.{uuid.uuid4().hex}.part"
        try:
            if isinstance(self._fs, LocalFileSystem):
                with Path(partial).open("wb") as file:
                    _save(state, file)
                    file.flush()
                    os.fsync(file.fileno())
                Path(partial).replace(path)
            else:
                with self._fs.open(partial, "wb") as file:
                    _save(state, file)
                self._fs.mv(partial, path)
        except Exception:
            with contextlib.suppress(Exception):
                self._fs.rm_file(partial)
            raise


class _Sink:
    """Writes to a file until that fails, and then to nowhere.

    torch's writer, a C++ object, ends the process where a write raises.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: Exception | None = None

    def write(self, content: Any) -> int:
        """Take all of it."""
        size = memoryview(content).nbytes
        if self.error is None:
            try:
                self._file.write(content)
            except Exception as error:  # noqa: BLE001  # raised by `_save`
                self.error = error
        return size

    def flush(self) -> None:
        """Nothing: the file is flushed by who opened it."""


def _save(state: State, file: BinaryIO) -> None:
    """Write a state without a copy of it in memory."""
    sink = _Sink(file)
    torch.save(state, sink)  # pyright: ignore[reportArgumentType]  # it has what torch calls
    if sink.error is not None:
        raise sink.error


def _shared_steps(store: CheckpointStore, workers: Workers) -> list[int]:
    """Steps of the checkpoints as the first worker sees them, the newest first."""
    steps = workers.agree("\n".join(map(str, store.steps()))).split()
    return [int(step) for step in reversed(steps)]


def newest(
    store: CheckpointStore,
    workers: Workers,
    *,
    in_parts: bool,
    like: Callable[[], State] | None = None,
    passed_over: list[dict[str, Any]] | None = None,
) -> State | None:
    """This worker's share of the newest checkpoint that all can use; None where there is none.

    Args:
        store: Where every worker sees the same files.
        workers: All of them call this.
        in_parts: Whether every worker wrote a part of its own; else the first worker wrote all.
        like: Gives what this worker would save itself (see `fault_of`), and is called by all where
            there is a checkpoint; None takes any mapping.
        passed_over: Takes an incident for each newer one, the same on all workers.
    """
    steps = _shared_steps(store, workers)
    expected = like() if steps and like is not None else None
    for step in steps:
        state = store.read(step, workers.rank if in_parts else 0)
        fault = None
        if state is not None and expected is not None:
            fault = fault_of(state, expected, step=step)
        elif not isinstance(state, dict):
            fault = CANNOT_BE_READ
        written = state.get("written_together") if isinstance(state, dict) else None
        found = workers.gather((fault, written))
        fault = next((fault for fault, _ in found if fault is not None), None)
        if fault is None and len({written for _, written in found}) > 1:
            fault = "its parts are of two attempts"
        if fault is None:
            return state
        if passed_over is not None:
            passed_over.append({"kind": "checkpoint_passed_over", "step": step, "cause": fault})
    return None


def remove_left_over(root: str, ended: Collection[str]) -> None:
    """Remove what a study that was killed has left: checkpoints of ended trials, unfinished files.

    Args:
        root: Folder or URL with a folder of checkpoints for each trial.
        ended: Names of the folders of trials that do not go on.
    """
    try:
        with as_os_error(root):
            fs: Any
            fs, path = fsspec.core.url_to_fs(root)
            found: list[str] = fs.ls(path, detail=False, refresh=True) if fs.exists(path) else []
    except OSError as error:
        _LOG.warning("cannot read %s: %s", without_credentials(root), error.strerror or error)
        return
    for name in (trial.rstrip("/").rsplit("/", 1)[-1] for trial in found):
        remove_checkpoints(f"{root}/{name}", only_unfinished=name not in ended)


def remove_checkpoints(folder: str, *, only_unfinished: bool = False) -> None:
    """Remove all checkpoints of a trial that has ended; nothing where there are none.

    Files of other names, and a folder that holds some or is a link, stay. So do checkpoints that
    cannot be removed, with a warning, since they only take room. With `only_unfinished`, nothing
    goes but files that were being written.
    """
    try:
        with as_os_error(folder):
            fs: Any
            fs, path = fsspec.core.url_to_fs(folder)
            if not fs.exists(path) or (isinstance(fs, LocalFileSystem) and Path(path).is_symlink()):
                return
            for file in map(str, fs.ls(path, detail=False, refresh=True)):
                name = file.rsplit("/", 1)[-1]
                is_whole = _NAME.fullmatch(name) and not only_unfinished
                if is_whole or _UNFINISHED.fullmatch(name):
                    fs.rm_file(file)
            with contextlib.suppress(OSError):  # another's files are there, or no folders at all
                fs.rmdir(path)
    except OSError as error:
        reason = error.strerror or error
        _LOG.warning("checkpoints in %s stay: %s", without_credentials(folder), reason)
