"""What a plan shows of a study's data: rows, examples, classes and lengths of each split."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SplitSummary:
    """One split of the data as it is trained or evaluated on.

    Attributes:
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
        waived: Sentences on why results depend on more than the recipe, which the study accepts.
        in_report: Notes that the report has at its top too.
    """

    splits: tuple[SplitSummary, ...]
    notes: tuple[str, ...]
    waived: tuple[str, ...] = ()
    in_report: tuple[str, ...] = ()
