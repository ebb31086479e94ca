"""What a run needs to go on exactly where it was, written so that nobody sees half of it."""

import contextlib
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
from scaling.training.parallel import Workers

_NAME = re.compile(r"step-(\d{12})\.pt")
_LOG = logging.getLogger(__name__)

State = dict[str, Any]


class CheckpointStore:
    """One trial's checkpoints, each a file of its own, in a folder or under an fsspec URL.

    A file has its name only once it is whole. It holds tensors, numbers, strings, lists and
    mappings alone, and is read with `weights_only`, so that reading one runs no code.

    Args:
        folder: Local folder or URL; it need not exist.
        keep: Newest checkpoints that stay.
    """

    def __init__(self, folder: str, *, keep: int) -> None:
        self._fs: Any
        self._fs, self._folder = fsspec.core.url_to_fs(folder)
        self._keep = keep

    def save(self, step: int, state: State) -> None:
        """Write a checkpoint and remove the oldest ones.

        Raises:
            OSError: If it cannot be written; what was there before stays.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self._write(f"step-{step:012d}.pt", buffer.getbuffer())
        for name in self.names()[: -self._keep]:
            self._fs.rm_file(f"{self._folder}/{name}")

    def read(self, name: str) -> State | None:
        """A checkpoint by its name; None where it is not there or cannot be read."""
        try:
            with self._fs.open(f"{self._folder}/{name}", "rb") as file:
                content = io.BytesIO(file.read())
            return torch.load(content, map_location="cpu", weights_only=True)
        except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            # A disk that lost what it had confirmed: the one before is as good a start.
            _LOG.warning("checkpoint %s/%s cannot be read: %s", self._folder, name, error)
            return None

    def names(self) -> list[str]:
        """Names of the checkpoints, the oldest first."""
        try:
            paths: list[str] = self._fs.ls(self._folder, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        names = (path.rsplit("/", 1)[-1] for path in paths)
        return sorted(name for name in names if _NAME.fullmatch(name))

    def _write(self, name: str, content: memoryview) -> None:
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


def newest(store: CheckpointStore, workers: Workers) -> State | None:
    """The newest checkpoint that every worker can read; None where there is none."""
    for name in reversed(workers.agree("\n".join(store.names())).split()):
        state = store.read(name)
        [num_readers] = workers.sum(float(state is not None))
        if num_readers == workers.world_size:
            return state
    return None


def remove_checkpoints(folder: str) -> None:
    """Remove all checkpoints of a trial that has ended; nothing where there are none."""
    fs: Any
    fs, path = fsspec.core.url_to_fs(folder)
    if fs.exists(path):
        fs.rm(path, recursive=True)
