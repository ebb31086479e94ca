"""Steps to several targets: the study's own, and losses that its cells reached.

One target can mislead: how steps fall with the batch depends on how far the loss has to go.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scaling.analysis.cell_results import CellResult
from scaling.analysis.critical_batch.targets import ToTarget, to_target
from scaling.analysis.critical_batch.tradeoff import TradeoffFit, fit_tradeoff
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.objective import Objective
from scaling.records.outcome import crossing, left_to_target
from scaling.spec.evaluation import Target

Origin = Literal[
    "the study's", "every cell's", "three quarters of the cells'", "half of the cells'", "earlier"
]
_SAME = 0.01
"""Two targets closer than this share of themselves are one."""


@dataclass(frozen=True)
class TargetCurve:
    """Steps to one target.

    Attributes:
        target: Of the study's target metric: without another one, validation loss in nats per
            target token or example.
        origin: Whose target it is: the study's, the lowest loss (or best metric) that so many
            cells reached (chosen after the fact), or one on the way there.
        cells: What each cell took, in the order of the cells.
    """

    target: float
    origin: Origin
    cells: tuple[ToTarget, ...]
    fit: TradeoffFit


def tradeoff_of(batch_sizes: Sequence[int | None], reached: Sequence[ToTarget]) -> TradeoffFit:
    """The trade-off over the cells that have steps to the target, each replicate a point.

    A cell that reached it before its second evaluation is left out: its steps may be any up to
    there, which no scatter over seeds shows.
    """
    sizes: list[int] = []
    steps: list[float] = []
    seeds: list[int | None] = []
    for size, cell in zip(batch_sizes, reached, strict=True):
        if size is None or not cell.steps.value or cell.first_gap is not None:
            continue
        for row in cell.trials:
            if row.steps_to_target:
                sizes.append(size)
                steps.append(row.steps_to_target)
                seeds.append(row.seed)
    return fit_tradeoff(sizes, steps, seeds)


def target_curves(sweep: Sweep, cells: Sequence[CellResult]) -> tuple[TargetCurve, ...]:
    """Steps to the study's target and to others, by falling target.

    The others are counted along the trials that the study's own is of, so that a lower target
    takes more steps. Where there are none they are the confirm replicates, and without any the
    fastest recipe of the search at each target. They need losses along the runs, a schedule that
    does not know the horizon, and a batch that stays.

    Returns:
        Only the study's own target where the runs allow no other; nothing without either.
    """
    if not cells:
        return ()
    sizes = [cell.global_batch_size for cell in cells]
    curves: list[TargetCurve] = []
    if sweep.has_target and sweep.target is not None:
        own = tuple(cell.target for cell in cells)
        curves.append(TargetCurve(sweep.target, "the study's", own, tradeoff_of(sizes, own)))
    objective = sweep.target_metric
    for cost, origin in _levels(sweep, cells):
        level = objective.oriented(cost)
        if all(abs(level - curve.target) > _SAME * abs(curve.target) for curve in curves):
            reached = tuple(_at(level, sweep, cell) for cell in cells)
            curves.append(TargetCurve(level, origin, reached, tradeoff_of(sizes, reached)))
    return tuple(sorted(curves, key=lambda curve: -objective.oriented(curve.target)))


def _levels(sweep: Sweep, cells: Sequence[CellResult]) -> list[tuple[float, Origin]]:
    """Further targets, as costs."""
    objective = sweep.target_metric
    runs = [_runs(sweep, cell) for cell in cells]
    if len(cells) < 2 or not all(_allows_targets(rows) for rows in runs):
        return []
    lowest = sorted(
        _lowest(objective, rows, confirmed=bool(_replicates(sweep, cell)))
        for rows, cell in zip(runs, cells, strict=True)
    )
    every, most, half = (lowest[math.ceil(share * len(lowest)) - 1] for share in (1.0, 0.75, 0.5))
    named: list[tuple[float, Origin]] = [
        (every, "every cell's"),
        (most, "three quarters of the cells'"),
        (half, "half of the cells'"),
    ]
    start = min(_first(objective, rows) for rows in runs)
    if every < start < math.inf:
        for share in (1 / 3, 2 / 3):
            between = every + share * (start - every)
            if every > 0:
                between = every * math.exp(share * math.log(start / every))
            named.append((between, "earlier"))
    return [(_rounded_up(cost), origin) for cost, origin in named if cost and cost < math.inf]


def _replicates(sweep: Sweep, cell: CellResult) -> tuple[TrialRow, ...]:
    """The runs of one recipe: that of the study's own target where it has steps to it."""
    confirm = sweep.rows_of(cell.cell, "confirm")
    has_own = sweep.has_target and cell.target.steps.value is not None
    return cell.target.trials if confirm and has_own else confirm


def _runs(sweep: Sweep, cell: CellResult) -> tuple[TrialRow, ...]:
    return _replicates(sweep, cell) or sweep.rows_of(cell.cell, "search")


def _allows_targets(rows: Sequence[TrialRow]) -> bool:
    known = [row.recipe.hyperparameters for row in rows if row.recipe is not None]
    return 0 < len(known) == len(rows) and not any(hparams.has_horizon for hparams in known)


def _costs(objective: Objective, row: TrialRow) -> list[float]:
    return [cost for m in row.measurements if (cost := objective.cost_of(m)) is not None]


def _lowest(objective: Objective, rows: Sequence[TrialRow], *, confirmed: bool) -> float:
    """The lowest cost that every replicate, or that the best search trial, reached."""
    reached = [
        min(_costs(objective, row), default=math.inf)
        if row.status in ("done", "stopped")
        else math.inf
        for row in rows
        if row.status != "failed"
    ]
    return (max if confirmed else min)(reached, default=math.inf)


def _first(objective: Objective, rows: Sequence[TrialRow]) -> float:
    firsts = (costs[0] for row in rows if (costs := _costs(objective, row)))
    return min(firsts, default=math.inf)


def _rounded_up(cost: float) -> float:
    """To three digits, so that the target shown is the target used."""
    unit = 10.0 ** (math.floor(math.log10(abs(cost))) - 2)
    return float(f"{math.ceil(cost / unit) * unit:.10g}")


def _at(level: float, sweep: Sweep, cell: CellResult) -> ToTarget:
    name, is_low = sweep.target_metric.name, sweep.target_metric.direction == "minimize"
    target = Target(metric=name, **{"at_most" if is_low else "at_least": level})
    confirm = [_counted(row, target) for row in _replicates(sweep, cell)]
    search = [_counted(row, target) for row in sweep.rows_of(cell.cell, "search")]
    return to_target(confirm, search)


def _counted(row: TrialRow, target: Target) -> TrialRow:
    lost = row.status in ("diverged", "failed")
    reached = None if lost else crossing(row.measurements, target)
    return replace(
        row,
        steps_to_target=reached.steps if reached else None,
        examples_to_target=reached.examples if reached else None,
        seconds_to_target=reached.seconds if reached else None,
        left_to_target=left_to_target(row.measurements, target),
        first_gap=reached.first_gap if reached else None,
    )
