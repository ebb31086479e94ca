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
    """

    scale: tuple[str, ...]
    predict: tuple[Mapping[str, float], ...] = ()
    tokens_per_example: float | None = None
