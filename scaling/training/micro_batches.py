"""How a global batch is cut into micro-batches and shared among workers, so that little is padding.

The loss is a sum over targets divided by their number in the whole batch, so the gradient does
not depend on the cut; only its cost does.
"""

import math
from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class PassCost:
    """What a forward and backward pass costs a device, as a number of tokens.

    Attributes:
        beside: For one more pass, beside its tokens.
        least: A pass of fewer takes as long as one of so many.
        most: A part of more is slower for each of its tokens.
    """

    beside: int = 0
    least: int = 0
    most: float = math.inf


# One more pass was measured with models of width 64, and is less with wider ones: docs/log.md. A
# part of more tokens no longer fits into a CPU's caches, and its tensors are so large that each is
# given back to the system and asked for again: a tenth slower at 6,144 and 24,576 tokens.
ON_CPU = PassCost(beside=96, most=4096)
# So many rows keep the multiprocessors of a large GPU busy in products of a model's width (8,192 x
# 768 are 384 tiles of 128 x 128 for 132 of them); not measured on one.
ON_GPU = PassCost(least=8192)


def cut_by_length(lengths: IntArray, *, num_parts: int) -> list[IntArray]:
    """Cut a batch into parts that cost about the same, examples of similar length together.

    A part costs its number of examples times its longest one, what it takes after padding. A part
    of short examples holds more of them than one of long ones; none costs more than the equal
    share of examples would, all as long as the longest.

    Args:
        lengths: [B] tokens of each example.
        num_parts: At most B.

    Returns:
        Exactly `num_parts` arrays of positions in the batch, none empty, from the shortest
        examples to the longest; where all are of one length, the batch in its own order.
    """
    order = np.argsort(lengths, kind="stable")
    # The longest first: then each part is as large as its first example allows.
    longest_first = lengths[order][::-1]
    sizes = _sizes(longest_first, _least_cost(longest_first, num_parts))
    while len(sizes) < num_parts:
        largest = sizes.index(max(sizes))
        half = sizes[largest] // 2
        sizes[largest : largest + 1] = [sizes[largest] - half, half]
    ends = len(order) - np.cumsum(sizes[:-1], dtype=np.int64)
    return np.split(order, ends[::-1])


def cheapest_num_parts(lengths: IntArray, cost: PassCost, *, at_least: int) -> int:
    """Into how many parts a device computes a batch soonest; a cut saves padding and costs time.

    Args:
        lengths: [B] tokens of each example; zeros where examples cost nothing of their own.
        cost: Of a pass on this device.
        at_least: Parts that there must be, at most B.

    Returns:
        `at_least` × a power of two, at most B.
    """
    needed, num_tokens = at_least, int(lengths.sum())
    while num_tokens > needed * cost.most and 2 * needed <= len(lengths):
        needed *= 2
    found, tokens = needed, _tokens(lengths, needed, cost)
    while 2 * found <= len(lengths) and num_tokens + 2 * found * cost.beside < tokens:
        finer = _tokens(lengths, 2 * found, cost)
        if finer >= tokens:
            break
        found, tokens = 2 * found, finer
    return found


def _tokens(lengths: IntArray, num_parts: int, cost: PassCost) -> int:
    """Tokens with padding, and those that the passes take the time of."""
    longest = int(lengths.max())
    if longest == lengths.min():
        padded = [math.ceil(len(lengths) / num_parts) * longest] * num_parts
        if not cost.least:
            padded = [len(lengths) * longest]
    else:
        parts = cut_by_length(lengths, num_parts=num_parts)
        padded = [len(part) * int(lengths[part[-1]]) for part in parts]
    return sum(max(size, cost.least) for size in padded) + num_parts * cost.beside


def parts_of_worker(parts: list[IntArray], *, rank: int, world_size: int) -> list[IntArray]:
    """One worker's parts, in order.

    They go back and forth over the workers, so that none gets the longer one each time.

    Args:
        parts: A multiple of `world_size`.
        rank: Of the worker.
        world_size: Workers that share them.
    """
    rounds = len(parts) // world_size
    return [
        parts[number * world_size + (rank if number % 2 == 0 else world_size - 1 - rank)]
        for number in range(rounds)
    ]


def _least_cost(longest_first: IntArray, num_parts: int) -> int:
    """The smallest cost of a part with which `num_parts` parts are enough."""
    longest = max(1, int(longest_first[0]))
    costs = range(longest, longest * math.ceil(len(longest_first) / num_parts))
    enough = bisect_left(costs, x=True, key=lambda c: len(_sizes(longest_first, c)) <= num_parts)
    return longest + enough


def _sizes(longest_first: IntArray, cost: int) -> list[int]:
    """Examples of each part where no part may cost more."""
    sizes: list[int] = []
    start = 0
    while start < len(longest_first):
        size = min(cost // max(1, int(longest_first[start])), len(longest_first) - start)
        sizes.append(size)
        start += size
    return sizes
