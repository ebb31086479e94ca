"""What a run needs to go on exactly where it was, written so that nobody sees half of it."""

import contextlib
import errno
import io
import logging
import os
import pickle
import re
import uuid
from pathlib import Path
from typing import Any

import fsspec
import torch
from fsspec.implementations.local import LocalFileSystem

from scaling.issues import first_line
from scaling.training.workers import Workers

_NAME = re.compile(r"step-(\d{12})(?:\.worker-(\d{5}))?\.pt")
_UNFINISHED = re.compile(r"\.[0-9a-f]{32}\.part")
_LOG = logging.getLogger(__name__)

State = dict[str, Any]


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
            OSError: If it cannot be written; what was there before stays.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._write(_name(step, rank), buffer.getbuffer())
        if rank > 0:
            return
        kept = self.steps()[-self._keep :]
        # First workers' parts go first: what is left of a checkpoint is then none.
        for of_step, of_rank in sorted(self._files(), key=lambda file: file[1]):
            if of_step not in kept:
                self._fs.rm_file(f"{self._folder}/{_name(of_step, of_rank)}")

    def read(self, step: int, rank: int = 0) -> State | None:
        """A worker's part of a checkpoint; None where it is not there or cannot be read."""
        path = f"{self._folder}/{_name(step, rank)}"
        try:
            with self._fs.open(path, "rb") as file:
                content = io.BytesIO(file.read())
            return torch.load(content, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
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

    def _write(self, name: str, content: memoryview) -> None:
        if isinstance(self._fs, LocalFileSystem) and Path(self._folder).is_symlink():
            raise OSError(errno.ELOOP, "is a symbolic link", self._folder)
        self._fs.makedirs(self._folder, exist_ok=True)
        path, partial = f"{self._folder}/{name}", f"{self._folder}/.{uuid.uuid4().hex}.part"
        try:
            if isinstance(self._fs, LocalFileSystem):
                with Path(partial).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                Path(partial).replace(path)
            else:
                self._fs.pipe_file(partial, bytes(content))
                self._fs.mv(partial, path)
        except Exception as error:  # each file system has errors of its own
            with contextlib.suppress(Exception):
                self._fs.rm_file(partial)
            if isinstance(error, OSError):
                raise
            raise OSError(None, first_line(error), path) from error


def newest(store: CheckpointStore, workers: Workers, *, in_parts: bool) -> State | None:
    """This worker's share of the newest checkpoint that all can read; None where there is none.

    Args:
        store: Where every worker sees the same files.
        workers: All of them call this.
        in_parts: Whether every worker wrote a part of its own; else the first worker wrote all.
    """
    for step in reversed(workers.agree("\n".join(map(str, store.steps()))).split()):
        state = store.read(int(step), workers.rank if in_parts else 0)
        # Parts of two attempts at one step do not belong together.
        written = workers.gather(None if state is None else state.get("written_together", ""))
        if None not in written and len(set(written)) == 1:
            return state
    return None


def remove_checkpoints(folder: str) -> None:
    """Remove all checkpoints of a trial that has ended; nothing where there are none.

    Files of other names, and a folder that holds some or is a link, stay.
    """
    fs: Any
    fs, path = fsspec.core.url_to_fs(folder)
    if not fs.exists(path) or (isinstance(fs, LocalFileSystem) and Path(path).is_symlink()):
        return
    for file in map(str, fs.ls(path, detail=False, refresh=True)):
        name = file.rsplit("/", 1)[-1]
        if _NAME.fullmatch(name) or _UNFINISHED.fullmatch(name):
            fs.rm_file(file)
    with contextlib.suppress(OSError):  # another's files are there, or a store without folders
        fs.rmdir(path)
