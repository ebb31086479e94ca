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
from collections.abc import Iterator, Sequence
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
_IN_CACHE = 2**14
"""Numbers of an array that a processor's cache holds beside a few more of its size."""


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
    """Of a covariance, what the places and the slope decide, whatever the scales.

    Attributes:
        polynomial: [n, m].
        residual: [n, m] as far as the rate goes.
        near: [n, m] the same as far as the batch goes; of any slope.
        of_rate: [n, m] the shape of the rate alone, of any slope; None in a family without.
        shapes: [n, m]; None in a family without.
        series: [n, m] what all of this is taken times; one number where there is one series.
        effects: [n, m] of each other hyperparameter.
        moves: [n, m] what each of these is taken times; None without any.
        is_lower: Whether what lies above the diagonal is left out, but for the polynomial.
    """

    polynomial: Array
    residual: Array
    near: Array
    of_rate: Array | None
    shapes: Array | None
    series: Array | float
    effects: Sequence[Array]
    moves: Array | None
    is_lower: bool

    @classmethod
    def between(
        cls,
        one: Coordinates,
        other: Coordinates,
        family: Family,
        slope: float,
        *,
        is_lower: bool = False,
        known: "Parts | None" = None,
    ) -> "Parts":
        """Of `one` by `other`, on a path of optima with this slope (see `Scales.slope`).

        Args:
            one: n places.
            other: m places.
            family: Of the prior.
            slope: Of the path.
            is_lower: Leave out what is above the diagonal, where both are the same places.
            known: The same on a path of another slope.
        """
        shape = len(one), len(other)
        residual = np.zeros(shape)
        shapes = np.zeros(shape) if family.has_shapes else None
        if known is None:
            near, of_rate = np.zeros(shape), np.zeros(shape) if family.has_shapes else None
        else:
            near, of_rate = known.near, known.of_rate
        series: Array | float = 1 + _OTHER_SERIES**2
        if len(np.unique(np.concatenate([one.series, other.series]))) > 1:
            series = 1 + _OTHER_SERIES**2 * (one.series[:, None] == other.series[None])
        effects = _effects(one, other)
        for block in _blocks(shape, is_lower=is_lower):
            here, there = block
            rates = one.rate[here, None] - other.rate[None, there]
            batches = one.batch[here, None] - other.batch[None, there]
            along = (rates - slope * batches) / family.reach
            residual[block] = _matern(along, family.smoothness)
            if known is None:
                near[block] = np.exp(-((batches / _REACH_BATCH) ** 2) / 2)
            if shapes is not None and of_rate is not None:
                if known is None:
                    of_rate[block] = _matern(rates / family.reach, _OF_SHAPES)
                shapes[block] = _matern(along, _OF_SHAPES) + of_rate[block]
        moves = None
        if effects:
            together = 0.5 * one.batch[:, None] * other.batch[None]
            # What a series shares with others and what is its own are an effect's size together.
            moves = (1 + one.rate[:, None] * other.rate[None] + together) * series
            moves /= 1 + _OTHER_SERIES**2
        polynomial = _polynomial(one, family, slope) @ _polynomial(other, family, slope).T
        return cls(polynomial, residual, near, of_rate, shapes, series, effects, moves, is_lower)

    def covariance(self, scales: Scales) -> Array:
        """[n, m] of the loss without noise, in units; zero above the diagonal where that is so."""
        total = np.zeros(self.residual.shape)
        for block in _blocks(total.shape, is_lower=self.is_lower):
            part = scales.local**2 * self.residual[block]
            part *= self.near[block]
            part += self.polynomial[block]
            if self.shapes is not None:
                part += scales.shape**2 * self.shapes[block]
            part *= self.series[block] if isinstance(self.series, np.ndarray) else self.series
            for alike in self.effects:
                assert self.moves is not None
                part += scales.effect**2 * alike[block] * self.moves[block]
            total[block] = part
        return total


def _blocks(shape: tuple[int, ...], *, is_lower: bool) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of a matrix, or of its lower half, a part at a time that a cache holds."""
    rows, columns = shape
    step = max(1, _IN_CACHE // max(1, columns))
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        yield slice(start, stop), slice(0, stop if is_lower else columns)


def prior_covariance(one: Coordinates, other: Coordinates, family: Family, scales: Scales) -> Array:
    """[len(one), len(other)] of the loss without noise, in units."""
    return Parts.between(one, other, family, scales.slope).covariance(scales)


def _matern(distance: Array, smoothness: float) -> Array:
    """The Matérn covariance with ν = 5/2 or 3/2, Rasmussen & Williams 2006, eq. 4.17."""
    scaled = np.abs(distance)
    scaled *= math.sqrt(2 * smoothness)
    found = 1 + scaled
    if smoothness > 2:
        found += scaled**2 / 3
    found *= np.exp(np.negative(scaled, out=scaled), out=scaled)
    return found


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
