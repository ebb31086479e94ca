"""Sequences of different lengths in one flat array, padded only when a batch is made."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Ragged:
    """N integer sequences.

    Attributes:
        flat: All sequences, one after another.
        starts: [N] where each begins in `flat`.
        lengths: [N] how long each is.
    """

    flat: IntArray
    starts: IntArray
    lengths: IntArray

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int] | IntArray]) -> "Ragged":
        """Pack sequences; at least one, none empty."""
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        flat = np.fromiter((i for s in sequences for i in s), dtype=np.int64, count=lengths.sum())
        return cls(flat, np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)

    def padded(self, indices: IntArray, pad: int) -> tuple[IntArray, NDArray[np.bool_]]:
        """The sequences of these numbers as a matrix, and where it holds real values.

        Returns:
            [B, L] values, `pad` on the right, and [B, L] True where the value is real; L is the
            longest of these sequences.
        """
        lengths = self.lengths[indices]
        columns = np.arange(lengths.max())
        real = columns < lengths[:, None]
        places = np.where(real, self.starts[indices][:, None] + columns, 0)
        return np.where(real, self.flat[places], pad), real


def by_length(lengths: IntArray, micro_batch_size: int) -> list[IntArray]:
    """Numbers 0…N−1 in groups of similar length, so that little padding is computed on."""
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + micro_batch_size] for i in range(0, len(order), micro_batch_size)]
