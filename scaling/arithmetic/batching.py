"""Batch arithmetic: global batch = micro-batch × accumulation steps × workers; integers only."""

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache


@dataclass(frozen=True)
class BatchSplit:
    """How one global batch is spread over workers and over the forwards of each worker.

    Attributes:
        micro_batch_size: Examples per worker per forward.
        grad_accum_steps: Forwards of each worker per optimizer step.
        world_size: Data-parallel workers.
    """

    micro_batch_size: int
    grad_accum_steps: int
    world_size: int

    @property
    def global_batch_size(self) -> int:
        """Examples per optimizer step."""
        return self.micro_batch_size * self.grad_accum_steps * self.world_size


def split_batch(
    global_batch_size: int, *, world_size: int, micro_batch_size: int | None
) -> BatchSplit:
    """Spread a global batch evenly over workers, in the fewest equal forwards that fit.

    Args:
        global_batch_size: Examples per optimizer step.
        world_size: Data-parallel workers.
        micro_batch_size: Most examples per worker per forward; None for no bound.

    Returns:
        The split whose micro-batch is the largest divisor of a worker's share that is within
        the bound, so that every forward of every worker holds equally many examples.

    Raises:
        ValueError: If a size is not positive, or the workers cannot have equal shares; the
            message says the nearest batch sizes for which they can.
    """
    _require_positive("global_batch_size", global_batch_size)
    _require_positive("world_size", world_size)
    if micro_batch_size is not None:
        _require_positive("micro_batch_size", micro_batch_size)
    feasible = nearest_feasible(global_batch_size, world_size)
    if global_batch_size not in feasible:
        raise ValueError(
            f"global_batch_size {global_batch_size} is not a multiple of {world_size} workers; "
            f"nearest feasible: {' and '.join(map(str, feasible))}"
        )
    share = global_batch_size // world_size
    bound = share if micro_batch_size is None else micro_batch_size
    micro = _largest_divisor(share, at_most=bound)
    return BatchSplit(
        micro_batch_size=micro, grad_accum_steps=share // micro, world_size=world_size
    )


def nearest_feasible(global_batch_size: int, world_size: int) -> tuple[int, ...]:
    """The batch size itself where `world_size` divides it, else the multiples on both sides.

    A batch smaller than `world_size` has only the one above.
    """
    below = global_batch_size // world_size * world_size
    if below == global_batch_size:
        return (below,)
    return (below, below + world_size) if below else (world_size,)


@dataclass(frozen=True)
class BatchRamp:
    """A global batch that grows during a run, at numbers of examples seen.

    Attributes:
        first: Examples of the first step (the recipe's global_batch_size).
        at_examples: Rising; a step that starts at or after the k-th of them has `factor`^k times
            the first step's examples. Empty: the batch stays as it is.
        factor: At least 2.

    Source: Smith et al. 2018 (arXiv:1711.00489): growing the batch by a factor instead of
        lowering the rate by it keeps the scale of the gradient noise.
    """

    first: int
    at_examples: tuple[int, ...] = ()
    factor: int = 2

    @classmethod
    def every(cls, every_examples: int, *, first: int, factor: int, largest: int) -> "BatchRamp":
        """A ramp that grows each time so many examples were seen, up to a largest batch."""
        num_times = 0
        while first * factor ** (num_times + 1) <= largest:
            num_times += 1
        return cls(first, tuple(every_examples * k for k in range(1, num_times + 1)), factor)

    @property
    def skips(self) -> bool:
        """Whether some size has no step, since the one before already passes the next mark."""
        return sum(1 for _ in self._phases()) <= len(self.at_examples)

    def size_at(self, examples: int) -> int:
        """Examples of the step that starts after so many."""
        return self.first * self.factor ** bisect_right(self.at_examples, examples)

    def examples_after(self, steps: int) -> int:
        """Examples seen after so many steps."""
        return sum(size * num_steps for size, num_steps in self.sizes(steps))

    def steps_for(self, examples: int, *, min_steps: int) -> int:
        """The fewest steps that see so many examples, at least `min_steps`.

        Raises:
            ValueError: If `examples` or `min_steps` is negative, or the batch size not positive.
        """
        _require_positive("global_batch_size", self.first)
        if examples < 0 or min_steps < 0:
            raise ValueError(f"examples {examples} and min_steps {min_steps} must not be negative")
        start, step = 0, 0
        for size, num_steps in self._phases():
            if num_steps is None or start + num_steps * size >= examples:
                return max(min_steps, step + -(-(examples - start) // size))
            start, step = start + num_steps * size, step + num_steps
        raise AssertionError  # the last phase has no end

    def up_to(self, steps: int) -> "BatchRamp":
        """This ramp without what no step of a run of so many comes to."""
        last = self.examples_after(steps - 1) if steps > 0 else -1
        reached = tuple(mark for mark in self.at_examples if mark <= last)
        return replace(self, at_examples=reached)

    def sizes(self, steps: int) -> Iterator[tuple[int, int]]:
        """Batch sizes in turn, each with its number of steps, of a run of so many steps."""
        left = steps
        for size, num_steps in self._phases():
            taken = left if num_steps is None else min(left, num_steps)
            if taken:
                yield size, taken
            left -= taken

    def _phases(self) -> Iterator[tuple[int, int | None]]:
        """Sizes in turn, with the number of steps of that size; None for the last."""
        start = 0
        for end in self.at_examples:
            size = self.size_at(start)
            num_steps = max(0, -(-(end - start) // size))
            start += num_steps * size
            if num_steps:
                yield size, num_steps
        yield self.size_at(start), None


def _require_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} {value} must be at least 1")


@cache
def _largest_divisor(number: int, *, at_most: int) -> int:
    """The largest divisor of `number` that does not exceed `at_most`."""
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return max(d for pair in ((d, number // d) for d in small) for d in pair if d <= at_most)


def next_smaller(micro_batch_size: int, *, share: int) -> int | None:
    """The micro-batch to try when one is too large for the memory.

    Args:
        micro_batch_size: What did not fit.
        share: Examples of one worker in a step; a multiple of `micro_batch_size`.

    Returns:
        Half, or where that does not divide the share the largest divisor below; None for a
        micro-batch of one example, which cannot be cut.
    """
    if micro_batch_size == 1:
        return None
    return _largest_divisor(share, at_most=micro_batch_size // 2)
