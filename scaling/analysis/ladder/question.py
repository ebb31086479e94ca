"""What is asked of runs of several sizes."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class LadderQuestion:
    """What is asked of runs of several sizes.

    Attributes:
        scale: Names of the one or two numbers that a size is.
        predict: The sizes asked for, each by those names, in the order asked.
        tokens_per_example: Tokens in one unit of the batch; None where that is not known.
        other_scales: Other names of the same numbers, as parameters may be counted with embeddings
            or without; the back-test decides which to use.
        is_study: Whether a study's own ladder asks, and not a table's columns.
    """

    scale: tuple[str, ...]
    predict: tuple[Mapping[str, float], ...] = ()
    tokens_per_example: float | None = None
    other_scales: tuple[tuple[str, ...], ...] = ()
    is_study: bool = False
