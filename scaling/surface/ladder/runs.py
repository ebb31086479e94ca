"""Runs of several sizes: what a ladder is fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling.surface.space import Array, Labels


@dataclass(frozen=True)
class Runs:
    """Finished runs of models or data of several sizes.

    Attributes:
        rate: [n] peak learning rates.
        batch: [n] batch sizes, in any unit.
        loss: [n] positive losses; NaN where a run diverged.
        size: [n] which size each run has.
        scales: [sizes, axes] the positive numbers that a size is: parameters, tokens, compute.
    """

    rate: Array
    batch: Array
    loss: Array
    size: Labels
    scales: Array

    @property
    def num_sizes(self) -> int:
        """How many sizes there are."""
        return len(self.scales)

    @property
    def compute(self) -> Array:
        """[sizes] the product of each size's numbers, which training compute grows with."""
        return self.scales.prod(axis=1)

    def take(self, sizes: Sequence[int]) -> "Runs":
        """The runs of some sizes, in the order given."""
        chosen = np.concatenate([np.flatnonzero(self.size == size) for size in sizes])
        place = np.full(self.num_sizes, -1, dtype=np.intp)
        place[list(sizes)] = np.arange(len(sizes))
        return Runs(
            self.rate[chosen], self.batch[chosen], self.loss[chosen], place[self.size[chosen]],
            self.scales[list(sizes)],
        )  # fmt: skip

    def lowest(self, most: int) -> "Runs":
        """Of each size the runs with the lowest losses, at most so many."""
        order = np.argsort(self.loss, kind="stable")  # NaN comes last
        own = [order[self.size[order] == size][:most] for size in range(self.num_sizes)]
        kept = np.concatenate(own)
        return Runs(
            self.rate[kept], self.batch[kept], self.loss[kept], self.size[kept], self.scales
        )
