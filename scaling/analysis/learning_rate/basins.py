"""The basin of loss against learning rate in several cells at once, and where each is lowest.

A cell has a handful of trials: enough to place its optimum, too few to say how noisy a trial is
and how much steeper the basin is above the optimum than below. Those two are the same trainer's
in every cell, so they are estimated from all of them together. What is left to a cell is its
optimum, its depth and its width; the last two are linear once the optimum is fixed, so that the
sum of squares as a function of the optimum (its profile) is all that later steps need.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc  # pyright: ignore -- scipy ships no types

from scaling.analysis.learning_rate.cliffs import before_cliffs, before_leaps, neighbourhood
from scaling.analysis.learning_rate.parabola import (
    NUM_CANDIDATES,
    RATIOS,
    SYMMETRIC,
    Array,
    Points,
    candidates,
    finer_candidates,
    finer_ratios,
    least_over_ratios,
    sum_of_squares,
)
from scaling.analysis.statistics.uncertainty import SeedVariance, t_quantile

_ZOOMS = 2
_WORTH_SEEING = 25.0
"""Squares above the minimum, in units of the noise, up to which a profile is resolved finely."""
_MILDLY_STEEPER = 3.0
"""Ratio of the curvatures up to which a rise counts as the basin's and not as a cliff."""
_SPARE_FOR_SHAPE = 4
"""Degrees of freedom from which on the asymmetry is fitted too."""
_DRAWS = 999
_EXACT = 1e-7
"""Share of the losses' own squares under which residuals are the grid's and not the fit's."""
_MISFIT_LEVEL = 0.05
"""p-value under which one shape for all cells is given up."""
_CLEAR_RISE, _SOME_RISE = 2.5, 1.0
"""Standard errors by which a loss above the best one bounds the optimum, and counts as a rise."""
_WALL = 400.0
"""Squares, in units of the noise, beyond a clear rise."""


@dataclass(frozen=True)
class Basin:
    """The profile of one cell.

    Attributes:
        grid: Candidate optima (log rate), rising, at uneven steps.
        squares: Sum of squared residuals for each ratio of the curvatures, at each of them.
        points: Those used. With a cliff the optimum cannot lie beyond the grid's end.
    """

    grid: Array
    squares: Array
    points: Points

    def at(self, optimum: Array, ratio: int, steep: float) -> Array:
        """Sum of squares at any optimum; beyond the grid what it is at its end.

        Args:
            optimum: Log rates.
            ratio: Index of the asymmetry.
            steep: What is added beyond a cap.
        """
        row = self.squares[ratio]
        beyond = float(row[-1]) + (steep if math.isfinite(self.points.cliff) else 0.0)
        return np.asarray(np.interp(optimum, self.grid, row, right=beyond), dtype=np.float64)


@dataclass(frozen=True)
class _Resolved:
    """Candidate optima of some cells, and the squares of each by common ratio and optimum."""

    grids: Sequence[Array]
    squares: Sequence[Array]
    ratios: Array

    @property
    def totals(self) -> Array:
        """Of all cells at their best optima, by ratio."""
        rows = [squares.min(axis=1) for squares in self.squares]
        return np.sum(rows, axis=0) if rows else np.zeros(1)

    @property
    def best(self) -> int:
        """Index of the ratio that fits best."""
        return int(np.argmin(self.totals))

    @property
    def least(self) -> float:
        """Squares there."""
        return float(self.totals.min())


@dataclass(frozen=True)
class Basins:
    """Cells that share the noise of a trial and the asymmetry of the basin.

    Attributes:
        cells: One profile a cell; None where fewer than three points are left.
        variance: Of one trial's loss about its basin; None without spare points.
        degrees: Degrees of freedom of `variance`.
        ratios: Curvatures above the optimum over below it that the profiles are for.
        best: Index of the one that fits best.
        is_shared: False where no common shape fits and each cell's profile is of its bounds.
    """

    cells: tuple[Basin | None, ...]
    variance: float | None
    degrees: float
    ratios: Array
    best: int
    is_shared: bool = True

    def exactly(self, index: int, optima: Array) -> Array:
        """Squares of one cell at the best asymmetry, computed anew."""
        cell = self.cells[index]
        assert cell is not None
        if not self.is_shared:
            return cell.at(optima, 0, 0.0)
        return sum_of_squares(cell.points, optima, self.ratios[[self.best]])[0]

    def profile(self, index: int) -> tuple[Array, Array]:
        """Optima and squares of one cell above the least of all cells; the asymmetry at its best.

        The other cells take their best optima at each asymmetry, so that what they say about it
        counts.
        """
        cell = self.cells[index]
        assert cell is not None
        others = [c.squares.min(axis=1) for i, c in enumerate(self.cells) if c and i != index]
        total = cell.squares + np.sum(others, axis=0)[:, None] if others else cell.squares
        above = least_over_ratios(total)
        return cell.grid, above - float(above.min())


def fit_basins(cells: Sequence[Points], noise: SeedVariance | None = None) -> Basins:
    """Profiles of several cells, through the points near each cell's lowest.

    Of n points the lowest max(5, 1.5 n^0.7) count: the neighbourhood of the optimum, narrower
    where there are many. Losses that jump at the right are left out (see `before_cliffs`).

    One shape for all cells is given up where the losses miss it by more than replicates explain,
    by more than where each cell has an asymmetry of its own, or by as much at a rate as at the
    next: see `_each_by_itself`.

    Args:
        cells: The points of each.
        noise: By replicates; None where there are none, or other hyperparameters vary as well.
    """
    near = [neighbourhood(points) for points in before_leaps(cells)]
    kept = [points for points in near if points is not None]
    is_parabola = sum(len(p.x) - 3 for p in kept) - 1 < _SPARE_FOR_SHAPE
    ratios = SYMMETRIC if is_parabola else RATIOS
    used = before_cliffs(kept, ratios[ratios <= _MILDLY_STEEPER])
    degrees = max(sum(len(p.x) - 3 for p in used) - (not is_parabola), 0)
    fit = _resolved(used, ratios, degrees)
    if not is_parabola and _misfits(used, fit, noise):
        return _each_by_itself(near, used, noise)
    found = iter(zip(fit.grids, fit.squares, used, strict=True))
    return Basins(
        cells=tuple(None if points is None else Basin(*next(found)) for points in near),
        variance=fit.least / degrees if degrees else None,
        degrees=degrees,
        ratios=fit.ratios,
        best=fit.best,
    )


def _resolved(used: Sequence[Points], ratios: Array, degrees: int) -> _Resolved:
    """The fit of some cells together, on grids that are fine near its best."""
    grids = [candidates(points) for points in used]
    squares = [sum_of_squares(p, g, ratios) for p, g in zip(used, grids, strict=True)]
    for _ in range(_ZOOMS if used else 0):
        fit = _Resolved(grids, squares, ratios)
        worth = _WORTH_SEEING * fit.least / max(degrees, 1)
        pairs = zip(grids, squares, strict=True)
        grids = [finer_candidates(g, s, fit.best, worth) for g, s in pairs]
        ratios = finer_ratios(ratios, fit.totals, worth)
        squares = [sum_of_squares(p, g, ratios) for p, g in zip(used, grids, strict=True)]
    return _Resolved(grids, squares, ratios)


def _misfits(used: Sequence[Points], fit: _Resolved, noise: SeedVariance | None) -> bool:
    """Whether a test refuses one asymmetry for all cells, or the parabolas altogether."""
    num_cells, count = len(used), sum(len(points.x) for points in used)
    spare, spare_alone = count - 3 * num_cells - 1, count - 4 * num_cells
    shared, alone = fit.least, 0.0
    for points in used:
        alone += _resolved([points], RATIOS, len(points.x) - 4).least
    alone = min(alone, shared)
    tails = [_follow_each_other(used, fit)]
    if noise is not None and noise.variance > 0 and spare > 0:
        tails.append(_f_tail(shared / spare / noise.variance, spare, noise.degrees))
    if num_cells > 1 and spare_alone > 0 and alone > 0:
        excess = (shared - alone) / (num_cells - 1) / (alone / spare_alone)
        tails.append(_f_tail(excess, num_cells - 1, spare_alone))
    return min(tails) < _MISFIT_LEVEL


def _follow_each_other(used: Sequence[Points], fit: _Resolved) -> float:
    """Chance that residuals of neighbouring rates are as alike as these where the shape fits.

    The squares of their differences over their own squares, all cells together, against draws of
    independent noise through the same fit. Needs no replicates.

    Source: von Neumann 1941 (Annals of Mathematical Statistics 12); as a test of a fit, Durbin &
        Watson 1950 (Biometrika 37).
    """
    rng = np.random.default_rng(0)
    ratio = float(fit.ratios[fit.best])
    found, drawn = np.zeros(2), np.zeros((2, _DRAWS))
    whole = 0.0
    for points, grid, squares in zip(used, fit.grids, fit.squares, strict=True):
        root = np.sqrt(points.weight)
        u: Array = points.x - grid[int(np.argmin(squares[fit.best]))]
        bend: Array = np.where(u > 0, math.sqrt(ratio), 1 / math.sqrt(ratio))
        tangents: Array = np.array([root, root * u * u * bend, root * u * bend]).T
        basis, _ = np.linalg.qr(tangents)
        whole += float((points.weight * (points.y - points.y.mean()) ** 2).sum())
        noise = rng.standard_normal((_DRAWS, len(u)))
        for sums, values in ((found, root * points.y), (drawn, noise)):
            left = values - values @ basis @ basis.T
            sums += (np.diff(left) ** 2).sum(axis=-1), (left**2).sum(axis=-1)
    if found[1] <= _EXACT * whole:
        return 1.0
    as_alike = drawn[0] * found[1] <= found[0] * drawn[1]
    return (1 + int(as_alike.sum())) / (1 + _DRAWS)


def _f_tail(ratio: float, above: int, below: float) -> float:
    return float(fdtrc(above, below, max(ratio, 0.0)))  # pyright: ignore -- scipy ships no types


def _each_by_itself(
    near: Sequence[Points | None], used: Sequence[Points], noise: SeedVariance | None
) -> Basins:
    """Each cell's optimum between the nearest clear rises on its two sides, whatever its shape.

    A loss that is clearly above the best one bounds the optimum as long as the basin has one
    bottom. These bounds stand for the interval; between them the profile is drawn so that its
    least is at the vertex of a parabola through the best point and the nearest rises.
    """
    spare = sum(len(p.x) for p in used) - 3 * len(used)
    left = sum(float(sum_of_squares(p, candidates(p), RATIOS).min()) for p in used)
    variance = noise.variance if noise is not None else left / max(spare, 1)
    degrees = noise.degrees if noise is not None else max(spare, 1)
    base = variance * degrees / len(used)  # what the law of the exponent takes for residuals
    found = iter([_bracketed(p, variance, t_quantile(degrees), base) for p in used])
    return Basins(
        cells=tuple(None if points is None else next(found) for points in near),
        variance=variance,
        degrees=degrees,
        ratios=SYMMETRIC,
        best=0,
        is_shared=False,
    )


def _bracketed(points: Points, variance: float, quantile: float, base: float) -> Basin:
    """The profile of one cell that reaches quantile² × variance at the two bounds."""
    x, y, whole = points.x, points.y, candidates(points)
    best = int(np.argmin(y))
    errors = np.sqrt(variance * (1 / points.weight + 1 / points.weight[best]))
    clear = y - y[best] > _CLEAR_RISE * errors
    below, above = np.nonzero(clear[:best])[0], best + np.nonzero(clear[best:])[0]
    low = float(x[below[-1]]) if len(below) else float(whole[0])
    high = min(float(x[above[0]]) if len(above) else math.inf, float(whole[-1]))
    rises = y - y[best] > _SOME_RISE * errors
    under = max(map(int, np.nonzero(rises[:best])[0]), default=best - 1)
    over = min(map(int, best + np.nonzero(rises[best:])[0]), default=best + 1)
    vertex = _vertex(x, y, under, best, over) if under >= 0 and over < len(x) else float(x[best])
    grid = np.unique(np.concatenate([np.linspace(low, high, NUM_CANDIDATES), [vertex]]))
    width = np.where(grid < vertex, vertex - low, high - vertex)
    is_capped = math.isfinite(points.cliff)
    places = np.divide(grid - vertex, width, out=np.zeros_like(grid), where=width > 0)
    # On a side without a bound the limit of an interval is not reached.
    bounded = np.where(grid < vertex, bool(len(below)), bool(len(above)) or is_capped)
    squares = base + variance * quantile**2 * places**2 * np.where(bounded, 1.0, 0.5)
    if len(below):
        squares[0] += _WALL * variance
    if len(above):
        squares[-1] += _WALL * variance
    return Basin(grid, squares[None], points)


def _vertex(x: Array, y: Array, under: int, best: int, over: int) -> float:
    """Of the parabola through three points, the middle one the lowest."""
    falls = (y[under] - y[best]) / (x[best] - x[under])
    rises = (y[over] - y[best]) / (x[over] - x[best])
    if falls + rises <= 0:
        return float(x[best])
    start, end = (x[under] + x[best]) / 2, (x[best] + x[over]) / 2
    return float(start + (end - start) * falls / (falls + rises))
