"""A few of many combinations that have every pair of values that the many have."""

from collections.abc import Hashable, Sequence
from itertools import combinations
from typing import TypeVar

Row = TypeVar("Row", bound=tuple[Hashable, ...])
Pair = tuple[tuple[int, Hashable], tuple[int, Hashable]]


def pairs_of(row: Sequence[Hashable]) -> set[Pair]:
    """The pairs of values of one combination, each value with its place."""
    return set(combinations(enumerate(row), 2))


def covering(rows: Sequence[Row]) -> list[Row]:
    """Rows among these with every pair of values of two columns that any of them has.

    Greedy, the first of the rows that bring most: not the fewest possible, and always the same.
    Whatever fails by two values together, fails in one of them.
    """
    missing = set().union(*map(pairs_of, rows))
    chosen: list[Row] = []
    while missing:
        best = max(rows, key=lambda row: len(missing & pairs_of(row)))
        missing -= pairs_of(best)
        chosen.append(best)
    return chosen
