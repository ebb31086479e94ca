"""The trade-off between steps and examples with the exponent of its bend fitted too.

S = min_steps (1 + (B_twice / B)^alpha): at B_twice a run takes twice the fewest steps, whatever
alpha is. alpha = 1 is the hyperbola of McCandlish et al. 2018; Zhang et al. 2024 (arXiv:2410.21676)
fit a + b / B^alpha, which is the same family.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from scaling.analysis.statistics.profile import Array, farthest
from scaling.analysis.statistics.scatter import Scatter, judged
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate, Interval

LOWEST, HIGHEST = 0.25, 4.0
"""Exponents that are looked at. Near 0 nothing bends, and from 4 on the bend is a corner."""
FEWEST = 4
"""Batch sizes: three parameters leave nothing to judge the scatter by with fewer."""
_REACH = 1000.0
_EXPONENTS, _BENDS, _ZOOMS, _HALVINGS = 121, 121, 4, 40

NoFreeExponent = Literal["few_batch_sizes", "bend_above", "bend_below", "no_interval"]
"""Fewer than four batch sizes that reached the target; a bend beyond the largest or below the
smallest of them; too few to judge their scatter by."""


@dataclass(frozen=True)
class FreeExponent:
    """The fit, and every pair of parameters that its 90% intervals allow.

    Attributes:
        alpha: The exponent; an end of its interval at which the search ended is 0 or infinite.
        at_twice_min_steps: The batch size, in examples, at which steps are twice their least;
            an end that the data leave open is 0 or infinite.
        min_steps: Steps that even the largest batch needs.
        allowed: For exponents across alpha's interval, the exponent and the logarithms of the
            least and the largest bend that the data allow with it.
        is_tuned: Whether most batch sizes tried more than one recipe. Steps of a rate that
            was not tuned bend as that rate happens to suit them, which no exponent speaks of.
        missing: Why there is no value or no interval; None when nothing is missing.
    """

    alpha: Estimate = ABSENT
    at_twice_min_steps: Estimate = ABSENT
    min_steps: float | None = None
    allowed: tuple[tuple[float, float, float], ...] = ()
    is_tuned: bool = True
    missing: NoFreeExponent | None = "few_batch_sizes"

    @property
    def excludes_one(self) -> bool:
        """Whether tuned steps speak against alpha = 1: its 90% interval does not hold it."""
        interval = self.alpha.interval
        return self.is_tuned and interval is not None and not interval[0] <= 1 <= interval[1]

    def steps_at(self, global_batch_size: float) -> float | None:
        """Steps to the target that the fit expects at a batch size."""
        bend, alpha = self.at_twice_min_steps.value, self.alpha.value
        if bend is None or alpha is None or self.min_steps is None:
            return None
        return self.min_steps * (1 + (bend / global_batch_size) ** alpha)

    def slope_at(self, global_batch_size: float) -> Estimate:
        """−d log steps / d log batch at a batch size, with its profile interval."""

        def slope(alpha: float, log_bend: float) -> float:
            ratio = math.exp(alpha * (log_bend - math.log(global_batch_size)))
            return alpha * ratio / (1 + ratio)

        value, alpha = self.at_twice_min_steps.value, self.alpha.value
        estimate = None if value is None or alpha is None else slope(alpha, math.log(value))
        if not self.allowed:
            return Estimate(estimate)
        low = min(slope(alpha, least) for alpha, least, _ in self.allowed)
        high = max(slope(alpha, largest) for alpha, _, largest in self.allowed)
        return Estimate(estimate, (low, high), self.alpha.count)


def fit_free_exponent(scatter: Scatter, num_trials: int) -> FreeExponent:
    """Least squares of log S = log min_steps + log(1 + (B_twice / B)^alpha).

    A profile interval in two parameters: for each exponent the bends under the limit, which is
    least + t² · variance, on three degrees of freedom fewer than batch sizes (and those of the
    seeds where the curve fits, as for the hyperbola).

    Args:
        scatter: Of log steps, by batch size.
        num_trials: Behind it.

    Source: profile intervals of several nonlinear parameters, Bates & Watts 1988, Nonlinear
        regression analysis, sec. 6.1.
    """
    if len(scatter.groups) < FEWEST:
        return FreeExponent(missing="few_batch_sizes")
    ends = (
        math.log(float(scatter.groups[0]) / _REACH),
        math.log(float(scatter.groups[-1]) * _REACH),
    )

    def best(weighted: Scatter) -> tuple[float, float, float]:
        alpha = _best_exponent(weighted, ends)
        bends, squares = _best_bends(weighted, _one(alpha), ends)
        return alpha, float(bends[0]), float(squares[0])

    scatter, error = judged(scatter, lambda weighted: best(weighted)[2], parameters=3)
    alpha, log_bend, smallest = best(scatter)
    step = (ends[1] - ends[0]) / 1000
    if log_bend < ends[0] + step:
        return FreeExponent(missing="bend_below")
    if log_bend > ends[1] - step:
        return FreeExponent(missing="bend_above")
    height = float(_curves(scatter, _one(alpha), _one(log_bend))[1][0])
    twice = Estimate(math.exp(log_bend), None, num_trials)
    fit = FreeExponent(
        Estimate(alpha, None, num_trials), twice, math.exp(height), missing="no_interval"
    )
    if error is None:
        return fit
    limit = smallest + error.allowance
    exponents = _exponents_within(scatter, alpha, limit, ends)
    bends = _bends_within(scatter, exponents, limit, ends)
    low, high = float(bends[0].min()), float(bends[1].max())
    of_alpha = _open(float(exponents[0]), float(exponents[-1]), LOWEST, HIGHEST)
    of_bend = _open(math.exp(low), math.exp(high), *map(math.exp, ends))
    return replace(
        fit,
        alpha=replace(fit.alpha, interval=of_alpha),
        at_twice_min_steps=replace(twice, interval=of_bend),
        missing=None,
        allowed=tuple(zip(exponents.tolist(), *(side.tolist() for side in bends), strict=True)),
    )


def _one(value: float) -> Array:
    return np.array([value])


def _curves(scatter: Scatter, exponents: Array, log_bends: Array) -> tuple[Array, Array]:
    """[n] weighted squares of the means around each curve, and its best height, log min_steps."""
    above = np.logaddexp(0.0, exponents[:, None] * (log_bends[:, None] - np.log(scatter.groups)))
    residual = scatter.means - above
    height = residual @ (scatter.weights / scatter.weights.sum())
    return ((residual - height[:, None]) ** 2) @ scatter.weights, height


def _on_grid(scatter: Scatter, exponents: Array, grids: Array) -> Array:
    """Sums of squares with each exponent's own bends, [num_exponents, num_bends]."""
    pairs = np.repeat(exponents, grids.shape[1])
    return _curves(scatter, pairs, grids.ravel())[0].reshape(grids.shape)


def _best_bends(scatter: Scatter, exponents: Array, ends: Interval) -> tuple[Array, Array]:
    """The best log bend of each exponent, and its sum of squares."""
    low, high = np.full(len(exponents), ends[0]), np.full(len(exponents), ends[1])
    places = np.linspace(0.0, 1.0, _BENDS)
    for _ in range(_ZOOMS):
        grids = low[:, None] + (high - low)[:, None] * places
        best = _on_grid(scatter, exponents, grids).argmin(axis=1)
        rows = np.arange(len(exponents))
        low, high = (
            grids[rows, np.maximum(best - 1, 0)],
            grids[rows, np.minimum(best + 1, _BENDS - 1)],
        )
    centre = (low + high) / 2
    return centre, _curves(scatter, exponents, centre)[0]


def _best_exponent(scatter: Scatter, ends: Interval) -> float:
    low, high = math.log(LOWEST), math.log(HIGHEST)
    for _ in range(_ZOOMS):
        grid = np.linspace(low, high, 41)
        best = int(_best_bends(scatter, np.exp(grid), ends)[1].argmin())
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, 40)])
    return math.exp((low + high) / 2)


def _exponents_within(scatter: Scatter, alpha: float, limit: float, ends: Interval) -> Array:
    """Exponents from the least to the largest that the limit allows."""
    edges = np.log([LOWEST, HIGHEST])
    grids = np.exp(np.linspace(math.log(alpha), edges, _EXPONENTS, axis=1))

    def squares(tried: Array) -> Array:
        return _best_bends(scatter, tried.ravel(), ends)[1].reshape(tried.shape)

    reached = farthest(squares, grids, limit, _HALVINGS // 2)
    low, high = (float(end) for end in np.where(np.isnan(reached), (LOWEST, HIGHEST), reached))
    return np.linspace(low, high, _EXPONENTS)


def _bends_within(
    scatter: Scatter, exponents: Array, limit: float, ends: Interval
) -> tuple[Array, Array]:
    """How far each exponent's bend may go down and up before the limit is passed."""
    centre, _ = _best_bends(scatter, exponents, ends)
    places = np.linspace(0.0, 1.0, _BENDS)
    low, high = (
        farthest(
            lambda bends: _on_grid(scatter, exponents, bends),
            centre[:, None] + (end - centre)[:, None] * places, limit, _HALVINGS,
        )
        for end in ends
    )  # fmt: skip
    return np.where(np.isnan(low), ends[0], low), np.where(np.isnan(high), ends[1], high)


def _open(low: float, high: float, lowest: float, highest: float) -> Interval:
    """An end where the search ended is none."""
    return (
        0.0 if low <= lowest * (1 + 1e-9) else low,
        math.inf if high >= highest * (1 - 1e-9) else high,
    )
