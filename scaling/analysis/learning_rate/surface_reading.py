"""What the surface through all trials of a sweep says of best rates and of regrets."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from threadpoolctl import threadpool_limits  # pyright: ignore -- it ships no types

from scaling.analysis.critical_batch.targets import by_recipe
from scaling.analysis.learning_rate.curves import LrCurve, curve_of
from scaling.analysis.trial_rows import Cell, Sweep, TrialRow
from scaling.surface.loss_surface import CellBest, LossSurface, Outcome
from scaling.surface.model import TO_READ, Replicates
from scaling.surface.path import MOST_CELLS, BestRates, best_rates
from scaling.surface.space import BATCH, RATE, Axis, Space

_FEWEST_TRIALS = 6
"""Trials with a loss that a surface is fitted to."""
_MOST_TRIALS = 200
"""Of a larger table the lowest losses, evenly over the rates of each cell, count."""
_MOST_IN_LIST = 6
"""Different numbers up to which a hyperparameter was chosen from a list, and not from a range."""
_WIDE = 20.0
"""Ratio of its ends from which on a range is taken as logarithmic."""


@dataclass(frozen=True)
class SurfaceReading:
    """The surface of a sweep.

    Attributes:
        bests: Each cell's best recipe with its expected regret.
        rates: Draws of the best rates along the batch sizes; None where the cells differ in more
            than those, or no rate was searched.
        places: Index of each cell in `rates`; None for one that is not there.
        is_adaptive: Whether the surface chose the trials.
    """

    bests: tuple[CellBest, ...]
    rates: BestRates | None
    places: tuple[int | None, ...]
    is_adaptive: bool

    def curve(self, index: int, rows: Sequence[TrialRow], curve: LrCurve | None) -> LrCurve | None:
        """A cell's curve, with the best rate and interval of the surface where it has no better.

        Those of a basin that all cells share are better where they exist, unless the surface
        chose the trials: then they cover less often than they say (docs/statistics.md).
        An end of the interval that lies beyond the rates of all batch sizes is infinite; if the
        median does, the optimum is not inside, and the cell is at an edge.
        """
        place = self.places[index]
        is_better = curve is not None and curve.interval is not None and curve.has_common_shape
        if self.rates is None or place is None or (is_better and not self.is_adaptive):
            return curve
        curve = curve or curve_of(rows)
        if curve is None:
            return None
        low, high = self.rates.interval(place)
        interval = (-math.inf if low is None else low, math.inf if high is None else high)
        median = self.rates.rates[place]
        lowest, highest = math.exp(self.rates.lowest), math.exp(self.rates.highest)
        edge = "low" if median <= lowest else "high" if median >= highest else None
        return replace(
            curve,
            optimum=None if edge else median,
            interval=None if low is None and high is None else interval,
            edge=edge,
            from_surface=True,
        )


def read_surface(sweep: Sweep, searches: Sequence[Sequence[TrialRow]]) -> SurfaceReading | None:
    """Fit the surface to the search trials of all cells.

    Args:
        sweep: The sweep.
        searches: The search trials of each of its cells.

    Returns:
        None with fewer than six trials that have a loss, with more than a hundred cells, or where
        nothing was searched.
    """
    axes = _axes([row for rows in searches for row in rows])
    names = {axis.name for axis in axes}
    outcomes = [o for index, rows in enumerate(searches) for o in _outcomes(index, rows, names)]
    num_known = sum(o.value is not None for o in outcomes)
    if not axes or num_known < _FEWEST_TRIALS or len(searches) > MOST_CELLS:
        return None
    outcomes = _thinned(outcomes, len(searches))
    space = Space(tuple(dict(cell) for cell in sweep.cells), tuple(axes))
    surface = LossSurface(space, outcomes, _replicates(sweep, outcomes), TO_READ)
    order = _by_batch(sweep.cells)
    rates = None
    with threadpool_limits(1):  # the matrices are small, and sums on threads differ in the end
        bests = tuple(surface.cells(sweep.small_regret))
        if order is not None:
            rates = best_rates(surface, order, [sweep.cells[index][BATCH] for index in order])
    places = tuple(
        order.index(index) if order is not None and rates is not None else None
        for index in range(len(sweep.cells))
    )
    return SurfaceReading(bests, rates, places, sweep.is_adaptive)


def _by_batch(cells: Sequence[Cell]) -> list[int] | None:
    """Indices of the cells by rising batch size; None where they differ in more than that."""
    if not cells or any(set(cell) != {BATCH} for cell in cells):
        return None
    return sorted(range(len(cells)), key=lambda index: cells[index][BATCH])


def _point(row: TrialRow) -> dict[str, Any]:
    rate = {} if row.peak_lr is None else {RATE: row.peak_lr}
    return {name: value for name, value in row.choices.items() if name != "base_lr"} | rate


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


def _outcomes(index: int, rows: Sequence[TrialRow], names: set[str]) -> list[Outcome]:
    """One for each recipe that ended: its mean loss over seeds, None where a seed diverged."""
    found: list[Outcome] = []
    for recipe in by_recipe(rows):
        ended = [row for row in recipe if row.status != "failed"]
        losses = [row.validation_loss for row in ended if row.status == "done"]
        known = [loss for loss in losses if loss is not None]
        has_diverged = any(row.status == "diverged" for row in ended)
        if not ended or (len(known) < len(ended) and not has_diverged):
            continue
        point = {name: value for name, value in _point(ended[0]).items() if name in names}
        value = fmean(known) if len(known) == len(ended) else None
        found.append(Outcome(index, point, value, len(ended)))
    return found


def _thinned(outcomes: Sequence[Outcome], num_cells: int) -> list[Outcome]:
    """All of them, or of each cell the lowest of as many equal groups of rising rates as fit."""
    if len(outcomes) <= _MOST_TRIALS:
        return list(outcomes)
    kept: list[Outcome] = []
    for cell in range(num_cells):
        own = [o for o in outcomes if o.cell == cell]
        own.sort(key=lambda o: float(o.point.get(RATE, 0.0)))
        count = min(_MOST_TRIALS // num_cells, len(own))
        ends = [len(own) * group // count for group in range(count + 1)]
        kept += [min(own[a:b], key=_value) for a, b in itertools.pairwise(ends)]
    return kept


def _value(outcome: Outcome) -> float:
    return math.inf if outcome.value is None else outcome.value


def _replicates(sweep: Sweep, outcomes: Sequence[Outcome]) -> Replicates | None:
    """The noise of one trial, as the surface has losses: over the loss where all are positive."""
    noise = sweep.loss_noise
    values = [o.value for o in outcomes if o.value is not None]
    if noise is None or noise.variance <= 0:
        return None
    scale = min(values) if min(values) > 0 else 1.0
    return Replicates(math.sqrt(noise.variance) / scale, noise.degrees)
