"""What runs of several sizes say of a size that was not run."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import minimize  # pyright: ignore -- scipy ships no types

from scaling.surface.ladder.fit import Valley, fit_valley
from scaling.surface.ladder.runs import Runs
from scaling.surface.ladder.valley import height
from scaling.surface.ladder.way import Way, bottoms_at, root_of, slopes_at
from scaling.surface.space import TAILS, Array

_NUM_DRAWS = 1000
_NUM_SHOWN = 400
"""Draws over which a regret is averaged."""
_HIGHEST = 100.0
"""Percent up to which a drawn height counts in a mean."""
_SAME = 1e-3
"""Octaves between two batches that are one."""
_AROUND: Array = np.linspace(-6.0, 6.0, 121)
"""Octaves of rate about the bottom at which a batch's best rate is looked for."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class RateOfBatch:
    """The best rate at one batch size."""

    batch: float
    rate: float
    interval: Interval


class Prediction:
    """The bottom at one size, among batches that are not below those that were run.

    Where smaller batches are ever better, as at a fixed number of tokens they often are, the
    valley's own bottom lies at batches that no run has seen and may not exist. The best recipe is
    then the best one at the smallest batch that ran.

    Attributes:
        scales: [axes] the size.
        draws: [draws, 2] log2 of the best rate and of the best batch.
    """

    def __init__(
        self, valley: Valley, scales: Array, draws: Array, walls: Array, least_batch: float
    ) -> None:
        self.scales = scales
        self._walls = walls
        self._scale = np.log2(scales) - valley.middle
        self._least = float(np.log2(least_batch))
        self._bottoms = draws[:_NUM_SHOWN]
        self.draws, lowest = self._allowed(draws)
        self._lowest = lowest[:_NUM_SHOWN]

    def _allowed(self, draws: Array) -> tuple[Array, Array]:
        """Each draw's best recipe at batches that are allowed, and its height over the bottom."""
        below = draws[:, 1] < self._least
        best, lowest = draws.copy(), np.zeros(len(draws))
        if not below.any():
            return best, lowest
        walls = np.resize(self._walls, (len(draws), self._walls.shape[1]))[below][:, None]
        above = self._least - draws[below][:, 1:]
        heights = height(walls, _AROUND, above, self._scale)
        best[below, 0] += _AROUND[heights.argmin(axis=1)]
        best[below, 1] = self._least
        lowest[below] = heights.min(axis=1)
        return best, lowest

    @property
    def is_least(self) -> bool:
        """Whether the batch to run is the smallest one that ran."""
        return bool(np.log2(self.batch) <= self._least + _SAME)

    @cached_property
    def _recipe(self) -> tuple[float, float]:
        """Where the expected regret is least: off the median where walls are not equally steep."""
        found: Any = minimize(
            lambda at: self._mean_height(float(at[0]), max(float(at[1]), self._least)),
            np.median(self.draws[:_NUM_SHOWN], axis=0),
            method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-7},
        )  # fmt: skip
        return float(2 ** found.x[0]), float(2 ** max(found.x[1], self._least))

    @property
    def rate(self) -> float:
        """The rate to run."""
        return self._recipe[0]

    @property
    def batch(self) -> float:
        """The batch to run, in the unit of the runs."""
        return self._recipe[1]

    @property
    def rate_interval(self) -> Interval:
        """Of the best rate."""
        return _interval(2 ** self.draws[:, 0])

    @property
    def batch_interval(self) -> Interval:
        """Of the best batch."""
        return _interval(2 ** self.draws[:, 1])

    def expected_regret(self, rate: float, batch: float) -> float:
        """The loss at a recipe over the best one, minus 1, as the fit expects it."""
        return float(np.expm1(self._mean_height(np.log2(rate), np.log2(batch)) / 100))

    def regrets(self, rate: float, batch: float) -> Array:
        """[draws] the loss at a recipe over the best one of each draw, minus 1."""
        return np.expm1(self._heights(np.log2(rate), np.log2(batch)) / 100)

    def path(self, batches: Sequence[float]) -> list[RateOfBatch]:
        """The best rate at each of some batch sizes."""
        few, found = self._bottoms, list[RateOfBatch]()
        for batch in batches:
            above = np.log2(batch) - few[:, 1:]
            heights = height(self._walls[:, None], _AROUND, above, self._scale)
            rates = 2 ** (few[:, 0] + _AROUND[heights.argmin(axis=1)])
            found.append(RateOfBatch(batch, float(np.median(rates)), _interval(rates)))
        return found

    def _mean_height(self, rate: float, batch: float) -> float:
        return float(self._heights(rate, batch).mean())

    def _heights(self, rate: float, batch: float) -> Array:
        few = self._bottoms
        heights = height(self._walls, rate - few[:, 0], batch - few[:, 1], self._scale)
        return np.clip(heights - self._lowest, 0.0, _HIGHEST)


class Ladder:
    """One surface over log rate × log batch × size."""

    def __init__(self, runs: Runs, least_batch: float | None = None) -> None:
        """The fit.

        Args:
            runs: At least two sizes, each with at least one loss.
            least_batch: No smaller one is predicted; that of the runs where left out.
        """
        self.runs = runs
        self.least_batch = float(runs.batch.min()) if least_batch is None else least_batch
        self.valley = fit_valley(runs)
        self.way = Way(self.valley.bottoms)

    @cached_property
    def _walls(self) -> Array:
        """[draws, parameters] draws of the walls."""
        root = root_of(self.valley.walls_covariance)
        noise = np.random.default_rng(1).standard_normal((_NUM_SHOWN, len(root)))
        return self.valley.walls + noise @ root.T

    def predict(self, scales: Array, *, is_new: bool = False) -> Prediction:
        """The bottom at one size.

        Args:
            scales: [axes] its positive numbers, in the order of those of the runs.
            is_new: Whether a size that was run is predicted as one between those that were.
        """
        targets = bottoms_at((np.log2(scales) - self.valley.middle)[None], are_new=is_new)
        draws = self.way.draws(targets, _NUM_DRAWS, np.random.default_rng(0))[:, 0]
        shuffled = np.random.default_rng(2).permutation(draws)
        return Prediction(self.valley, scales, shuffled, self._walls, self.least_batch)

    def exponents(self, scales: Array) -> Array:
        """[draws, axes, 2] local exponents of the best rate and of the best batch at a size."""
        targets = slopes_at(np.log2(scales) - self.valley.middle)
        return self.way.draws(targets, _NUM_DRAWS, np.random.default_rng(0))


def _interval(values: Array) -> Interval:
    low, high = np.quantile(values, TAILS)
    return float(low), float(high)
