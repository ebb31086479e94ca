"""What the surface through all trials of a sweep says of best rates and of regrets."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from scaling.analysis.learning_rate.curves import LrCurve, curve_of
from scaling.analysis.learning_rate.exponent import BestRate
from scaling.analysis.learning_rate.rule_regret import RuleCurve, rule_curves
from scaling.analysis.statistics.uncertainty import seed_variance
from scaling.analysis.trial_rows import Cell, Sweep, TrialRow
from scaling.arithmetic.rules import moves_rate_alone
from scaling.surface.carried import CarriedRecipes, is_feasible
from scaling.surface.loss_surface import CellBest, LossSurface, Outcome
from scaling.surface.model import TO_READ, Replicates
from scaling.surface.path import BEYOND, MOST_CELLS, BestRates, best_rates
from scaling.surface.space import BATCH, RATE, Axis, Space

_FEWEST_TRIALS = 6
"""Trials with a loss that a surface is fitted to."""
_MOST_TRIALS = 200
"""Of a larger table the lowest losses, evenly over the rates of each cell, count."""
_MOST_IN_LIST = 6
"""Different numbers up to which a hyperparameter was chosen from a list, and not from a range."""
_FEW_OUTSIDE = 0.1
"""Share of the cells whose basin may leave the surface's interval; it is at 90%."""
_NUM_IN_BAND = 17
"""Batch sizes at which the path of best rates is drawn."""
_MOST_STEPS = 64
"""Batch sizes that the surface tells apart where more were sampled than it takes."""
_WIDE = 20.0
"""Ratio of its ends from which on a range is taken as logarithmic."""


@dataclass(frozen=True)
class BatchPath:
    """What the surface says along the batch sizes of one series.

    Attributes:
        rates: Draws of the best rates.
        places: Index in `rates` of each cell of the series, by the cell's index in the sweep.
        band: The best rates with their intervals at the batch sizes and between them.
        rules: What each rule costs from every batch size to every other one; empty for too many
            cells.
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
        median = rates.rates[place]
        lowest, highest = math.exp(rates.lowest), math.exp(rates.highest)
        edge = "low" if median <= lowest else "high" if median >= highest else None
        if curve.edge is not None and not self.is_adaptive:  # the surface may not exclude its side
            is_open = low is None if curve.edge == "low" else high is None
            edge = curve.edge if is_open else edge
        return replace(
            curve,
            optimum=None if edge else median,
            interval=None if low is None and high is None else interval,
            edge=edge,
            from_surface=True,
        )


@dataclass(frozen=True)
class FittedSurface:
    """A surface through the trials of all cells and phases.

    Attributes:
        surface: The surface.
        axes: What was searched.
        cells: Those of the surface.
        member: Which of them each cell of the sweep is.
    """

    surface: LossSurface
    axes: tuple[Axis, ...]
    cells: Sequence[Cell]
    member: Sequence[int]

    def recipe(self, row: TrialRow) -> str | None:
        """Equal for runs of one recipe in a cell; None for one that is not on the axes."""
        point = _point_on(row, self.axes)
        return None if point is None else repr(point)

    def expected(self, cell: int, row: TrialRow) -> float | None:
        """The value expected of a run's recipe in a cell; None for one that is not on the axes."""
        point = _point_on(row, self.axes)
        return None if point is None else self.surface.expected(self.member[cell], point)


def fitted_surface(sweep: Sweep, searches: Sequence[Sequence[TrialRow]]) -> FittedSurface | None:
    """Fit the surface to the trials of all cells and phases.

    What was searched is read from the search; runs of confirm, and of transfer by a rule that
    moves the rate alone, lie on the same axes and have other seeds.

    Args:
        sweep: The sweep.
        searches: The search trials of each of its cells.

    Returns:
        None with fewer than six search trials that have a loss, with more than a hundred cells
        that differ in more than the batch size, or where nothing was searched.
    """
    axes = _axes([row for rows in searches for row in rows])
    num_known = sum(row.cost is not None for rows in searches for row in rows)
    cells, member = _few_cells(sweep.cells)
    if not axes or num_known < _FEWEST_TRIALS or len(cells) > MOST_CELLS:
        return None
    runs = [
        group
        for index, cell, rows in zip(member, sweep.cells, searches, strict=True)
        for group in _runs(index, [*rows, *_replicates(sweep, cell)], axes)
    ]
    if not any(group.losses for group in runs):
        return None
    outcomes, noise = _outcomes(runs, len(cells))
    space = Space(tuple(dict(cell) for cell in cells), tuple(axes))
    surface = LossSurface(space, outcomes, noise, TO_READ)
    return FittedSurface(surface, tuple(axes), cells, member)


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
    paths = [_path(sweep, fitted, order) for order in series_of(fitted.cells)]
    bests = tuple(bests[index] for index in member)
    known = tuple(path for path in paths if path is not None)
    return SurfaceReading(bests, known, sweep.is_adaptive)


def _path(sweep: Sweep, fitted: FittedSurface, order: Sequence[int]) -> BatchPath | None:
    """Along cells of the surface that differ in nothing but their rising batch sizes."""
    surface, sizes = fitted.surface, [fitted.cells[index][BATCH] for index in order]
    rates = best_rates(surface, order, sizes)
    if rates is None:
        return None
    band = _band(surface, order, sizes)
    rules: tuple[RuleCurve, ...] = ()
    if is_feasible(surface, order):
        recipes = CarriedRecipes(surface, order, _untrained(sweep))
        rules = rule_curves(recipes, sizes, sweep.rules)
    place_of = {cell: place for place, cell in enumerate(order)}
    places = {index: place_of[cell] for index, cell in enumerate(fitted.member) if cell in place_of}
    return BatchPath(rates, places, band, rules)


def _untrained(sweep: Sweep) -> float:
    """The highest value before a first step; infinite where none was evaluated there."""
    first = [row.measurements[0] for row in sweep.rows if row.measurements]
    costs = [sweep.tuned_for.cost_of(found) for found in first if found.step == 0]
    return max((cost for cost in costs if cost is not None), default=math.inf)


def series_of(cells: Sequence[Cell]) -> list[list[int]]:
    """Indices of the cells that differ in nothing but the batch size, by rising batch size."""
    found: dict[str, list[int]] = {}
    for index, cell in enumerate(cells):
        if cell.get(BATCH) is not None:
            others = sorted((name, repr(value)) for name, value in cell.items() if name != BATCH)
            found.setdefault(repr(others), []).append(index)
    return [sorted(order, key=lambda index: cells[index][BATCH]) for order in found.values()]


def _few_cells(cells: Sequence[Cell]) -> tuple[Sequence[Cell], list[int]]:
    """The cells of the surface, and which of them each cell of the sweep is.

    Of more batch sizes than a surface takes (they were sampled), those within equal steps of
    log batch are one, at the middle one of them: steps of 3% over a factor of 8.
    """
    orders = series_of(cells)
    if len(cells) <= MOST_CELLS or len(orders) != 1 or len(orders[0]) < len(cells):
        return cells, list(range(len(cells)))
    order = orders[0]
    low, high = cells[order[0]][BATCH], cells[order[-1]][BATCH]
    width = math.log(high / low) / _MOST_STEPS * (1 + 1e-9)
    steps: dict[int, list[int]] = {}
    for index in order:
        steps.setdefault(int(math.log(cells[index][BATCH] / low) / width), []).append(index)
    member = [0] * len(cells)
    for place, indices in enumerate(steps.values()):
        for index in indices:
            member[index] = place
    return [cells[indices[len(indices) // 2]] for indices in steps.values()], member


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


def _replicates(sweep: Sweep, cell: Cell) -> list[TrialRow]:
    """The runs of a cell after the search that differ from its trials in what was searched."""
    transfer = sweep.rows_of(cell, "transfer")
    carried = [row for row in transfer if row.rule is None or moves_rate_alone(row.rule)]
    confirmed = (*sweep.rows_of(cell, "confirm"), *sweep.rows_of(cell, "confirm_target"))
    return [*confirmed, *carried]


def _point(row: TrialRow) -> dict[str, Any]:
    rate = {} if row.peak_lr is None else {RATE: row.peak_lr}
    return {name: value for name, value in row.choices.items() if name != "base_lr"} | rate


def _point_on(row: TrialRow, axes: Sequence[Axis]) -> dict[str, Any] | None:
    """Where a run lies; None for one beyond the ranges, or with a value that no list has."""
    point = _point(row)
    if row.phase == "search":  # the axes are made of these
        return {axis.name: point[axis.name] for axis in axes}
    known = (row.recipe.columns() if row.recipe is not None else {}) | point
    point = {axis.name: known[axis.name] for axis in axes if axis.name in known}
    on_axes = all(axis.name in point and _is_on(axis, point[axis.name]) for axis in axes)
    return point if on_axes else None


def _is_on(axis: Axis, value: Any) -> bool:
    if axis.choice is not None:
        return value in axis.choice
    if not isinstance(value, int | float) or (axis.log and value <= 0):
        return False
    return abs(axis.place(value)) <= 1 + BEYOND


def _axes(rows: Sequence[TrialRow]) -> list[Axis]:
    """What was searched: every hyperparameter that all trials name and that differs."""
    points = [_point(row) for row in rows]
    common = set(points[0]).intersection(*points) if points else set[str]()
    axes: list[Axis] = []
    for name in sorted(common):
        values = list(dict.fromkeys(point[name] for point in points))
        numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(values) < 2:
            continue
        if len(numbers) < len(values):
            axes.append(Axis(name, choice=tuple(values)))
        elif name != RATE and len(numbers) <= _MOST_IN_LIST:
            axes.append(Axis(name, choice=tuple(sorted(numbers))))
        else:
            low, high = float(min(numbers)), float(max(numbers))
            is_log = low > 0 and (name == RATE or high / low > _WIDE)
            axes.append(Axis(name, low=low, high=high, log=is_log))
    return axes


@dataclass(frozen=True)
class _Runs:
    """All runs of one recipe in one cell.

    Attributes:
        losses: Of each run with its seed; empty where one diverged.
    """

    cell: int
    point: Mapping[str, Any]
    losses: tuple[tuple[int | None, float], ...]


def _runs(index: int, rows: Sequence[TrialRow], axes: Sequence[Axis]) -> list[_Runs]:
    """The runs of each recipe of a cell that ended."""
    groups: dict[object, tuple[dict[str, Any], list[TrialRow]]] = {}
    for row in rows:
        point = _point_on(row, axes)
        if point is not None and row.status in ("done", "diverged"):
            key = row.recipe_key if row.phase == "search" else tuple(point.values())
            groups.setdefault(key, (point, []))[1].append(row)
    found: list[_Runs] = []
    for point, runs in groups.values():
        losses = [(r.seed, r.cost) for r in runs if r.status == "done"]
        known = tuple((seed, loss) for seed, loss in losses if loss is not None)
        if any(row.status == "diverged" for row in runs):
            found.append(_Runs(index, point, ()))
        elif len(known) == len(runs):
            found.append(_Runs(index, point, known))
    return found


def _outcomes(runs: Sequence[_Runs], num_cells: int) -> tuple[list[Outcome], Replicates | None]:
    """Every run by itself, or where there are too many the mean of each recipe's runs.

    Returns:
        The outcomes, and what runs of one recipe with several seeds say of the noise. Its degrees
        are 0 where each run is there by itself and shows that once more.
    """
    noise = seed_variance(
        [{s: loss for s, loss in r.losses if s is not None} for r in runs if len(r.losses) > 1]
    )
    lowest = min(loss for r in runs for _, loss in r.losses)
    unit = lowest if lowest > 0 else 1.0  # positive losses are compared by their ratios
    sd = math.sqrt(noise.variance) / unit if noise is not None else 0.0
    if sum(max(len(r.losses), 1) for r in runs) <= _MOST_TRIALS:
        single = [
            Outcome(r.cell, r.point, loss, seed=seed)
            for r in runs
            for seed, loss in r.losses or [(None, None)]
        ]
        return single, None
    means = [
        Outcome(
            r.cell, r.point, fmean(loss for _, loss in r.losses) if r.losses else None,
            max(len(r.losses), 1),
        )
        for r in runs
    ]  # fmt: skip
    known = Replicates(sd, noise.degrees) if noise is not None and sd > 0 else None
    return _thinned(means, num_cells), known


def _thinned(outcomes: Sequence[Outcome], num_cells: int) -> list[Outcome]:
    """All of them, or of each cell the lowest of as many equal groups of rising rates as fit."""
    if len(outcomes) <= _MOST_TRIALS:
        return list(outcomes)
    kept: list[Outcome] = []
    for cell in range(num_cells):
        own = [o for o in outcomes if o.cell == cell]
        if not own:
            continue  # none of its trials ended
        own.sort(key=lambda o: float(o.point.get(RATE, 0.0)))
        count = min(_MOST_TRIALS // num_cells, len(own))
        ends = [len(own) * group // count for group in range(count + 1)]
        kept += [min(own[a:b], key=_value) for a, b in itertools.pairwise(ends)]
    return kept


def _value(outcome: Outcome) -> float:
    return math.inf if outcome.value is None else outcome.value
