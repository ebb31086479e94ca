"""What a plan shows of a study's data: rows, examples, classes and lengths of each split."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling.tasks.data.ragged import IntArray
from scaling.tasks.data.rows import SPLITS, Row, Split


@dataclass(frozen=True)
class SplitSummary:
    """One split of the data as it is trained or evaluated on.

    Attributes:
        split: Its name.
        num_rows: Rows of the source that are in it.
        num_examples: Examples that they make; a long document makes several.
        class_counts: Rows of each class (text_classification) or words of each tag
            (token_classification), by name; empty for the other tasks.
        tokens_min, tokens_median, tokens_max: Tokens of an example, padding aside.
        num_truncated: Rows of which something is cut off, and read nowhere, at max_length.
    """

    split: str
    num_rows: int
    num_examples: int
    class_counts: dict[str, int]
    tokens_min: int
    tokens_median: float
    tokens_max: int
    num_truncated: int


@dataclass(frozen=True)
class DataSummary:
    """All splits, and what was done to the data on the way.

    Attributes:
        notes: English sentences, as in "3 labels had blanks around them, which were removed."
    """

    splits: tuple[SplitSummary, ...]
    notes: tuple[str, ...]


def summarize(
    rows: Mapping[Split, Sequence[Row]],
    lengths: Mapping[Split, IntArray],
    num_truncated: Mapping[Split, int],
    notes: tuple[str, ...],
) -> DataSummary:
    """The summary of encoded splits.

    Args:
        rows: By split.
        lengths: [N] tokens of each example, by split.
        num_truncated: By split.
        notes: What to say beside.
    """
    return DataSummary(
        tuple(
            SplitSummary(
                split,
                num_rows=len(rows[split]),
                num_examples=len(lengths[split]),
                class_counts=dict(sorted(_classes(rows[split]).items())),
                tokens_min=int(lengths[split].min()),
                tokens_median=float(np.median(lengths[split])),
                tokens_max=int(lengths[split].max()),
                num_truncated=int(num_truncated[split]),
            )
            for split in SPLITS
        ),
        notes,
    )


def _classes(rows: Sequence[Row]) -> Counter[str]:
    labels = Counter(row.label for row in rows if row.label is not None)
    return labels + Counter(tag for row in rows for tag in row.tags)
