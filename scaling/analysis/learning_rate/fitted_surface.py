"""The surface through the trials of a sweep, of all its cells and phases."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from scaling.analysis.statistics.uncertainty import seed_variance
from scaling.analysis.trial_rows import Cell, Sweep, TrialRow
from scaling.arithmetic.rules import moves_rate_alone
from scaling.surface.covariance import TO_READ
from scaling.surface.loss_surface import LossSurface, Outcome
from scaling.surface.model import Replicates
from scaling.surface.path import BEYOND, MOST_CELLS
from scaling.surface.space import BATCH, RATE, Axis, Space

_FEWEST_TRIALS = 6
"""Trials with a loss that a surface is fitted to."""
_MOST_TRIALS = 200
"""Of a larger table the lowest losses, evenly over the rates of each cell, count."""
_MOST_IN_LIST = 6
"""Different numbers up to which a hyperparameter was chosen from a list, and not from a range."""
_MOST_STEPS = 64
"""Batch sizes that the surface tells apart where more were sampled than it takes."""
_WIDE = 20.0
"""Ratio of its ends from which on a range is taken as logarithmic."""
_NUM_DRAWS = 512
"""Surfaces that a chance is counted over."""


@dataclass(frozen=True)
class FittedSurface:
    """A surface through the trials of all cells and phases.

    Attributes:
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

    def chance_above(
        self, cell: int, row: TrialRow, others: Sequence[TrialRow], share: float
    ) -> list[float]:
        """That the value of each other recipe in a cell is above a row's by more than a share.

        All of them lie on the axes.
        """
        points = [_point_on(one, self.axes) for one in (row, *others)]
        member = self.member[cell]
        places = self.surface.space.coordinates([(member, point or {}) for point in points])
        drawn = self.surface.loss_draws(places, np.full(len(points), member), _NUM_DRAWS)
        limit = drawn[:, :1] + share * np.abs(drawn[:, :1])
        return [float(chance) for chance in (drawn[:, 1:] > limit).mean(axis=0)]


def fitted_surface(
    sweep: Sweep, searches: Sequence[Sequence[TrialRow]], *, is_steps: bool = False
) -> FittedSurface | None:
    """Fit the surface to the trials of all cells and phases.

    What was searched is read from the search; runs of confirm, and of transfer by a rule that
    moves the rate alone, lie on the same axes and have other seeds.

    Args:
        sweep: The sweep.
        searches: The search trials of each of its cells.
        is_steps: Whether the rows' losses are steps to a target. A run without one then takes
            more steps than it ran, or, where it did not run to its end, than the longest of its
            cell that did. It does not undo the others of its recipe.

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
        for group in _runs(index, [*rows, *_replicates(sweep, cell)], axes, is_steps=is_steps)
    ]
    if not any(group.losses for group in runs):
        return None
    outcomes, noise = _outcomes(runs, len(cells))
    space = Space(tuple(dict(cell) for cell in cells), tuple(axes))
    surface = LossSurface(space, outcomes, noise, TO_READ)
    return FittedSurface(surface, tuple(axes), cells, member)


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
    member = {index: place for place, own in enumerate(steps.values()) for index in own}
    middle = [cells[own[len(own) // 2]] for own in steps.values()]
    return middle, [member[index] for index in range(len(cells))]


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
        losses: Of each run that has one, with its seed; none where one diverged, but for steps.
        lost: Of each run that has none, what it takes at least, None where that is not known. One
            stands for all where one diverged, but for steps.
    """

    cell: int
    point: Mapping[str, Any]
    losses: tuple[tuple[int | None, float], ...]
    lost: tuple[float | None, ...] = ()

    @property
    def mean(self) -> float | None:
        """Of the losses, the lost ones at what they take at least; None where most were lost."""
        bounds = [bound for bound in self.lost if bound is not None]
        if len(self.losses) <= len(self.lost) or len(bounds) < len(self.lost):
            return None
        return fmean([loss for _, loss in self.losses] + bounds)


def _runs(
    index: int, rows: Sequence[TrialRow], axes: Sequence[Axis], *, is_steps: bool
) -> list[_Runs]:
    """The runs of each recipe of a cell that ended."""
    longest = max((r.steps for r in rows if r.status == "done" and r.steps), default=None)
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
        if is_steps:
            missed = [r for r in runs if r.status != "done" or r.cost is None]
            bounds = tuple((r.steps or None) if r.status == "done" else longest for r in missed)
            found.append(_Runs(index, point, known, bounds))
        elif any(row.status == "diverged" for row in runs):
            found.append(_Runs(index, point, (), (None,)))
        elif len(known) == len(runs):
            found.append(_Runs(index, point, known))
    return found


def _outcomes(runs: Sequence[_Runs], num_cells: int) -> tuple[list[Outcome], Replicates | None]:
    """Every run by itself, or where there are too many the mean of each recipe's, and the noise."""
    if sum(len(r.losses) + len(r.lost) for r in runs) <= _MOST_TRIALS:
        return [outcome for r in runs for outcome in _single(r)], None
    means = [
        Outcome(
            r.cell, r.point, r.mean, max(len(r.losses), 1),
            at_least=max((bound for bound in r.lost if bound is not None), default=None),
        )
        for r in runs
    ]  # fmt: skip
    lowest = min(loss for r in runs for _, loss in r.losses)
    scaled = math.log if lowest > 0 else float  # positive losses are compared by their ratios
    noise = seed_variance(
        [{s: scaled(v) for s, v in r.losses if s is not None} for r in runs if len(r.losses) > 1]
    )
    sd = 0.0 if noise is None else math.sqrt(noise.variance)
    known = Replicates(sd, noise.degrees) if noise is not None and sd > 0 else None
    return _thinned(means, num_cells), known


def _single(runs: _Runs) -> list[Outcome]:
    known = [Outcome(runs.cell, runs.point, loss, seed=seed) for seed, loss in runs.losses]
    lost = [Outcome(runs.cell, runs.point, None, at_least=bound) for bound in runs.lost]
    return [*known, *lost]


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
