"""A Gaussian process over log rate × log batch, and over what else was searched.

With x the log rate and b the log batch, both −1 to 1, and u = x − slope · b the distance from a
straight path of optima, the covariance, in units of `Scales.unit`, is the sum of

- a cubic polynomial in b: each batch's own least loss;
- a cubic polynomial in u, and one shape of u that all batches share: what makes them one surface;
- small terms in ub, u²b and ub², and a residual local in both: where a batch departs from it;
- one shape of x that all batches share: a cliff at the same rate whatever the batch;
- for each other hyperparameter an effect that moves with the rate and the batch;
- for each other series (another optimizer, say) a departure from all of this, half as large.

Rasmussen & Williams 2006 (Gaussian Processes for Machine Learning), ch. 2, 2.7 and 5.4. The
constants are priors, given in docs/statistics.md with what they were chosen on.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling.surface.space import Array, Coordinates

_DEPTH_SD: Array = np.array([10.0, 3, 2, 1])
"""Of 1, b, b², b³."""
_BASIN_SD: Array = np.array([1.5, 1.5, 0.5])
"""Of u, u², u³."""
_CURVATURE = 0.7
"""Prior mean of the coefficient of u²: losses have their least inside the range."""
_REACH_BATCH, _REACH_NUMBER = 0.5, 1.0
"""Distances over which the residual, and a number's effect, are alike."""
_OF_SHAPES = 2.5
"""Matérn's ν of what batches share."""
_OTHER_SERIES = 0.5


@dataclass(frozen=True)
class Family:
    """How free the surface is.

    Attributes:
        departure_sd: Prior standard deviations of ub, u²b, ub².
        reach: Distance in log rate over which shapes and the residual are alike.
        slopes: Those of the path of optima that are tried, all as likely.
        has_shapes: Whether batches share shapes beside the polynomial.
        smoothness: Matérn's ν of the residual, 5/2 or 3/2.
        cliff_noise: How fast the standard deviation of a trial grows above half a unit over its
            cell's best.
        noises: Values of the noise that are tried, over its prior median.
        locals: The same of the residual.
        num_processes: Most that take part in draws.
    """

    departure_sd: tuple[float, float, float]
    reach: float
    slopes: tuple[float, ...]
    has_shapes: bool
    smoothness: float
    cliff_noise: float
    noises: tuple[float, ...]
    locals: tuple[float, ...]
    num_processes: int


TO_SEARCH = Family(
    (1.5, 0.5, 0.5), reach=0.35, slopes=(0.0,), has_shapes=False, smoothness=2.5,
    cliff_noise=0.25, noises=(0.1, 0.25, 0.6, 1.6, 4), locals=(0.2, 1, 10 / 3), num_processes=6,
)  # fmt: skip
"""Smooth: what a search needs, which has one or two trials a batch to go by."""
TO_READ = Family(
    (0.6, 0.3, 0.3), reach=0.25, slopes=(0.0, 0.1, 0.2, 0.3, 0.4, 0.55, 0.7), has_shapes=True,
    smoothness=1.5, cliff_noise=0.5, noises=(0.1, 0.3, 1, 10 / 3, 10), locals=(0.2, 1, 10 / 3, 10),
    num_processes=10,
)  # fmt: skip
"""Free: what an interval needs, lest a kink or a cliff bend the optimum unseen. Its grids reach
as far as the priors do: where they ended at four times the median, noise passed for a shape."""


@dataclass(frozen=True)
class Scales:
    """What the data decide about the prior.

    Attributes:
        unit: Excess over a cell's best, in the loss's unit, up to which it counts in full; what
            lies higher counts by its logarithm.
        noise: Standard deviation of a trial, in units.
        slope: Of the path of optima, in half ranges of log rate by half ranges of log batch.
        shape: Of what all batches share beside the polynomial, in units.
        local: Of the residual of each batch, in units.
        effect: Of another hyperparameter's effect, in units.
        seed: Of what a seed adds to all its trials, and once more to those of one cell, over
            `noise`.
    """

    unit: float
    noise: float = 0.05
    slope: float = 0.25
    shape: float = 0.3
    local: float = 0.15
    effect: float = 0.5
    seed: float = 0.0


def prior_mean(at: Coordinates, scales: Scales) -> Array:
    """[len(at)] what a loss is expected to be before any trial, in units, but for a constant."""
    return _CURVATURE * (at.rate - scales.slope * at.batch) ** 2


def _polynomial(at: Coordinates, family: Family, slope: float) -> Array:
    """[n, 10] the polynomial's terms, each times its prior standard deviation."""
    u, b = at.rate - slope * at.batch, at.batch
    depth = np.stack([np.ones_like(b), b, b * b, b**3], axis=1) * _DEPTH_SD
    basin = np.stack([u, u * u, u**3], axis=1) * _BASIN_SD
    departure = np.stack([u * b, u * u * b, u * b * b], axis=1) * family.departure_sd
    return np.concatenate([depth, basin, departure], axis=1)


@dataclass(frozen=True)
class Parts:
    """[n, m] each: of a covariance, what the places and the slope decide, whatever the scales."""

    polynomial: Array
    residual: Array
    near: Array
    shapes: Array | None
    series: Array
    effects: Sequence[Array]
    moves: Array

    @classmethod
    def between(cls, one: Coordinates, other: Coordinates, family: Family, slope: float) -> "Parts":
        """Of `one` by `other`, on a path of optima with this slope (see `Scales.slope`)."""
        rates = one.rate[:, None] - other.rate[None]
        batches = one.batch[:, None] - other.batch[None]
        along = (rates - slope * batches) / family.reach
        shapes = None
        if family.has_shapes:
            shapes = _matern(along, _OF_SHAPES) + _matern(rates / family.reach, _OF_SHAPES)
        together = 0.5 * one.batch[:, None] * other.batch[None]
        return cls(
            _polynomial(one, family, slope) @ _polynomial(other, family, slope).T,
            _matern(along, family.smoothness),
            np.exp(-((batches / _REACH_BATCH) ** 2) / 2),
            shapes,
            1 + _OTHER_SERIES**2 * (one.series[:, None] == other.series[None]),
            _effects(one, other),
            1 + one.rate[:, None] * other.rate[None] + together,
        )

    def covariance(self, scales: Scales) -> Array:
        """Of the loss without noise, in units."""
        total = self.polynomial + scales.local**2 * self.residual * self.near
        if self.shapes is not None:
            total += scales.shape**2 * self.shapes
        total *= self.series
        # What a series shares with others and what is its own are an effect's size together.
        moves = self.moves * self.series / (1 + _OTHER_SERIES**2)
        for alike in self.effects:
            total += scales.effect**2 * alike * moves
        return total


def prior_covariance(one: Coordinates, other: Coordinates, family: Family, scales: Scales) -> Array:
    """[len(one), len(other)] of the loss without noise, in units."""
    return Parts.between(one, other, family, scales.slope).covariance(scales)


def _matern(distance: Array, smoothness: float) -> Array:
    """The Matérn covariance with ν = 5/2 or 3/2, Rasmussen & Williams 2006, eq. 4.17."""
    scaled = math.sqrt(2 * smoothness) * np.abs(distance)
    bend = scaled**2 / 3 if smoothness > 2 else 0.0
    return (1 + scaled + bend) * np.exp(-scaled)


def _effects(one: Coordinates, other: Coordinates) -> Sequence[Array]:
    """How alike two values of each other hyperparameter are: 1 where they are the same."""
    numbers = [
        np.exp(-(((a[:, None] - b[None]) / _REACH_NUMBER) ** 2) / 2)
        for a, b in zip(one.numbers.T, other.numbers.T, strict=True)
    ]
    labels: list[Array] = [
        (a[:, None] == b[None]).astype(np.float64)
        for a, b in zip(one.labels.T, other.labels.T, strict=True)
    ]
    return numbers + labels
