"""One valley through the runs of all sizes: least squares with priors, and what is left over.

Every size has its own floor and its own bottom; the walls belong to all. The bottoms have a loose
way as prior while the walls are fitted; it is taken out again afterwards, so that `Way` can weigh
every form of it. The scatter of a run near the bottom, and how fast it grows with the height, are
estimated from the residuals by a robust scale (Huber 1981, Robust statistics, ch. 5 and 7).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares  # pyright: ignore -- scipy ships no types

from scaling.surface.ladder.runs import Runs
from scaling.surface.ladder.valley import (
    NUM_SHAPE,
    POWER_SD,
    SHAPE_SD,
    height,
    prior_walls,
    squashed,
)
from scaling.surface.ladder.way import (
    OUTPUTS,
    Bottoms,
    Form,
    bottoms_at,
    covariance_of,
    prior_mean,
)
from scaling.surface.space import Array

Flags = NDArray[np.bool_]

MOST_RUNS = 400
"""Of each size those with the lowest losses."""
_LOOSE = (Form(is_bent=True, walk=0.1, scatter=0.1), Form(is_bent=True, walk=0.15, scatter=0.15))
_UNIT_QUANTILE = 0.5
"""The unit is this quantile of the heights of all runs, diverged ones the highest."""
_FEWEST_SCATTERS = 8.0
"""A unit is at least so many times the scatter near the bottom."""
_FAR = 4.0
"""Units from which on, like one that diverged, a run only says that the valley is high there."""
_FAR_LEAST, _FAR_SD = 1.0, 1.0
"""How high at least, and how loosely, in units: a cliff near the bottom is no wall of it."""
_FLOOR_SD = 1.0
"""Of a size's floor about the median of its lowest runs, in units."""
_LOWEST = 5
_HALF = 0.5
"""Units up to which the scatter is that near the bottom."""
_SCATTER, _GROWTH = 0.03, 0.25
"""To start from: in units, and for each unit of height above a half."""
_LEAST_SCATTER = 1e-3
_GROWTHS = (0.03, 0.6)
_HUBER, _CLIPPED = 2.0, 2.5
_ROUNDS = 4


@dataclass(frozen=True)
class Valley:
    """The fitted valley.

    Attributes:
        middle: [axes] log2 of a size's numbers in the ladder's middle.
        unit: Percent up to which a height counts in full.
        scatter: Standard deviation of a run near the bottom, in percent.
        floors: [sizes] 100 · ln of the loss at each bottom.
        walls: [5 + 2 · axes] see `height`.
        walls_covariance: Of these.
        bottoms: What the runs say of each size's bottom.
    """

    middle: Array
    unit: float
    scatter: float
    floors: Array
    walls: Array
    walls_covariance: Array
    bottoms: Bottoms


class _Problem:
    """Residuals of a parameter vector: bottoms' log rates and log batches, floors, walls."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.u, self.v = np.log2(runs.rate), np.log2(runs.batch)
        self.level = 100 * np.log(runs.loss)
        logs = np.log2(runs.scales)
        self.middle = logs.mean(axis=0)
        self.scale = logs - self.middle
        self.count = runs.num_sizes
        lowest = [np.sort(self.level[runs.size == size])[:_LOWEST] for size in range(self.count)]
        self.lowest = np.array([np.nanmedian(losses) for losses in lowest])
        heights = self.level - self.lowest[runs.size]
        known = np.where(np.isfinite(heights), np.maximum(heights, 0.0), np.inf)
        self.unit = float(np.quantile(known, _UNIT_QUANTILE, method="lower"))
        if not 0 < self.unit < np.inf:
            self.unit = float(max(heights[np.isfinite(heights)].max(), 1e-6))
        self.scatter, self.growth = _SCATTER * self.unit, _GROWTH
        self.middles = (float(self.u.mean()), float(self.v.mean()))
        sizes = bottoms_at(self.scale)
        pairs = list(zip(OUTPUTS, _LOOSE, self.middles, strict=True))
        self.way = np.concatenate([prior_mean(sizes, output, mid) for output, _, mid in pairs])
        self.precision = np.zeros((2 * self.count, 2 * self.count))
        for place, (output, form, _) in enumerate(pairs):
            own = slice(place * self.count, (place + 1) * self.count)
            self.precision[own, own] = np.linalg.inv(covariance_of(sizes, output, form))
        self._root = np.linalg.cholesky(self.precision).T
        self.start()
        self.sd = self._sd(squashed(np.where(np.isfinite(known), known, self.unit), self.unit))

    def start(self) -> None:
        self.walls_mean = prior_walls(self.unit, self.scale.shape[1])
        power_sd = np.full(len(self.walls_mean) - NUM_SHAPE, POWER_SD)
        self.walls_sd = np.concatenate([SHAPE_SD, power_sd])

    @property
    def first(self) -> Array:
        """Each size's bottom amid its lowest runs."""
        own = [np.flatnonzero(self.runs.size == size) for size in range(self.count)]
        low = [members[np.argsort(self.level[members])[:_LOWEST]] for members in own]
        bottoms = [at[chosen].mean() for at in (self.u, self.v) for chosen in low]
        return np.concatenate([bottoms, np.zeros(self.count), self.walls_mean])

    def heights(self, found: Array) -> Array:
        """[n] of the valley where the runs are."""
        count, size = self.count, self.runs.size
        u, v = self.u - found[:count][size], self.v - found[count : 2 * count][size]
        return squashed(height(found[3 * count :], u, v, self.scale[size]), self.unit)

    def seen(self, found: Array) -> tuple[Array, Flags]:
        """[n] heights of the runs themselves, and which of them are far above the bottom."""
        floors = self.lowest + found[2 * self.count : 3 * self.count]
        raw = self.level - floors[self.runs.size]
        is_far = ~(raw <= _FAR * self.unit)
        return squashed(np.where(is_far, _FAR_LEAST * self.unit, raw), self.unit), is_far

    def _sd(self, heights: Array) -> Array:
        """[n] standard deviation of runs at some heights, in percent."""
        return np.hypot(self.scatter, self.growth * np.maximum(heights - _HALF * self.unit, 0.0))

    def residuals(self, found: Array) -> Array:
        """Of the runs, then of the priors."""
        modelled = self.heights(found)
        seen, is_far = self.seen(found)
        below = np.maximum(seen - modelled, 0.0) / (_FAR_SD * self.unit)
        own = np.where(is_far, below, (seen - modelled) / self.sd)
        count = self.count
        return np.concatenate(
            [
                np.where(np.abs(own) > _HUBER, _huber(own), own),
                self._root @ (found[: 2 * count] - self.way),
                found[2 * count : 3 * count] / (_FLOOR_SD * self.unit),
                (found[3 * count :] - self.walls_mean) / self.walls_sd,
            ]
        )

    def update(self, found: Array, leverage: Array) -> None:
        """Scatter and growth from the residuals, and with them each run's standard deviation.

        Heights are those of the valley: a run's own height has its scatter in it, and weights that
        depend on it would pull the valley to the runs that came out low.
        """
        seen, is_far = self.seen(found)
        modelled = self.heights(found)
        left = seen - modelled
        above = np.maximum(modelled - _HALF * self.unit, 0.0)
        near, tall = ~is_far & (above == 0), ~is_far & (above > 0)
        scatter = _robust_scale(left[near], leverage[near])
        if scatter is not None:
            self.scatter = max(scatter, _LEAST_SCATTER * self.unit)
        reach = np.maximum(above, 0.3 * self.unit)
        growth = _robust_scale(left[tall] / reach[tall], leverage[tall])
        if growth is not None:
            self.growth = float(np.clip(growth, *_GROWTHS))
        if self.unit < _FEWEST_SCATTERS * self.scatter:
            self.unit = _FEWEST_SCATTERS * self.scatter
            self.start()
        self.sd = self._sd(self.heights(found))


def _huber(residuals: Array) -> Array:
    """Residuals whose squares are Huber's loss of large ones."""
    tall = np.maximum(np.abs(residuals), _HUBER)
    return np.sign(residuals) * np.sqrt(2 * _HUBER * tall - _HUBER**2)


def _robust_scale(residuals: Array, leverage: Array) -> float | None:
    """Standard deviation of residuals with outliers pulled in; None of fewer than three."""
    if len(residuals) < 3:
        return None
    typical = 1.4826 * float(np.median(np.abs(residuals)))
    clipped = np.minimum(np.abs(residuals), _CLIPPED * typical)
    spare = max(float((1 - leverage).sum()), 0.2 * len(residuals))
    return float(np.sqrt((clipped**2).sum() / spare))


def fit_valley(runs: Runs) -> Valley:
    """The valley through the runs of all sizes.

    Args:
        runs: Each size has at least one run with a loss.
    """
    problem = _Problem(runs.lowest(MOST_RUNS))
    found, slopes = problem.first, np.zeros((0, 0))
    hessian = np.zeros((0, 0))
    for _ in range(_ROUNDS):
        solved: Any = least_squares(problem.residuals, found, x_scale="jac", max_nfev=60)
        found, slopes = np.asarray(solved.x), np.asarray(solved.jac)
        hessian = slopes.T @ slopes
        own = slopes[: len(problem.level)]
        leverage = np.einsum("ij,ij->i", own @ np.linalg.inv(hessian), own)
        problem.update(found, leverage)
    count = problem.count
    bottom, rest = slice(0, 2 * count), slice(2 * count, None)
    outer = np.linalg.solve(hessian[rest, rest], hessian[rest, bottom])
    posterior = hessian[bottom, bottom] - hessian[bottom, rest] @ outer
    precision = posterior - problem.precision
    walls = slice(3 * count, None)
    return Valley(
        middle=problem.middle,
        unit=problem.unit,
        scatter=problem.scatter,
        floors=problem.lowest + found[2 * count : 3 * count],
        walls=found[walls],
        walls_covariance=np.asarray(np.linalg.inv(hessian)[walls, walls], dtype=np.float64),
        bottoms=Bottoms(
            scale=problem.scale,
            precision=(precision + precision.T) / 2,
            information=posterior @ found[bottom] - problem.precision @ problem.way,
            middles=problem.middles,
        ),
    )
