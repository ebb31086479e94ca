"""How a global batch is cut into micro-batches and dealt to workers, so that little is padding.

The loss is a sum over targets divided by their number in the whole batch, so the gradient does
not depend on the cut; only its cost does.
"""

import math

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]

# What one more forward and backward pass costs a CPU beside its tokens, as a number of tokens;
# measured with models of width 64, and less with wider ones: docs/log.md.
PASS_COST_TOKENS = 96
# A part of more tokens no longer fits into a CPU's caches, and its tensors are so large that each
# is given back to the system and asked for again: a tenth slower at 6,144 and 24,576 tokens.
MAX_CACHED_TOKENS = 4096


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


def cheapest_num_parts(lengths: IntArray, *, at_least: int) -> int:
    """Into how many parts a CPU computes a batch soonest, each cut saving padding and costing time.

    Args:
        lengths: [B] tokens of each example; zeros where examples cost nothing of their own.
        at_least: Parts that there must be, at most B.

    Returns:
        `at_least` × a power of two, at most B.
    """
    needed, num_tokens = at_least, int(lengths.sum())
    while num_tokens > needed * MAX_CACHED_TOKENS and 2 * needed <= len(lengths):
        needed *= 2
    found, cost = needed, _cost(lengths, needed)
    while 2 * found <= len(lengths) and num_tokens + 2 * found * PASS_COST_TOKENS < cost:
        finer = _cost(lengths, 2 * found)
        if finer >= cost:
            break
        found, cost = 2 * found, finer
    return found


def _cost(lengths: IntArray, num_parts: int) -> int:
    """Tokens with padding, and those that the passes take the time of."""
    longest = int(lengths.max())
    if longest == lengths.min():
        return len(lengths) * longest + num_parts * PASS_COST_TOKENS
    parts = cut_by_length(lengths, num_parts=num_parts)
    padded = sum(len(part) * int(lengths[part[-1]]) for part in parts)
    return padded + num_parts * PASS_COST_TOKENS


def dealt(parts: list[IntArray], *, rank: int, world_size: int) -> list[IntArray]:
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
    low, high = longest, longest * math.ceil(len(longest_first) / num_parts)
    while low < high:
        middle = (low + high) // 2
        if len(_sizes(longest_first, middle)) <= num_parts:
            high = middle
        else:
            low = middle + 1
    return low


def _sizes(longest_first: IntArray, cost: int) -> list[int]:
    """Examples of each part where no part may cost more."""
    sizes: list[int] = []
    start = 0
    while start < len(longest_first):
        size = min(cost // max(1, int(longest_first[start])), len(longest_first) - start)
        sizes.append(size)
        start += size
    return sizes
