"""What the surface through all trials of a sweep says of best rates and of regrets."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scaling.analysis.learning_rate.curves import LrCurve, curve_of
from scaling.analysis.learning_rate.exponent import BestRate
from scaling.analysis.learning_rate.fitted_surface import FittedSurface, fitted_surface, series_of
from scaling.analysis.learning_rate.rule_regret import RuleCurve, rule_curves
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.surface.carried import CarriedRecipes, is_feasible
from scaling.surface.loss_surface import CellBest, LossSurface
from scaling.surface.path import BestRates, best_rates
from scaling.surface.space import BATCH

_FEW_OUTSIDE = 0.1
"""Share of the cells whose basin may leave the surface's interval; it is at 90%."""
_NUM_IN_BAND = 17
"""Batch sizes at which the path of best rates is drawn."""


@dataclass(frozen=True)
class BatchPath:
    """What the surface says along the batch sizes of one series.

    Attributes:
        rates: Draws of the best rates.
        places: Index in `rates` of each cell of the series, by the cell's index in the sweep.
        band: The best rates with their intervals at the batch sizes and between them; empty for
            one of a ladder's sizes.
        rules: What each rule costs from every batch size to every other one; empty for too many
            cells, and for one of a ladder's sizes.
    """

    rates: BestRates
    places: Mapping[int, int]
    band: tuple[BestRate, ...]
    rules: tuple[RuleCurve, ...]


@dataclass(frozen=True)
class SurfaceReading:
    """The surface of a sweep.

    Attributes:
        bests: Each cell's best recipe with its expected regret.
        paths: Of each series; empty where no rate was searched.
        is_adaptive: Whether the surface chose the trials.
    """

    bests: tuple[CellBest, ...]
    paths: tuple[BatchPath, ...]
    is_adaptive: bool

    def path(self, index: int) -> BatchPath | None:
        """Of the series that a cell of the sweep is in; None without one."""
        return next((path for path in self.paths if index in path.places), None)

    def curves(
        self, searches: Sequence[Sequence[TrialRow]], curves: Sequence[LrCurve | None]
    ) -> list[LrCurve | None]:
        """The cells' curves, with best rate and interval of the surface where they have no better.

        Those of a basin that all cells share are better where they exist, unless the surface
        chose the trials or contradicts them: then they cover less often than they say
        (docs/statistics.md). An end of the interval that lies beyond the rates of all batch sizes
        is infinite. The cell is at an edge, its optimum not inside, if the median lies there; or
        if the basin's optimum may, and the surface's interval is open on that side.
        """
        if self._contradicts(curves):
            curves = [curve and replace(curve, is_contradicted=True) for curve in curves]
        pairs = enumerate(zip(searches, curves, strict=True))
        return [self._curve(index, rows, curve) for index, (rows, curve) in pairs]

    def _contradicts(self, curves: Sequence[LrCurve | None]) -> bool:
        """Whether more than a tenth of the basins' intervals are not inside the surface's.

        Both are of the same trials, and the basin assumes more. Where that holds its interval is
        narrower and lies inside, but for as many cells as a 90% interval may miss.
        """
        outside: list[bool] = []
        for index, curve in enumerate(curves):
            path = self.path(index)
            if path is not None and curve and curve.interval and curve.has_common_shape:
                low, high = path.rates.interval(path.places[index])
                below = low is not None and curve.interval[0] < low
                outside.append(below or (high is not None and curve.interval[1] > high))
        return sum(outside) > _FEW_OUTSIDE * len(outside)

    def _curve(self, index: int, rows: Sequence[TrialRow], curve: LrCurve | None) -> LrCurve | None:
        path = self.path(index)
        is_refused = curve is None or curve.is_contradicted or not curve.has_common_shape
        is_better = curve is not None and curve.interval is not None and not is_refused
        if path is None or (is_better and not self.is_adaptive):
            return curve
        curve = curve or curve_of(rows)
        if curve is None:
            return None
        rates, place = path.rates, path.places[index]
        low, high = rates.interval(place)
        interval = (-math.inf if low is None else low, math.inf if high is None else high)
        edge = rates.edge(place)
        if curve.edge is not None and not self.is_adaptive:  # the surface may not exclude its side
            is_open = low is None if curve.edge == "low" else high is None
            edge = curve.edge if is_open else edge
        return replace(
            curve,
            optimum=None if edge else rates.rates[place],
            interval=None if low is None and high is None else interval,
            edge=edge,
            from_surface=True,
        )


def read_surface(sweep: Sweep, searches: Sequence[Sequence[TrialRow]]) -> SurfaceReading | None:
    """What the surface says of best rates, of regrets and of rules; arguments as `fitted_surface`.

    Returns:
        None where there is no surface.
    """
    fitted = fitted_surface(sweep, searches)
    if fitted is None:
        return None
    surface, member = fitted.surface, fitted.member
    bests = tuple(surface.cells(sweep.small_regret))
    orders = series_of(fitted.cells)
    # What a ladder says along its batch sizes is read through all of its sizes together.
    is_size = sweep.ladder is not None and len(orders) > 1
    paths = [_path(sweep, fitted, order, is_size=is_size) for order in orders]
    bests = tuple(bests[index] for index in member)
    known = tuple(path for path in paths if path is not None)
    return SurfaceReading(bests, known, sweep.is_adaptive)


def _path(
    sweep: Sweep, fitted: FittedSurface, order: Sequence[int], *, is_size: bool
) -> BatchPath | None:
    """Along cells of the surface that differ in nothing but their rising batch sizes."""
    surface, sizes = fitted.surface, [fitted.cells[index][BATCH] for index in order]
    rates = best_rates(surface, order, sizes)
    if rates is None:
        return None
    band = () if is_size else _band(surface, order, sizes)
    rules: tuple[RuleCurve, ...] = ()
    if not is_size and is_feasible(surface, order):
        recipes = CarriedRecipes(surface, order, _untrained(sweep))
        at_edge = [rates.edge(place) is not None for place in range(len(sizes))]
        rules = rule_curves(recipes, sizes, at_edge, sweep.rules)
    place_of = {cell: place for place, cell in enumerate(order)}
    places = {index: place_of[cell] for index, cell in enumerate(fitted.member) if cell in place_of}
    return BatchPath(rates, places, band, rules)


def _untrained(sweep: Sweep) -> float:
    """The highest value before a first step; infinite where none was evaluated there."""
    first = [row.measurements[0] for row in sweep.rows if row.measurements]
    costs = [sweep.tuned_for.cost_of(found) for found in first if found.step == 0]
    return max((cost for cost in costs if cost is not None), default=math.inf)


def _band(surface: LossSurface, cells: Sequence[int], sizes: Sequence[int]) -> tuple[BestRate, ...]:
    """The best rates at evenly spread batch sizes, other hyperparameters as at the nearest."""
    if len(sizes) < 2:
        return ()
    between = np.unique(np.geomspace(sizes[0], sizes[-1], _NUM_IN_BAND).round().astype(int))
    nearest = [
        cells[min(range(len(sizes)), key=lambda i: abs(math.log(sizes[i] / size)))]
        for size in between
    ]
    band: list[BestRate] = []
    for cell, size in zip(nearest, between, strict=True):
        # Each by itself: only intervals are shown, and draws of all together cost 17 times more.
        rates = best_rates(surface, [cell], [int(size)])
        if rates is None:
            return ()
        low, high = rates.interval(0)
        ends = low or math.exp(rates.lowest), high or math.exp(rates.highest)
        band.append(BestRate(int(size), rates.rates[0], ends))
    return tuple(band)
