"""Sums over the workers of one machine through its memory.

On a CPU gloo takes milliseconds for a sum that the machine's memory takes a tenth of one for, which
is a good part of a small model's step (`benchmarks/training_throughput.py`).
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import Tensor

from scaling.training.parallel.workers import TIMEOUT_SECONDS, Workers

PIECE_BYTES = 2**21  # a longer tensor is summed piece by piece
_MEMORY_FOLDER = Path("/dev/shm")


class WorkerGoneError(ConnectionError):
    """Another worker of the trial has left it, by an error or by dying."""


class SharedSum:
    """One worker's end.

    Each writes a tensor to where all can read, sums its share of all of them, and reads the others'
    shares: every worker has the same sum to the last bit. Between these they wait for each other by
    a byte over sockets, which also orders what they wrote and ends where one of them does.
    """

    def __init__(self, workers: Workers, memory: Path, sockets: list[socket.socket]) -> None:
        """Take part, by a file of `memory_bytes` that all map and sockets to every other worker."""
        self.world_size = workers.world_size
        self._workers, self._sockets = workers, sockets
        for each in sockets:
            each.settimeout(TIMEOUT_SECONDS)
        size = memory_bytes(self.world_size)
        mapped = torch.from_file(str(memory), shared=True, size=size, dtype=torch.uint8)
        # While one is still reading a piece, another writes the next one.
        self._slots = mapped.view(2, self.world_size, PIECE_BYTES)
        self._num_sums = 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over the workers, in place; all of them call this.

        Args:
            tensor: [n] on the CPU, contiguous, as long on every worker.

        Raises:
            WorkerGoneError: If another worker has left.
            TimeoutError: If another worker does not come within TIMEOUT_SECONDS.
        """
        for piece in tensor.split(PIECE_BYTES // tensor.element_size()):
            self._sum_piece(piece)
        return tensor

    def _sum_piece(self, piece: Tensor) -> None:
        slots = self._slots[self._num_sums % 2].view(piece.dtype)[:, : len(piece)]
        self._num_sums += 1
        rank, others = self._workers.rank, range(self.world_size)
        slots[rank].copy_(piece)
        self._meet()
        own = self._workers.part(len(piece))
        for other in others:
            if other != rank:
                slots[rank, own] += slots[other, own]
        self._meet()
        for other in others:
            share = self._workers.part(len(piece), rank=other)
            piece[share] = slots[other, share]

    def _meet(self) -> None:
        """Go on when every worker is here."""
        try:
            for other in self._sockets:
                other.send(b"\0")
            met = all(other.recv(1) for other in self._sockets)
        except ConnectionError:
            met = False
        if not met:
            raise WorkerGoneError("another worker has left this trial")

    def close(self) -> None:
        """Leave."""
        for each in self._sockets:
            each.close()


def memory_bytes(world_size: int) -> int:
    """Size of the memory that so many workers share."""
    return 2 * world_size * PIECE_BYTES


def shared_sum(workers: Workers) -> SharedSum | None:
    """This worker's end of a sum among workers; called by all of them.

    Returns:
        None on all of them where they are not on one machine, or it has no memory to share.
    """
    folder = _made_folder(workers.world_size) if workers.rank == 0 else None
    folder = Path(workers.agree(str(folder or "")))
    if not folder.name:
        return None
    try:
        with _listening(folder, workers) as listener:
            if not _all(workers, listener is not None) or listener is None:
                return None
            sockets = _connected(folder, workers, listener)
            found = SharedSum(workers, folder / "memory", sockets)
            _all(workers, True)  # has mapped it
            return found
    finally:
        if workers.rank == 0:
            shutil.rmtree(folder)


def _all(workers: Workers, holds: bool) -> bool:
    return all(workers.gather(holds))


def _made_folder(world_size: int) -> Path | None:
    """A folder with the memory in it; None where there is no room for it."""
    folder = None
    try:
        parent = _MEMORY_FOLDER if _MEMORY_FOLDER.is_dir() else None
        folder = Path(tempfile.mkdtemp(prefix="scaling-", dir=parent))
        # Written, so that the memory is there: touching a hole on a full disk ends the process.
        (folder / "memory").write_bytes(bytes(memory_bytes(world_size)))
    except OSError:
        if folder is not None:
            shutil.rmtree(folder)
        return None
    return folder


@contextmanager
def _listening(folder: Path, workers: Workers) -> Iterator[socket.socket | None]:
    """A socket that the workers of higher rank can connect to; None where there can be none."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(TIMEOUT_SECONDS)
        opened = None
        with suppress(OSError):
            if os.access(folder / "memory", os.R_OK | os.W_OK):
                listener.bind(str(folder / str(workers.rank)))
                listener.listen(workers.world_size)
                opened = listener
        yield opened


def _connected(folder: Path, workers: Workers, listener: socket.socket) -> list[socket.socket]:
    """Sockets to every other worker: to those of lower rank, then from those of higher."""
    sockets: list[socket.socket] = []
    for rank in range(workers.rank):
        other = socket.socket(socket.AF_UNIX)
        other.connect(str(folder / str(rank)))
        sockets.append(other)
    return sockets + [listener.accept()[0] for _ in range(workers.rank + 1, workers.world_size)]
