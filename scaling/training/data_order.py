"""Which examples a step trains on: from the seed and the step alone.

The order is a stream of permutations of the train set, cut into global batches. It does not
depend on the number of workers, the micro-batch or where a run was interrupted, and no last
partial batch of an epoch is dropped.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass
class DataOrder:
    """Numbers of training examples by their position in the stream.

    Attributes:
        seed: The trial's.
        num_train: Examples in the train set; None for an endless one, where an example's number
            is its position.
    """

    seed: int
    num_train: int | None
    _epochs: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)

    def indices(self, start: int, stop: int) -> NDArray[np.int64]:
        """Training examples at the stream's positions start … stop − 1."""
        positions = np.arange(start, stop)
        if self.num_train is None:
            return positions
        epochs, places = np.divmod(positions, self.num_train)
        first, last = int(epochs[0]), int(epochs[-1])
        for epoch in range(first, last + 1):
            if epoch not in self._epochs:
                generator = np.random.default_rng((self.seed, epoch))
                self._epochs[epoch] = generator.permutation(self.num_train)
        self._epochs = {e: order for e, order in self._epochs.items() if e >= first}
        parts = [self._epochs[e][places[epochs == e]] for e in range(first, last + 1)]
        return np.concatenate(parts)
