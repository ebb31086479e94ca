"""Micro-batches on their way to the device, the next one made while a GPU computes with one."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from scaling.tasks.batch import on_device, pinned
from scaling.tasks.padding import LENGTH_MULTIPLE
from scaling.tasks.task import AnyBatch, PaddingTask, Task

Indices = NDArray[np.int64]


class Batches:
    """Collates micro-batches in the order that they are asked for.

    What is in a batch depends on the examples' numbers and the seed alone, so collating it early
    changes nothing; a batch that was expected and not asked for is dropped. No thread collates:
    what a user's data hold may be of the thread that opened it, or not to be read by two at once,
    and a GPU computes meanwhile all the same.

    Args:
        task: Collates.
        seed: The trial's.
        device: Where the batches go.
        looks_ahead: Whether a batch is collated when it is expected. On a CPU that is as good when
            it is asked for.
    """

    def __init__(self, task: Task, seed: int, device: torch.device, *, looks_ahead: bool) -> None:
        if device.type == "cuda" and isinstance(task, PaddingTask):
            task = task.padded_to(LENGTH_MULTIPLE)
        self._task, self._seed, self._device = task, seed, device
        self.looks_ahead = looks_ahead
        self._expected: tuple[Indices, AnyBatch] | None = None

    def of(self, parts: Sequence[Indices]) -> Iterator[AnyBatch]:
        """The batch of each part, on the device."""
        for part in parts:
            yield on_device(self._taken(part), self._device)

    def expect(self, part: Indices) -> None:
        """Collate the batch that will probably be asked for next.

        What fails then is tried again, and raised, when it is asked for: the run may end before.
        """
        self._expected = None
        if self.looks_ahead:
            with contextlib.suppress(Exception):
                self._expected = part, self._collated(part)

    def _taken(self, part: Indices) -> AnyBatch:
        expected, self._expected = self._expected, None
        if expected is not None and np.array_equal(expected[0], part):
            return expected[1]
        return self._collated(part)

    def _collated(self, part: Indices) -> AnyBatch:
        batch = self._task.collate(part, self._seed)
        if self._device.type != "cuda":
            return batch
        # Only from pinned memory does a copy to the GPU run beside the computing.
        return pinned(batch)
