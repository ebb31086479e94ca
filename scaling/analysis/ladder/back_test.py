"""The largest sizes, each left out and predicted from those of less compute."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling.analysis.ladder.formulas import formulas
from scaling.analysis.ladder.own_surface import OwnSurface
from scaling.analysis.ladder.question import LadderQuestion
from scaling.analysis.ladder.runs import LadderRun, as_arrays, sizes_of
from scaling.analysis.statistics.uncertainty import Estimate, Interval
from scaling.surface.ladder.ladder import Ladder

FEWEST_LEFT = 3
"""Sizes that a prediction is made from, at least."""
_SHARE = 1 / 3


@dataclass(frozen=True)
class LeftOut:
    """One size that was left out.

    Attributes:
        batch: As predicted from the sizes of less compute, like the rest.
        own_batch: At the bottom of its own surface.
        regret: The loss at the prediction over the size's least, minus 1.
        regret_copied: Of the lowest recipe of the next smaller size.
        regret_formulas: Of each published formula that applies.
    """

    scale: tuple[float, ...]
    batch: float
    batch_interval: Interval
    rate: float
    rate_interval: Interval
    own_batch: float
    own_rate: float
    regret: Estimate
    regret_copied: Estimate
    regret_formulas: Mapping[str, Estimate]

    @property
    def is_inside(self) -> bool:
        """Whether its own best rate and batch lie in both intervals."""
        return (
            self.rate_interval[0] <= self.own_rate <= self.rate_interval[1]
            and self.batch_interval[0] <= self.own_batch <= self.batch_interval[1]
        )


def left_out_sizes(sizes: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """The largest third by compute, at least one, as far as three of less compute remain."""
    wanted = math.ceil(len(sizes) * _SHARE)
    return [
        size
        for size in sizes[-wanted:]
        if sum(math.prod(other) < math.prod(size) for other in sizes) >= FEWEST_LEFT
    ]


def back_test(runs: Sequence[LadderRun], question: LadderQuestion) -> tuple[LeftOut, ...]:
    """Each of the largest sizes predicted from those of less compute, and by its own runs."""
    sizes = sizes_of(runs)
    return tuple(_left_out(runs, size, question) for size in left_out_sizes(sizes))


def _left_out(
    runs: Sequence[LadderRun], size: tuple[float, ...], question: LadderQuestion
) -> LeftOut:
    smaller = [run for run in runs if math.prod(run.scale) < math.prod(size)]
    arrays = as_arrays(smaller)
    found = Ladder(arrays).predict(np.array(size))
    own = OwnSurface([run for run in runs if run.scale == size])
    next_smaller = sizes_of(smaller)[-1]
    copied = min(
        (run for run in smaller if run.scale == next_smaller and run.loss is not None),
        key=lambda run: run.loss or math.inf,
    )
    published = {
        name: own.regret(
            recipe.rate or found.path([recipe.batch])[0].rate, recipe.batch
        )
        for name, recipe in formulas(question, size, own.loss).items()
    }  # fmt: skip
    return LeftOut(
        scale=size,
        batch=found.batch,
        batch_interval=found.batch_interval,
        rate=found.rate,
        rate_interval=found.rate_interval,
        own_batch=own.best[1],
        own_rate=own.best[0],
        regret=own.regret(found.rate, found.batch),
        regret_copied=own.regret(copied.peak_lr, copied.global_batch_size),
        regret_formulas=published,
    )


def preferred_scale(
    runs: Mapping[tuple[str, ...], Sequence[LadderRun]], tokens_per_example: float | None = None
) -> tuple[str, ...]:
    """Which numbers a size is best counted by, as parameters with or without embeddings.

    Args:
        runs: The same runs by each candidate's names, with its numbers as their scale.
        tokens_per_example: See `LadderQuestion`.

    Returns:
        The names with the least mean regret in the back-test, the first ones where it cannot tell.
    """

    def mean_regret(names: tuple[str, ...]) -> float:
        tested = back_test(runs[names], LadderQuestion(names, (), tokens_per_example))
        regrets = [size.regret.value or 0.0 for size in tested]
        return sum(regrets) / len(regrets) if regrets else math.inf

    return min(runs, key=mean_regret)
