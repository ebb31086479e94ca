"""Which examples a step trains on: from the seed and the step alone.

The order is a stream of permutations of the train set, cut into global batches. It does not
depend on the number of workers, the micro-batch or where a run was interrupted, and no last
partial batch of an epoch is dropped.
"""

import random
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scaling.tasks.task import Task


def order_of(task: Task, seed: int) -> "DataOrder":
    """A task's training examples in a trial's order."""
    return DataOrder(seed, task.num_train, counts_epochs=task.draws_examples)


def set_chance(seed: int, position: int, rank: int) -> None:
    """Let what draws from Python's or numpy's generator begin anew, from where a step begins.

    So a trial is a function of its seed, and a checkpoint needs no state of theirs. torch's goes
    on from step to step.

    Args:
        seed: The trial's.
        position: Of the step's first example in the stream.
        rank: Of the worker among those that share a batch.
    """
    chance = int(np.random.SeedSequence((seed, position, rank)).generate_state(1)[0])
    random.seed(chance)
    np.random.seed(chance)  # noqa: NPY002  # what user code draws from


@dataclass
class DataOrder:
    """Numbers of training examples by their position in the stream.

    Attributes:
        num_train: Examples in the train set; None for an endless one, where an example's number
            is its position.
        counts_epochs: Whether an example has another number in each epoch, `num_train` more than
            in the one before: of examples that are drawn anew each time.
    """

    seed: int
    num_train: int | None
    counts_epochs: bool = False
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
        numbers = np.concatenate(parts)
        return numbers + epochs * self.num_train if self.counts_epochs else numbers
