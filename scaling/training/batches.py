"""Micro-batches on their way to the device, the next one made while one is computed with."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

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
    changes nothing; a batch that was expected and not asked for is dropped.

    Args:
        task: Collates.
        seed: The trial's.
        device: Where the batches go.
        looks_ahead: Whether one batch is collated in a thread while another is computed with. On
            a CPU the thread would only take time from the computing.
    """

    def __init__(self, task: Task, seed: int, device: torch.device, *, looks_ahead: bool) -> None:
        if device.type == "cuda" and isinstance(task, PaddingTask):
            task = task.padded_to(LENGTH_MULTIPLE)
        self._task, self._seed, self._device = task, seed, device
        self._collator = ThreadPoolExecutor(1, "collate") if looks_ahead else None
        self._expected: tuple[Indices, Future[AnyBatch]] | None = None

    @property
    def looks_ahead(self) -> bool:
        """Whether `expect` is of use."""
        return self._collator is not None

    def of(self, parts: Sequence[Indices]) -> Iterator[AnyBatch]:
        """The batch of each part, on the device."""
        for number, part in enumerate(parts, start=1):
            batch = self._taken(part)
            if number < len(parts):
                self.expect(parts[number])
            yield on_device(batch, self._device)

    def expect(self, part: Indices) -> None:
        """Begin with the batch that will be asked for next."""
        if self._collator is not None:
            self._expected = part, self._collator.submit(self._collated, part)

    def _taken(self, part: Indices) -> AnyBatch:
        expected, self._expected = self._expected, None
        if expected is not None and np.array_equal(expected[0], part):
            return expected[1].result()
        return self._collated(part)

    def _collated(self, part: Indices) -> AnyBatch:
        batch = self._task.collate(part, self._seed)
        if self._device.type != "cuda":
            return batch
        # Only from pinned memory does a copy to the GPU run beside the computing.
        return pinned(batch)
