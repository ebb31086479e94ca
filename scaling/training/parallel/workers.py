"""This process among the workers of one trial, and what they tell each other."""

import gc
import json
import threading
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# Its functions' defaults are the default group of the moment it is imported, which DDP does later:
# they would keep a group, and its threads, beyond `leave_group`.
import torch.distributed.nn.functional
from numpy.typing import NDArray
from torch import Tensor

# torch has no other names for these.
from torch.distributed.distributed_c10d import (
    PrefixStore,
    _abort_process_group,  # pyright: ignore[reportPrivateUsage]
    _get_default_store,  # pyright: ignore[reportPrivateUsage]
)

LEAVE_SECONDS = 5.0  # ranks that wait in a collective for one that is gone never leave
TIMEOUT_SECONDS = 1800.0
"""How long one worker waits for another: metrics on the first one alone can take long."""
_TIMEOUT = timedelta(seconds=TIMEOUT_SECONDS)


@dataclass(frozen=True)
class Workers:
    """This process among those that train one trial, which are the default process group.

    Attributes:
        rank: 0 … world_size − 1.
        device: Where this worker computes.
        device_share: How much of it is this worker's.
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable
    device_share: float = 1.0

    def alone(self) -> "Workers":
        """This worker as one that has a trial to itself."""
        return replace(self, rank=0, world_size=1)

    def sum(self, *values: float) -> list[float]:
        """Element-wise sum of these numbers over the workers."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over the workers, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def from_first(self, value: float) -> float:
        """The value that the first worker has."""
        return self.all_from_first(value)[0]

    def all_from_first(self, *values: float) -> list[float]:
        """The values that the first worker has."""
        return self.sum(*(values if self.rank == 0 else (0.0,) * len(values)))

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, by rank, as JSON: what a peer sends can say something, not do it.

        Args:
            value: None, a truth value, number or text, or lists and dicts of these.
        """
        if self.world_size == 1:
            return [value]
        text = np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)
        return [json.loads(each.tobytes()) for each in self.gather_array(text)]

    def gather_array(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """Every worker's numbers [n], by rank; of one type, their counts may differ."""
        if self.world_size == 1:
            return [values]
        own = torch.from_numpy(values.copy())
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(own)]))
        longest = max(int(size) for size in sizes)
        parts = [own.new_zeros(longest) for _ in sizes]
        dist.all_gather(parts, torch.cat([own, own.new_zeros(longest - len(own))]))
        return [part[: int(size)].numpy() for part, size in zip(parts, sizes, strict=True)]

    def agree(self, text: str) -> str:
        """The first worker's text."""
        return self.gather(text if self.rank == 0 else "")[0]

    def part(self, num_items: int, *, rank: int | None = None) -> slice:
        """A worker's share of `num_items` items; the shares differ by one item at most.

        Args:
            num_items: To share.
            rank: Whose share; this worker's where left out.
        """
        which = self.rank if rank is None else rank
        first, last = (num_items * r // self.world_size for r in (which, which + 1))
        return slice(first, last)


def join_group(backend: str, address: str, *, rank: int, world_size: int) -> None:
    """Make this process one of a default process group, which meets at an address."""
    dist.init_process_group(
        backend, init_method=address, rank=rank, world_size=world_size, timeout=_TIMEOUT
    )


def leave_group() -> None:
    """Leave the default process group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


class StuckGroupError(RuntimeError):
    """A process cannot leave its process group, and must end itself to do so."""


class Meeting:
    """Makes one default process group after another, of processes that have one when it is made.

    A group that was left by an error may hold collectives that would pair with the next trial's,
    so that each attempt after an error has a group of its own.
    """

    def __init__(self) -> None:
        self._number: int | None = 0
        if dist.is_initialized():
            self._backend = str(dist.get_backend_config())
            self._store = _get_default_store()

    def join(self, number: int, workers: Workers) -> None:
        """Be in the group of a number: 0 is the one that there was at first.

        Args:
            number: Agreed on by those that join; each group has another one.
            workers: This process among exactly those.

        Raises:
            StuckGroupError: If this process cannot leave the group that it is in.
        """
        if number == self._number:
            return
        if not self.leave():
            raise StuckGroupError("this worker still waits in a collective of another trial")
        dist.init_process_group(
            self._backend, store=PrefixStore(f"group-{number}", self._store),
            rank=workers.rank, world_size=workers.world_size, timeout=_TIMEOUT,
        )  # fmt: skip
        self._number = number

    def leave(self) -> bool:
        """Leave the group at once; the others of it find their collectives broken.

        NCCL's part is aborted, which ends what it still waits for on this process's GPU: leaving
        in order waits for the others, and those that sit out a smaller trial leave later.

        Returns:
            Whether it was left within LEAVE_SECONDS. Gloo waits for a collective that has begun,
            and two that do not match may wait for each other.
        """
        self._number = None
        gc.collect()  # what holds a collective holds its connections
        leaving = threading.Thread(target=self._leave, daemon=True)
        leaving.start()
        leaving.join(LEAVE_SECONDS)
        return not leaving.is_alive()

    def _leave(self) -> None:
        if dist.is_initialized() and "nccl" in self._backend:
            _abort_process_group()
        leave_group()


def use_threads(num_threads: int) -> None:
    """Compute on this many threads of this process."""
    torch.set_num_threads(num_threads)


def take_device(device: torch.device, share: float) -> None:
    """Make a GPU this process's own, and take no more than a share of its memory."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if share < 1:
            torch.cuda.set_per_process_memory_fraction(share, device)


def release_memory(device: torch.device) -> None:
    """Give back what an ended trial held: cycles of Python objects, cached GPU memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
