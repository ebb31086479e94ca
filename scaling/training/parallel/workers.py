"""This process among the workers of one trial, and what they tell each other."""

import gc
import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# Its functions' defaults are the default group of the moment it is imported, which DDP does later:
# they would keep a group, and its threads, beyond `leave_group`.
import torch.distributed.nn.functional
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Workers:
    """This process among those that train one trial.

    Attributes:
        rank: 0 … world_size − 1.
        device: Where this worker computes.
        group: Process group of exactly these workers; None for the default group (or for one
            worker without any).
    """

    rank: int = 0
    world_size: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable
    group: Any = None

    def alone(self) -> "Workers":
        """This worker as one that has a trial to itself."""
        return replace(self, rank=0, world_size=1, group=None)

    def sum(self, *values: float) -> list[float]:
        """Element-wise sum of these numbers over the workers."""
        if self.world_size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, group=self.group)
        return tensor.tolist()

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Sum of a tensor over the workers, in place."""
        if self.world_size > 1:
            dist.all_reduce(tensor, group=self.group)
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
        dist.all_gather(sizes, torch.tensor([len(own)]), group=self.group)
        longest = max(int(size) for size in sizes)
        parts = [own.new_zeros(longest) for _ in sizes]
        dist.all_gather(parts, torch.cat([own, own.new_zeros(longest - len(own))]), self.group)
        return [part[: int(size)].numpy() for part, size in zip(parts, sizes, strict=True)]

    def agree(self, text: str) -> str:
        """The first worker's text."""
        return self.gather(text if self.rank == 0 else "")[0]

    def first(self, world_size: int) -> "Workers":
        """The first so many of these workers as a group of their own; called by its members."""
        if world_size == 1:
            return replace(self, world_size=1)
        ranks = list(range(world_size))
        group = dist.new_group(ranks, use_local_synchronization=True)
        return replace(self, world_size=world_size, group=group)

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
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=world_size)


def leave_group() -> None:
    """Leave the default process group, where there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def use_threads(num_threads: int) -> None:
    """Compute on this many threads of this process."""
    torch.set_num_threads(num_threads)


def release_memory(device: torch.device) -> None:
    """Give back what an ended trial held: cycles of Python objects, cached GPU memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def exempt_loaded() -> None:
    """Let later garbage collections pass over what this process has loaded by now.

    A collection looks at every object of torch and transformers, a fifth of a second between any
    two trials, and they stay to the process's end.
    """
    gc.collect()
    gc.freeze()
