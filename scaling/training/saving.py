"""Checkpoints on their way to the store, in a thread, while training goes on."""

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from scaling.files.shown_error import first_line
from scaling.training.checkpoint import CheckpointStore
from scaling.training.checkpoint_check import State

T = TypeVar("T")

MOST_PINNED_BYTES = 2**30
"""Of a state's copy in pinned memory, which torch rounds up and keeps for the process's life."""


class Writer:
    """Writes one worker's parts, one at a time.

    Attributes:
        processor_seconds: Of the thread, for the last part that was written.
    """

    def __init__(self, store: CheckpointStore, rank: int) -> None:
        self._store, self._rank = store, rank
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._pending: Future[str | None] | None = None
        self.processor_seconds = 0.0

    def start(self, step: int, state: State) -> None:
        """Begin to write a state that nothing changes any more; the one before is finished."""
        self._pending = self._thread.submit(self._write, step, state)

    @property
    def is_busy(self) -> bool:
        """Whether a part is being written."""
        return self._pending is not None and not self._pending.done()

    def finish(self) -> str | None:
        """Wait for the part that is being written; why it could not be, or None."""
        pending, self._pending = self._pending, None
        return pending.result() if pending is not None else None

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown()

    def _write(self, step: int, state: State) -> str | None:
        started = time.thread_time()
        try:
            self._store.save(step, state, self._rank)
        except OSError as error:
            return error.strerror or first_line(error)
        finally:
            self.processor_seconds = time.thread_time() - started
        return None


def copied(value: T) -> T:
    """The same with a copy in the host's memory of every tensor, tensors that are one still one.

    From a GPU they are copied at once, into pinned memory as far as that goes, and waited for once.

    Args:
        value: Tensors in mappings, lists and tuples.
    """
    copies = _Copies()
    result = copies.of(value)
    for device in {key[0] for key in copies.made if key[0].type == "cuda"}:
        torch.cuda.synchronize(device)
    return result


class _Copies:
    """The copies of one state, `made` by what tells a tensor from others."""

    def __init__(self) -> None:
        self.made: dict[tuple[Any, ...], Tensor] = {}
        self._pinned_bytes = 0

    def of(self, value: Any) -> Any:
        """The same with copies of its tensors."""
        if isinstance(value, Tensor):
            place = value.untyped_storage().data_ptr(), value.storage_offset()
            key = (value.device, *place, value.dtype, value.shape, value.stride())
            if key not in self.made:
                self.made[key] = self._in_host_memory(value.detach())
            return self.made[key]
        if isinstance(value, Mapping):
            return {name: self.of(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.of(item) for item in value)
        return value

    def _in_host_memory(self, tensor: Tensor) -> Tensor:
        if tensor.device.type != "cuda":
            return tensor.clone()
        self._pinned_bytes += tensor.nbytes
        if self._pinned_bytes > MOST_PINNED_BYTES:
            return tensor.cpu()
        copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
        return copy.copy_(tensor, non_blocking=True)
