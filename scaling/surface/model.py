"""A Gaussian process over log rate × log batch, and over what else was searched.

Covariance, in units of `Scales.unit`: a cubic polynomial in (log rate, log batch) with normal
coefficients; a smooth local residual; for each other hyperparameter an effect that moves with the
rate and the batch; for each other series (another optimizer, say) a polynomial of its own, half as
large as the common one. Rasmussen & Williams 2006 (Gaussian Processes for Machine Learning),
ch. 2 and sec. 2.7.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import solve_triangular  # pyright: ignore -- scipy ships no types

from scaling.surface.space import Array, Coordinates

# Prior standard deviations of 1, x, b, x², xb, b², x³, x²b, xb², b³, in units of `Scales.unit`;
# the range of rates and of batches is −1 to 1.
_TREND_SD: Array = np.array([10, 1.5, 3, 1.5, 1.5, 2, 0.5, 0.5, 0.5, 1])
_CURVATURE = 0.7
"""Prior mean of the coefficient of x²: a loss has its least inside the range."""
_OTHER_SERIES = 0.5
_REACH_RATE, _REACH_BATCH, _REACH_NUMBER = 0.35, 0.5, 1.0
"""Distances over which the local residual, and another hyperparameter's effect, are alike."""
_DIVERGED_ABOVE = 1.0
"""Units above the worst loss seen at which a trial without a loss counts."""
_DIVERGED_SD = 0.5
_CLIFF_NOISE = 0.25
"""How fast the standard deviation of a trial grows above half a unit over its cell's best."""
_JITTER = 1e-9


@dataclass(frozen=True)
class Scales:
    """What the data decide about the prior.

    Attributes:
        unit: Excess over a cell's best, in the objective's unit, up to which it counts in full;
            what lies higher counts by its logarithm.
        noise: Standard deviation of a trial, in units.
        local: Of the residual about the polynomial, in units.
        effect: Of another hyperparameter's effect, in units.
    """

    unit: float
    noise: float = 0.05
    local: float = 0.15
    effect: float = 0.5


# Values that are tried for each scale, relative to its prior median; each has a lognormal prior
# with a standard deviation of one e-fold.
_GRID: dict[str, Array] = {
    "unit": np.array([0.25, 0.5, 1, 2, 4]),
    "noise": np.array([0.4, 1, 2, 4]),
    "local": np.array([1 / 3, 2 / 3, 4 / 3, 8 / 3]),
    "effect": np.array([0.3, 1, 3]),
}


@dataclass(frozen=True)
class Process:
    """A Gaussian process with the trials taken into account.

    Attributes:
        scales: Of its prior.
        at: [n] where the trials lie.
        factor: [n, n] lower Cholesky factor of their covariance, noise included.
        whitened: [n] their losses less the prior mean, divided by `factor`.
        centre: What the losses are taken from, in the objective's unit.
        evidence: Log marginal likelihood plus log prior of the scales.
    """

    scales: Scales
    at: Coordinates
    factor: Array
    whitened: Array
    centre: float
    evidence: float

    def predict_mean(self, at: Coordinates) -> Array:
        """Mean [m] of the loss; see `predict`."""
        cross = _covariance(at, self.at, self.scales)
        weights = np.asarray(solve_triangular(self.factor.T, self.whitened))
        return (cross @ weights + _CURVATURE * at.rate**2) * self.scales.unit + self.centre

    def predict(self, at: Coordinates) -> tuple[Array, Array]:
        """Mean [m] and covariance [m, m] of the loss (without noise), in the objective's unit.

        Above a cell's best by more than a unit both are of the logarithm, see `Scales.unit`.
        """
        cross = _covariance(at, self.at, self.scales)
        solved = np.asarray(solve_triangular(self.factor, cross.T, lower=True))
        mean = solved.T @ self.whitened + _CURVATURE * at.rate**2
        covariance = _covariance(at, at, self.scales) - solved.T @ solved
        unit = self.scales.unit
        return mean * unit + self.centre, covariance * unit**2


def fit(at: Coordinates, losses: Array, lowest: Array) -> Process:
    """The process whose scales have the highest evidence.

    Args:
        at: [n] where the trials lie.
        losses: [n] in the objective's unit; NaN where a trial diverged.
        lowest: [n] about the least loss of each trial's cell.
    """
    fits = (_with_scales(at, losses, lowest, scales) for scales in _candidates(at, losses, lowest))
    return max(fits, key=lambda process: process.evidence)


def _candidates(at: Coordinates, losses: Array, lowest: Array) -> Iterator[Scales]:
    middle = Scales(_middle_unit(losses, lowest))
    has_effects = at.numbers.shape[1] + at.labels.shape[1] > 0
    names = [name for name in _GRID if name != "effect" or has_effects]
    for factors in itertools.product(*(_GRID[name] for name in names)):
        values = {n: getattr(middle, n) * float(f) for n, f in zip(names, factors, strict=True)}
        yield replace(middle, **values)


def _middle_unit(losses: Array, lowest: Array) -> float:
    """Prior median of the unit: the median excess over the cells' best."""
    excess = losses - lowest
    above = excess[np.isfinite(excess) & (excess > 0)]
    return float(np.median(above)) if len(above) else 1.0


def _with_scales(at: Coordinates, losses: Array, lowest: Array, scales: Scales) -> Process:
    unit = scales.unit
    excess = (losses - lowest) / unit
    tall = np.maximum(excess, 1.0)
    counted = lowest / unit + np.where(excess > 1, 1 + np.log(tall), excess)
    known = np.isfinite(counted)
    log_slopes = -float(np.log(tall[known]).sum()) - int(known.sum()) * math.log(unit)
    worst = float(counted[known].max()) if known.any() else 0.0
    counted = np.where(known, counted, worst + _DIVERGED_ABOVE)
    spread = np.maximum(np.where(known, excess, 0.0) - 0.5, 0.0)
    spread = np.where(spread > 0.5, 0.5 + np.log(np.maximum(spread + 0.5, 1.0)), spread)
    sd = np.where(known, scales.noise + _CLIFF_NOISE * spread, _DIVERGED_SD)
    centre = float(np.median(counted))
    covariance = _covariance(at, at, scales) + np.diag(sd**2 + _JITTER)
    factor = np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
    residual = counted - centre - _CURVATURE * at.rate**2
    whitened = np.asarray(solve_triangular(factor, residual, lower=True))
    likelihood = -0.5 * float(whitened @ whitened) - float(np.log(np.diag(factor)).sum())
    prior = Scales(_middle_unit(losses, lowest))
    names = list(_GRID)
    prior_density = sum(
        -0.5 * math.log(getattr(scales, name) / getattr(prior, name)) ** 2 for name in names
    )
    return Process(
        scales, at, factor, whitened, centre * unit, likelihood + log_slopes + prior_density
    )


def _trend(at: Coordinates) -> Array:
    """[n, 10] the polynomial's terms, each times its prior standard deviation."""
    x, b = at.rate, at.batch
    terms = [np.ones_like(x), x, b, x * x, x * b, b * b, x**3, x * x * b, x * b * b, b**3]
    return np.stack(terms, axis=1) * _TREND_SD


def _covariance(one: Coordinates, other: Coordinates, scales: Scales) -> Array:
    """[len(one), len(other)] of the loss without noise, in units."""
    trend = _trend(one) @ _trend(other).T
    alike = one.series[:, None] == other.series[None]
    rate = (one.rate[:, None] - other.rate[None]) / _REACH_RATE
    batch = (one.batch[:, None] - other.batch[None]) / _REACH_BATCH
    near = np.exp(-(rate**2 + batch**2) / 2) * alike
    total = trend * (1 + _OTHER_SERIES**2 * alike) + scales.local**2 * near
    moves = 1 + one.rate[:, None] * other.rate[None] + 0.5 * one.batch[:, None] * other.batch[None]
    for alike_here in _effects(one, other):
        total += scales.effect**2 * alike_here * moves
    return total


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
