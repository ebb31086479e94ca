"""What one more run of each cell would take: steps, examples, time and cost, against the limits.

Time to the target is statistical efficiency (steps to target) over throughput (steps a second),
as in goodput, Qiao et al. 2021 (Pollux, OSDI, eq. 1 and 6). Both factors were measured; only where
another number of workers is asked for than the study used is the throughput carried over, from
the batch size that was measured with as many examples a worker.

Steps, examples, seconds and loss of an option are of one and the same run: so many steps of its
recipe. Intervals are predictive, for one more run and not for a mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from scipy.special import stdtr  # pyright: ignore -- scipy ships no types

from scaling.analysis.cell_results import CellResult
from scaling.analysis.next_run.one_more_run import (
    CHANCE,
    StepsOfRun,
    loss_after,
    one_more,
    steps_of_run,
    steps_spread,
)
from scaling.analysis.next_run.throughput import Pace, Paces, grows, world_size
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate, SeedVariance, bounded
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.measurement import Measurement
from scaling.records.objective import Objective
from scaling.spec.phases import Limits

SECONDS_PER_HOUR = 3600.0
LossName = Literal["validation_loss", "test_loss"]


@dataclass(frozen=True)
class Option:
    """A run of a cell's recipe on some workers; None and no value are what the data do not allow.

    Attributes:
        num_workers: Data-parallel workers; None where the study does not say.
        carried_over: The study ran this batch on other workers, so seconds are at best: what more
            workers must exchange is not counted.
        steps: Of the run. To a target as many as reach it with `chance_of_target`; the interval
            is of the steps at which one more run reaches it.
        examples: Of so many steps.
        seconds: Of so many steps of training, at the usual pace; the interval shows contention.
        cost: Of all workers for those seconds, in the currency of the price.
        loss: After so many steps; of a whole run on the test examples, where there are any.
        loss_name: `validation_loss` or `test_loss`, which of them that is.
        metric: What recipes are tuned for in place of the loss, after so many steps of a run to
            its budget; no value where they are tuned for the loss.
        mean_steps: Mean of the steps to the target, with the interval of the mean.
        idle_seconds: Mean time to the target, or of the run, on an idle machine, with the interval
            of the mean: what batches are compared by.
        chance_of_target: That one more run reaches the target within `steps`; None without a
            target, or where no replicates show the spread.
        chance: That one more run meets the limits, by the spread over seeds and of the times a
            step; None without limits or where a single seed shows no spread.
        cut_short: The limits end the run before its budget.
        pace: Seconds a step of the trials behind it; None where none was timed.
    """

    cell: CellResult
    num_workers: int | None
    carried_over: bool
    steps: Estimate = ABSENT
    examples: Estimate = ABSENT
    seconds: Estimate = ABSENT
    cost: Estimate = ABSENT
    loss: Estimate = ABSENT
    loss_name: LossName = "validation_loss"
    metric: Estimate = ABSENT
    mean_steps: Estimate = ABSENT
    idle_seconds: Estimate = ABSENT
    chance_of_target: float | None = None
    chance: float | None = None
    cut_short: bool = False
    pace: Pace | None = None


def options(sweep: Sweep, cells: Sequence[CellResult]) -> tuple[Option, ...]:
    """Every cell on the workers that the limits name, else on those that it was measured with.

    With a deadline or a ceiling and no number of workers, also on other powers of two of them
    wherever a batch was measured with as many examples a worker.
    """
    paces, limits = Paces.of(sweep), sweep.limits
    spread = steps_spread([cell.target for cell in cells]) if sweep.has_target else None
    made: list[Option] = []
    for cell in cells:
        for num_workers in _worker_counts(cell, limits):
            option = _placed(cell, num_workers, paces)
            if option is not None and sweep.has_target:
                option = _to_target(option, spread, max_seconds(limits, num_workers))
            elif option is not None:
                option = _whole_run(option, max_seconds(limits, num_workers), sweep.tuned_for)
            if option is not None:
                made.append(_bounded(sweep, replace(option, cost=_cost(option, limits))))
    return tuple(made)


def _bounded(sweep: Sweep, option: Option) -> Option:
    """The option with intervals of its loss and metric that hold nothing impossible."""
    loss, metric = bounded(option.loss, sweep.least_loss), option.metric
    if (known := sweep.metrics.get(sweep.tuned_for.name)) is not None:
        metric = bounded(metric, known.least, known.most)
    return replace(option, loss=loss, metric=metric)


def pareto_front(candidates: Sequence[Option]) -> tuple[Option, ...]:
    """Those that no other beats in both seconds and examples, by rising seconds."""
    timed = [o for o in candidates if o.seconds.value is not None and o.examples.value is not None]
    timed.sort(key=lambda o: (o.seconds.value or 0.0, o.examples.value or 0.0))
    front: list[Option] = []
    for option in timed:
        if not front or (option.examples.value or 0.0) < (front[-1].examples.value or 0.0):
            front.append(option)
    return tuple(front)


def max_seconds(limits: Limits, num_workers: int | None) -> float | None:
    """Seconds that the deadline and the ceiling leave; None where nothing limits them."""
    bounds = [limits.deadline_seconds] if limits.deadline_seconds is not None else []
    if limits.cost_ceiling is not None and limits.price_per_worker_hour is not None:
        hourly = limits.price_per_worker_hour * (num_workers or 1)
        bounds.append(limits.cost_ceiling / hourly * SECONDS_PER_HOUR)
    return min(bounds, default=None)


def _worker_counts(cell: CellResult, limits: Limits) -> tuple[int | None, ...]:
    if limits.num_workers is not None:
        return (limits.num_workers,)
    measured = _measured_workers(cell)
    is_limited = limits.deadline_seconds is not None or limits.cost_ceiling is not None
    if measured is None or not is_limited or cell.global_batch_size is None:
        return (measured,)
    powers = [2**k for k in range(cell.global_batch_size.bit_length())]
    return tuple(sorted({measured, *powers}))


def _placed(cell: CellResult, num_workers: int | None, paces: Paces) -> Option | None:
    """None where this batch cannot be spread over so many workers, or nobody measured it so."""
    measured, row = _measured_workers(cell), _a_run(cell)
    pace = None if row is None else paces.like(row)
    if num_workers == measured:
        return Option(cell, num_workers, carried_over=False, pace=pace)
    batch = cell.global_batch_size
    if num_workers is None or measured is None or batch is None or batch % num_workers:
        return None
    there, here = paces.at(batch / num_workers), paces.at(batch / measured)
    if there is None or here is None or any(map(grows, cell.replicates)):
        return None
    scaled = None if pace is None else pace.times(there / here)
    return Option(cell, num_workers, carried_over=True, pace=scaled)


def _to_target(option: Option, spread: SeedVariance | None, bound: float | None) -> Option:
    target = option.cell.target
    run = steps_of_run(target, spread)
    if run is None or target.steps.value is None:
        return option
    num_steps, pace = float(run.steps), option.pace
    examples = scaled(replace(target.examples, interval=None), num_steps / target.steps.value)
    return replace(
        option,
        steps=Estimate(num_steps, run.one_more, target.steps.count),
        examples=examples,
        seconds=scaled(pace.usual, num_steps) if pace else ABSENT,
        mean_steps=run.mean,
        idle_seconds=_product(run.mean, pace.idle) if pace else ABSENT,
        loss=loss_after(run.steps, target.trials),
        chance_of_target=CHANCE if run.one_more else None,
        chance=None if bound is None or pace is None else _chance_to_target(run, pace, bound),
    )


def _chance_to_target(run: StepsOfRun, pace: Pace, bound: float) -> float | None:
    """That one more run reaches the target by then: by Student's t, over all paces measured."""
    if run.spread is None or run.mean.value is None:
        return None
    distances = [math.log(bound / seconds / run.mean.value) for seconds in pace.seconds]
    if run.spread == 0:
        return fmean(float(distance >= 0) for distance in distances)
    return fmean(
        float(stdtr(run.degrees, distance / run.spread))  # pyright: ignore -- scipy ships no types
        for distance in distances
    )


def _whole_run(option: Option, bound: float | None, objective: Objective) -> Option:
    """The run to its budget, or as far as the limits let it come."""
    cell, pace = option.cell, option.pace
    rows = [row for row in cell.replicates if row.validation_loss is not None]
    num_steps = cell.steps.value
    name: LossName = "validation_loss" if cell.test_loss.value is None else "test_loss"
    whole = replace(
        option,
        steps=cell.steps,
        examples=mean_of([row.examples for row in rows]),
        seconds=ABSENT if pace is None or num_steps is None else scaled(pace.usual, num_steps),
        idle_seconds=ABSENT if pace is None or num_steps is None else scaled(pace.idle, num_steps),
        loss=_held_out(rows, name),
        loss_name=name,
        metric=ABSENT
        if objective.is_loss
        else one_more([row.tuned_value for row in cell.replicates], ()),
    )
    if bound is None or pace is None or num_steps is None:
        return whole
    if (whole.seconds.value or 0.0) <= bound:
        within = [seconds * num_steps <= bound for seconds in pace.seconds]
        return replace(whole, chance=fmean(within) if len(within) > 1 else None)
    usual = pace.usual.value or math.inf
    reached = [_last_before(row, bound / usual) for row in rows]
    points = [point for point in reached if point is not None]
    if not points or len(points) < len(rows):
        return whole
    steps = min(point.step for point in points)
    return replace(
        whole,
        steps=Estimate(float(steps), None, len(points)),
        examples=mean_of([float(point.examples) for point in points]),
        seconds=scaled(pace.usual, steps),
        idle_seconds=scaled(pace.idle, steps),
        loss=loss_after(steps, rows),
        loss_name="validation_loss",
        metric=ABSENT if objective.is_loss else loss_after(steps, rows, objective),
        cut_short=True,
    )


def by_validation_loss(option: Option) -> Option:
    """A run to its budget by the loss that one which is cut short has, too."""
    if option.loss_name == "validation_loss":
        return option
    loss = _held_out(option.cell.replicates, "validation_loss")
    return replace(option, loss=loss, loss_name="validation_loss")


def _last_before(row: TrialRow, steps: float) -> Measurement | None:
    """The last evaluation by then, of a run that would have been the same had it ended there."""
    if row.recipe is None or row.recipe.hyperparameters.schedule != "constant":
        return None
    points = [m for m in row.measurements if m.validation_loss is not None and 0 < m.step <= steps]
    return points[-1] if points else None


def _held_out(rows: Sequence[TrialRow], name: LossName) -> Estimate:
    """Of one more run."""
    values = [getattr(row, name) for row in rows]
    return one_more(values, [getattr(row, f"{name}_stderr") for row in rows])


def mean_of(values: Sequence[float | None]) -> Estimate:
    """The mean, without an interval; no value where one is missing."""
    known = [value for value in values if value is not None]
    is_whole = known and len(known) == len(values)
    return Estimate(fmean(known), None, len(known)) if is_whole else ABSENT


def _cost(option: Option, limits: Limits) -> Estimate:
    if limits.price_per_worker_hour is None or option.seconds.value is None:
        return ABSENT
    hourly = limits.price_per_worker_hour * (option.num_workers or 1)
    return scaled(option.seconds, hourly / SECONDS_PER_HOUR)


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """A value and its interval times a factor."""
    if estimate.value is None:
        return ABSENT
    ends = estimate.interval
    interval = (ends[0] * factor, ends[1] * factor) if ends else None
    return Estimate(estimate.value * factor, interval, estimate.count)


def _product(a: Estimate, b: Estimate) -> Estimate:
    """Of two independent positive estimates; their intervals join in logarithms (MOVER)."""
    if not a.value or not b.value:
        return ABSENT
    value, interval = a.value * b.value, None
    if a.interval is not None and b.interval is not None and min(a.interval[0], b.interval[0]) > 0:
        below = math.hypot(math.log(a.value / a.interval[0]), math.log(b.value / b.interval[0]))
        above = math.hypot(math.log(a.interval[1] / a.value), math.log(b.interval[1] / b.value))
        interval = (value * math.exp(-below), value * math.exp(above))
    return Estimate(value, interval, a.count)


def _measured_workers(cell: CellResult) -> int | None:
    row = _a_run(cell)
    return row and world_size(row)


def _a_run(cell: CellResult) -> TrialRow | None:
    """One that says how the cell's recipe ran."""
    rows = cell.replicates or ((cell.best,) if cell.best else ())
    return next((row for row in rows if world_size(row) is not None), next(iter(rows), None))
