"""What a coverage case is: studies with a planted truth, and what their summary must get right."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.analysis.trial_rows import Sweep


@dataclass(frozen=True)
class Reading:
    """An interval of one summary, beside the truth; None where there is not enough data."""

    quantity: str
    interval: Sequence[float | None] | None
    truth: float


@dataclass(frozen=True)
class Flag:
    """A flag that one summary raised or not."""

    quantity: str
    raised: bool


@dataclass(frozen=True)
class Case:
    """Studies of one kind.

    Attributes:
        name: Of the case, unique.
        sweep: Draws the study with a number (0, 1, …), which may decide about its kind.
        read: What its summary.json says, as readings and flags.
    """

    name: str
    sweep: Callable[[np.random.Generator, int], Sweep]
    read: Callable[[dict[str, Any], int], list[Reading | Flag]]
