"""All that runs of several sizes say: exponents, predictions, and the back-test."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls  # pyright: ignore -- scipy ships no types
from threadpoolctl import threadpool_limits  # pyright: ignore -- it ships no types

from scaling.analysis.ladder.back_test import LeftOut, back_test
from scaling.analysis.ladder.loss_law import ExpectedLoss, expected_losses
from scaling.analysis.ladder.question import LadderQuestion
from scaling.analysis.ladder.runs import LadderRun, as_arrays
from scaling.analysis.statistics.uncertainty import Estimate, Interval, of_draws
from scaling.surface.ladder.ladder import Ladder, Prediction, RateOfBatch
from scaling.surface.ladder.runs import Runs

_FORCED = 3
"""Doublings of the predicted batch, up and down, that the path has rates for."""
_NUM_IN_BAND = 17
_NEARLY = math.log(1.05)
"""How far a size may lie beside the others, whose numbers are rounded."""


@dataclass(frozen=True)
class PredictedSize:
    """What to run at one size.

    Attributes:
        batch: In the unit of the runs, a whole number.
        rate: The best one for that batch.
        compute_factor: The product of its numbers over the largest such product in the fit.
        path: The best rate at powers of two around the batch.
        is_interpolated: Whether it takes no more compute than the largest size that was run, and
            lies between the sizes that were, in the logarithms of its numbers.
        is_least_batch: Whether the batch is the smallest one that ran.
    """

    scale: tuple[float, ...]
    batch: int
    batch_interval: Interval
    rate: float
    rate_interval: Interval
    expected_regret: float
    compute_factor: float
    path: tuple[RateOfBatch, ...]
    loss: ExpectedLoss
    is_interpolated: bool
    is_least_batch: bool = False


@dataclass(frozen=True)
class FittedSize:
    """What the fit says of a size that was run.

    Attributes:
        loss: The least one, by the fit.
    """

    scale: tuple[float, ...]
    batch: float
    batch_interval: Interval
    rate: float
    rate_interval: Interval
    loss: float


@dataclass(frozen=True)
class BandPoint:
    """The intervals of the best rate and batch at one size, as if it had not been run."""

    scale: tuple[float, ...]
    rate_interval: Interval
    batch_interval: Interval


@dataclass(frozen=True)
class LadderReading:
    """What runs of several sizes say.

    Attributes:
        sizes: Those that were run, by rising compute.
        exponents: Of the best rate and of the best batch in each number of a size, at the largest.
        predictions: In the order asked.
        back_test: The largest sizes, each left out; empty with fewer than four.
        band: The fit between the sizes and up to the largest one asked for, along the straight
            line (of logarithms) from the smallest size to the largest.
    """

    question: LadderQuestion
    sizes: tuple[FittedSize, ...]
    exponents: Mapping[str, tuple[Estimate, Estimate]]
    predictions: tuple[PredictedSize, ...]
    back_test: tuple[LeftOut, ...]
    band: tuple[BandPoint, ...]

    @property
    def largest(self) -> tuple[float, ...]:
        """The size with the most compute in the fit."""
        return self.sizes[-1].scale


def read_ladder(runs: Sequence[LadderRun], question: LadderQuestion) -> LadderReading:
    """The reading.

    Args:
        runs: That `problem_of` has nothing against.
        question: What is asked of them.
    """
    with threadpool_limits(1):
        arrays = as_arrays(runs)
        ladder = Ladder(arrays)
        floors = np.exp(ladder.valley.floors / 100)
        wanted = [tuple(size[name] for name in question.scale) for size in question.predict]
        losses = expected_losses(arrays.scales, floors, wanted) if wanted else []
        return LadderReading(
            question=question,
            sizes=tuple(
                _fitted_size(ladder.predict(scale), float(floors[n]))
                for n, scale in enumerate(arrays.scales)
            ),
            exponents=_exponents(ladder, question),
            predictions=tuple(
                _predicted(ladder.predict(np.array(size)), loss, arrays)
                for size, loss in zip(wanted, losses, strict=True)
            ),
            back_test=back_test(runs, question),
            band=_band(ladder, wanted),
        )


def _band(ladder: Ladder, wanted: Sequence[tuple[float, ...]]) -> tuple[BandPoint, ...]:
    every = np.array([*ladder.runs.scales.tolist(), *wanted])
    order = every.prod(axis=1)
    ends = every[order.argmin()], every[order.argmax()]
    along = np.geomspace(*ends, _NUM_IN_BAND)
    found = [ladder.predict(scale, is_new=True) for scale in along]
    return tuple(
        BandPoint(tuple(f.scales.tolist()), f.rate_interval, f.batch_interval) for f in found
    )


def _exponents(ladder: Ladder, question: LadderQuestion) -> dict[str, tuple[Estimate, Estimate]]:
    largest = ladder.runs.scales[int(ladder.runs.compute.argmax())]
    draws = ladder.exponents(largest)
    return {
        name: (of_draws(draws[:, axis, 0]), of_draws(draws[:, axis, 1]))
        for axis, name in enumerate(question.scale)
    }


def _fitted_size(found: Prediction, loss: float) -> FittedSize:
    scale = tuple(found.scales.tolist())
    return FittedSize(
        scale, found.batch, found.batch_interval, found.rate, found.rate_interval, loss
    )


def _predicted(found: Prediction, loss: ExpectedLoss, runs: Runs) -> PredictedSize:
    batch = max(round(found.batch), 1)
    middle = round(math.log2(batch))
    powers = range(max(middle - _FORCED, 0), middle + _FORCED + 1)
    factor = float(found.scales.prod() / runs.compute.max())
    return PredictedSize(
        scale=tuple(found.scales.tolist()),
        batch=batch,
        batch_interval=found.batch_interval,
        rate=found.rate,
        rate_interval=found.rate_interval,
        expected_regret=found.expected_regret(found.rate, batch),
        compute_factor=factor,
        path=tuple(found.path([2**power for power in powers])),
        loss=loss,
        is_interpolated=factor <= 1 and _is_between(runs.scales, found.scales),
        is_least_batch=found.is_least,
    )


def _is_between(sizes: NDArray[np.float64], size: NDArray[np.float64]) -> bool:
    """Whether a size is in the convex hull of others, nearly: they may lie on a line.

    Args:
        sizes: [sizes, axes], above 0.
        size: [axes].
    """
    away = np.log(sizes / size).T
    shares = np.vstack([away, np.ones(len(sizes))]), np.r_[np.zeros(len(size)), 1.0]
    return bool(nnls(*shares)[1] <= _NEARLY)  # pyright: ignore -- scipy ships no types
