"""What one more run of each cell would take: steps, examples, time and cost, against the limits.

Time to the target is statistical efficiency (steps to target) over throughput (steps a second),
as in goodput, Qiao et al. 2021 (Pollux, OSDI, eq. 1 and 6). Both factors were measured; only where
another number of workers is asked for than the study used is the throughput carried over, from
the batch size that was measured with as many examples a worker.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, stdev

import numpy as np
from scipy.special import stdtr  # pyright: ignore -- scipy ships no types

from scaling.analysis.cell_results import CellResult
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate, mean_estimate
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.measurement import Measurement
from scaling.spec.phases import Limits

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True)
class Option:
    """A cell's recipe on some workers; None and no value are what the data do not allow.

    Attributes:
        num_workers: Data-parallel workers; None where the study does not say.
        carried_over: The study ran this batch on other workers, so seconds are at best: what more
            workers must exchange is not counted.
        steps: To the target, else of the run.
        examples: Likewise.
        seconds: Of training, likewise.
        cost: Of all workers for those seconds, in the currency of the price.
        loss: Held-out, at the end; of a run that a limit cuts short, validation_loss there.
        chance: That one more run meets the limits, by the spread over seeds; None without limits
            or where a single seed shows no spread.
        cut_short: The limits end the run before its budget.
    """

    cell: CellResult
    num_workers: int | None
    carried_over: bool
    steps: Estimate = ABSENT
    examples: Estimate = ABSENT
    seconds: Estimate = ABSENT
    cost: Estimate = ABSENT
    loss: Estimate = ABSENT
    chance: float | None = None
    cut_short: bool = False


def options(sweep: Sweep, cells: Sequence[CellResult]) -> tuple[Option, ...]:
    """Every cell on the workers that the limits name, else on those that it was measured with.

    With a deadline or a ceiling and no number of workers, also on other powers of two of them
    wherever a batch was measured with as many examples a worker.
    """
    times = _StepTimes.of(sweep.rows)
    has_target, limits = sweep.has_target, sweep.limits
    made: list[Option] = []
    for cell in cells:
        for num_workers in _worker_counts(cell, limits):
            option = _option(cell, num_workers, times, limits, has_target=has_target)
            if option is not None:
                made.append(option)
    return tuple(made)


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


@dataclass(frozen=True)
class _StepTimes:
    """Seconds a step by examples a worker, rising."""

    shares: tuple[float, ...]
    seconds: tuple[float, ...]

    @classmethod
    def of(cls, rows: Sequence[TrialRow]) -> "_StepTimes":
        by_share: dict[float, list[float]] = {}
        for row in rows:
            world_size, step = _world_size(row), _seconds_per_step(row)
            # Workers under tp share every example, so other numbers of them do not follow.
            layout = row.recipe.layout if row.recipe is not None else None
            shares_batch = layout is not None and layout.data_parallel_size == layout.world_size
            if world_size and shares_batch and step is not None and not _grows(row):
                by_share.setdefault(row.global_batch_size / world_size, []).append(step)
        shares = tuple(sorted(by_share))
        return cls(shares, tuple(median(by_share[share]) for share in shares))

    def at(self, share: float) -> float | None:
        """Interpolated in logarithms; None outside of what was measured."""
        if not self.shares or not self.shares[0] <= share <= self.shares[-1]:
            return None
        logs = np.interp(math.log(share), np.log(self.shares), np.log(self.seconds))
        return math.exp(float(logs))


def _worker_counts(cell: CellResult, limits: Limits) -> tuple[int | None, ...]:
    if limits.num_workers is not None:
        return (limits.num_workers,)
    measured = _measured_workers(cell)
    is_limited = limits.deadline_seconds is not None or limits.cost_ceiling is not None
    if measured is None or not is_limited or cell.global_batch_size is None:
        return (measured,)
    powers = [2**k for k in range(cell.global_batch_size.bit_length())]
    return tuple(sorted({measured, *powers}))


def _option(
    cell: CellResult,
    num_workers: int | None,
    times: _StepTimes,
    limits: Limits,
    *,
    has_target: bool,
) -> Option | None:
    """None where this batch cannot be spread over so many workers, or nobody measured it so."""
    measured = _measured_workers(cell)
    carried_over = num_workers != measured
    factor = 1.0
    if carried_over:
        batch = cell.global_batch_size
        if num_workers is None or measured is None or batch is None or batch % num_workers:
            return None
        there, here = times.at(batch / num_workers), times.at(batch / measured)
        if there is None or here is None or any(_grows(row) for row in cell.replicates):
            return None
        factor = there / here
    bound = max_seconds(limits, num_workers)
    option = Option(cell, num_workers, carried_over)
    takes = _to_target if has_target else _whole_run
    option = takes(option, factor, bound)
    price = limits.price_per_worker_hour
    hourly = None if price is None else price * (num_workers or 1)
    return replace(option, cost=_scaled(option.seconds, hourly and hourly / SECONDS_PER_HOUR))


def _to_target(option: Option, factor: float, bound: float | None) -> Option:
    target = option.cell.target
    seconds = [r.seconds_to_target * factor for r in target.trials if r.seconds_to_target]
    complete = target.steps.value is not None and len(seconds) == len(target.trials)
    return replace(
        option,
        steps=target.steps,
        examples=target.examples,
        seconds=mean_estimate(seconds) if complete else ABSENT,
        loss=_held_out(option.cell),
        chance=_chance(seconds, bound) if complete else None,
    )


def _whole_run(option: Option, factor: float, bound: float | None) -> Option:
    """The run to its budget, or as far as the limits let it come."""
    rows = [row for row in option.cell.replicates if row.validation_loss is not None]
    seconds = [row.seconds * factor for row in rows if row.seconds is not None]
    ends = Option(
        option.cell,
        option.num_workers,
        option.carried_over,
        steps=option.cell.steps,
        examples=mean_estimate([row.examples for row in rows if row.examples is not None]),
        seconds=mean_estimate(seconds) if len(seconds) == len(rows) else ABSENT,
        loss=_held_out(option.cell),
        chance=_chance(seconds, bound) if len(seconds) == len(rows) else None,
    )
    fits = ends.seconds.value is None or bound is None or ends.seconds.value <= bound
    if fits or bound is None:
        return ends
    reached = [_last_before(row, bound / factor) for row in rows]
    points = [point for point in reached if point is not None]
    if not points or len(points) < len(rows):
        return ends
    return replace(
        ends,
        steps=mean_estimate([point.step for point in points]),
        examples=mean_estimate([point.examples for point in points]),
        seconds=mean_estimate([point.seconds * factor for point in points]),
        loss=mean_estimate([point.validation_loss or 0.0 for point in points]),
        chance=None,
        cut_short=True,
    )


def _last_before(row: TrialRow, seconds: float) -> Measurement | None:
    """The last evaluation by then, of a run that would have been the same had it ended there."""
    if row.recipe is None or row.recipe.hyperparameters.schedule != "constant":
        return None
    points = [
        m
        for m in row.measurements
        if m.validation_loss is not None and m.seconds <= seconds and m.step > 0
    ]
    return points[-1] if points else None


def _chance(seconds: Sequence[float], bound: float | None) -> float | None:
    """That one more run takes no longer than `bound`: Student's t, predictive over seeds."""
    if bound is None or len(seconds) < 2:
        return None
    spread = stdev(seconds) * math.sqrt(1 + 1 / len(seconds))
    distance = bound - fmean(seconds)
    if spread == 0:
        return float(distance >= 0)
    return float(stdtr(len(seconds) - 1, distance / spread))  # pyright: ignore -- scipy ships no types


def _held_out(cell: CellResult) -> Estimate:
    return cell.test_loss if cell.test_loss.value is not None else cell.validation_loss


def _scaled(estimate: Estimate, factor: float | None) -> Estimate:
    if estimate.value is None or factor is None:
        return ABSENT
    ends = estimate.interval
    interval = (ends[0] * factor, ends[1] * factor) if ends else None
    return Estimate(estimate.value * factor, interval, estimate.count)


def _measured_workers(cell: CellResult) -> int | None:
    rows = cell.replicates or ((cell.best,) if cell.best else ())
    return next((size for row in rows if (size := _world_size(row)) is not None), None)


def _world_size(row: TrialRow) -> int | None:
    return row.recipe.layout.world_size if row.recipe else None


def _grows(row: TrialRow) -> bool:
    return row.recipe is not None and bool(row.recipe.hyperparameters.batch_ramp_at_examples)


def _seconds_per_step(row: TrialRow) -> float | None:
    if row.status != "done" or not row.seconds or not row.steps:
        return None
    return row.seconds / row.steps
