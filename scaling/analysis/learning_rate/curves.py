"""Loss against learning rate in each cell: a curve, its optimum and the interval of that."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from scaling.analysis.critical_batch.targets import by_recipe
from scaling.analysis.learning_rate.basins import Basins, fit_basins
from scaling.analysis.learning_rate.parabola import Points
from scaling.analysis.statistics.profile import Array, Edge, crossings, minimum
from scaling.analysis.statistics.uncertainty import Interval, SeedVariance, t_quantile
from scaling.analysis.trial_rows import TrialRow

_FEWEST_RATES = 3
"""Rates of a cell that a basin of its own needs."""
_MOST_RATES = 1000
"""Rates of a cell that the fit of its optimum goes through."""


@dataclass(frozen=True)
class LrCurve:
    """Loss against peak learning rate in one cell.

    Attributes:
        points: (peak_lr, loss of the best recipe with that rate), by rising rate.
        num_seeds: Seeds behind each point.
        diverged: Rates at which some trial diverged.
        optimum: Rate at the bottom of the basin through the lowest points; None when it has no
            bottom inside the rates tried.
        interval: Of the optimum; None where the data bound it on one side alone.
        edge: The optimum may lie beyond the lowest or the highest rate tried: the bottom of the
            basin does, or the best trial is there and the interval does not say otherwise. A
            diverged trial beyond the best one counts as tried.
        from_surface: The optimum and its interval are read from the surface of all cells, and
            not from a basin of this cell. Then an end beyond the rates tried is infinite.
        has_common_shape: Whether one shape of the basin fits all cells.
        is_contradicted: Whether the surface, which does not assume such a shape, says otherwise.
        is_bracketed: Whether this cell's own basin has its bottom inside the rates tried.
    """

    points: tuple[tuple[float, float], ...]
    num_seeds: tuple[int, ...] = ()
    diverged: tuple[float, ...] = ()
    optimum: float | None = None
    interval: Interval | None = None
    edge: Edge | None = None
    from_surface: bool = False
    has_common_shape: bool = True
    is_contradicted: bool = False
    is_bracketed: bool = False

    @property
    def best_tried(self) -> float | None:
        """The rate with the lowest mean loss."""
        return min(self.points, key=lambda point: point[1])[0] if self.points else None

    @property
    def rates_tried(self) -> set[float]:
        """All of them, those that diverged too."""
        return {rate for rate, _ in self.points} | set(self.diverged)

    @property
    def cliff(self) -> float | None:
        """The lowest rate that diverged; None where none did."""
        return min(self.diverged, default=None)


def lr_curve(rows: Sequence[TrialRow]) -> LrCurve | None:
    """The curve of a single cell; see `lr_curves`."""
    return lr_curves([rows])[0]


def lr_curves(
    cells: Sequence[Sequence[TrialRow]], noise: SeedVariance | None = None
) -> list[LrCurve | None]:
    """The curves of several cells, their optima by one local fit with a common noise.

    Of several recipes with one rate the best counts, at its mean over seeds. The fit is of loss
    against log rate, through the lowest points of each cell: a parabola whose curvature may
    differ on the two sides, in the same ratio in every cell (see `basin`).

    Args:
        cells: The search trials of each.
        noise: See `Sweep.loss_noise`.

    Returns:
        None for a cell in which fewer than three rates were tried, as with a fixed rate.
    """
    curves = [
        curve if curve is not None and len(curve.rates_tried) >= _FEWEST_RATES else None
        for curve in map(curve_of, cells)
    ]
    basins = fit_basins([_logarithms(curve) for curve in curves if curve is not None], noise)
    places = iter(range(len(basins.cells)))
    return [
        None if curve is None else _with_optimum(curve, basins, next(places)) for curve in curves
    ]


def basins_of(curves: Sequence[LrCurve], noise: SeedVariance | None = None) -> Basins:
    """The fit behind some curves, together."""
    return fit_basins([_logarithms(curve) for curve in curves], noise)


def curve_of(rows: Sequence[TrialRow]) -> LrCurve | None:
    """The points of one cell, without an optimum; None where no rate has a loss."""
    envelope: dict[float, tuple[float, int]] = {}
    for recipe in by_recipe(rows):
        losses = [row.cost for row in recipe if row.status == "done"]
        known = [loss for loss in losses if loss is not None]
        rate = recipe[0].peak_lr
        if rate is not None and len(known) == len(recipe):
            found = (fmean(known), len(known))
            envelope[rate] = min(found, envelope.get(rate, found))
    diverged = sorted({r.peak_lr for r in rows if r.status == "diverged" and r.peak_lr})
    if not envelope:
        return None
    ordered = sorted(envelope.items())
    return LrCurve(
        points=tuple((rate, loss) for rate, (loss, _) in ordered),
        num_seeds=tuple(count for _, (_, count) in ordered),
        diverged=tuple(diverged),
    )


def _logarithms(curve: LrCurve) -> Points:
    rates = [rate for rate, _ in curve.points]
    beyond = [rate for rate in curve.diverged if rate > rates[-1]]
    losses = np.array([loss for _, loss in curve.points])
    kept = _lowest_of_neighbours(losses)
    return Points(
        x=np.log(np.array(rates))[kept],
        y=losses[kept],
        weight=np.array(curve.num_seeds, dtype=np.float64)[kept],
        lowest=math.log(min(curve.rates_tried)),
        highest=math.log(max(curve.rates_tried)),
        cliff=math.log(min(beyond)) if beyond else math.inf,
    )


def _lowest_of_neighbours(losses: Array) -> NDArray[np.intp]:
    """The place of the lowest loss in each of at most _MOST_RATES equal groups of rising rates.

    The fit costs as the square of the rates, and its optimum is no better known from more of
    them than that: in equal groups each lowest is as much too low as any other.
    """
    groups = np.array_split(np.arange(len(losses)), min(len(losses), _MOST_RATES))
    return np.array([group[np.argmin(losses[group])] for group in groups], dtype=np.intp)


def _with_optimum(curve: LrCurve, basins: Basins, index: int) -> LrCurve:
    basin = basins.cells[index]
    if basin is None:
        return replace(curve, edge=_edge(curve, None, None))
    bottom = minimum(lambda x: basins.exactly(index, x), basin.grid, basin.squares[basins.best])
    grid, above = basins.profile(index)
    bounds = None
    if basins.variance is not None:
        bounds = crossings(grid, above, basins.variance * t_quantile(basins.degrees) ** 2)
    interval = None if bounds is None else (math.exp(bounds[0]), math.exp(bounds[1]))
    edge = _edge(curve, math.exp(bottom), interval)
    is_flat = float(np.ptp(basin.squares[basins.best])) == 0.0
    inside = edge is None and not is_flat
    return replace(
        curve,
        optimum=math.exp(bottom) if inside else None,
        interval=interval if inside else None,
        edge=edge,
        has_common_shape=basins.is_shared,
        is_bracketed=inside,
    )


def _edge(curve: LrCurve, bottom: float | None, interval: Interval | None) -> Edge | None:
    low, high = min(curve.rates_tried), max(curve.rates_tried)
    best = curve.best_tried
    if (bottom is not None and bottom <= low) or (
        best == low and (interval is None or interval[0] <= low)
    ):
        return "low"
    if (bottom is not None and bottom >= high and curve.points[-1][0] == high) or (
        best == high and (interval is None or interval[1] >= high)
    ):
        return "high"
    return None
