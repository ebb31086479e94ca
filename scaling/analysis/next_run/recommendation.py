"""What to run next, from what was measured and nothing else."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, assert_never

from scaling.analysis.baseline import NothingLearnt, beats_baseline, nothing_learnt
from scaling.analysis.cell_results import CellResult
from scaling.analysis.next_run.goodput import (
    Option,
    by_validation_loss,
    max_seconds,
    options,
    pareto_front,
    scaled,
)
from scaling.analysis.statistics.uncertainty import (
    ABSENT,
    Estimate,
    SeedVariance,
    difference_interval,
    mean_estimate,
    ratio_interval,
    seed_variance,
    t_quantile,
)
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.metrics import Direction, Unit
from scaling.records.objective import Objective, oriented
from scaling.spec.phases import Limits

Criterion = Literal["seconds_to_target", "steps_to_target", "objective"]
"""What cells are compared by: how soon they reach the target, or the loss or metric at the end."""
Goal = Literal["held_out_loss", "metric", "worker_seconds", "seconds"]
"""What decides among the options within the limits: the metric that recipes are tuned for is made
as good as it can be, everything else small."""


@dataclass(frozen=True)
class NothingToRecommend:
    """The data do not allow a choice.

    Attributes:
        lack: What would be needed: a cell that reached the target; a target at which no run
            begins; a cell of which every replicate has a loss, or the metric; a batch measured on
            the workers asked for or with as many examples a worker; any time at all.
        num_workers: As asked for.
    """

    lack: Literal["target", "stricter_target", "loss", "metric", "workers", "times"]
    num_workers: int | None = None


@dataclass(frozen=True)
class LowestCell:
    """The cell with the least of a criterion, or of those that tie the smallest batch.

    Attributes:
        ranked: Every cell that has a value, the lowest first.
        values: Of each, as they were compared.
        tied: Those that the intervals do not tell from the lowest one, without `chosen`.
        is_known: Whether intervals show if the next cell ties; else the lowest value decides.
    """

    criterion: Criterion
    chosen: Option
    ranked: tuple[CellResult, ...]
    values: tuple[Estimate, ...]
    tied: tuple[CellResult, ...]
    is_known: bool
    objective: Objective


@dataclass(frozen=True)
class BestWithinLimits:
    """The best of what is expected to meet the limits.

    Attributes:
        has_target: Whether it runs to the target or to the end of the budget.
        tied: Other cells that the intervals do not tell from the best one.
    """

    goal: Goal
    chosen: Option
    limits: Limits
    has_target: bool
    objective: Objective
    loss_unit: Unit
    tied: tuple[CellResult, ...]


@dataclass(frozen=True)
class NoneWithinLimits:
    """Nothing that was measured is expected to meet the limits; `nearest` takes least time."""

    nearest: Option
    limits: Limits


Reason = NothingLearnt | NothingToRecommend | LowestCell | BestWithinLimits | NoneWithinLimits


@dataclass(frozen=True)
class Recommendation:
    """A recipe that was run, and what to expect of it; None is what the data do not allow.

    Attributes:
        option: The cell, and what a run of it takes.
        trial: One with the recipe.
        meets_limits: Whether its expected seconds and cost are within the limits; None without.
        candidates: Everything that was chosen from.
        front: Those that no other beats in both seconds and examples, by rising seconds.
    """

    reason: Reason
    option: Option | None = None
    trial: TrialRow | None = None
    meets_limits: bool | None = None
    candidates: tuple[Option, ...] = ()
    front: tuple[Option, ...] = ()

    @property
    def global_batch_size(self) -> int | None:
        """Examples per optimizer step."""
        return self.option.cell.global_batch_size if self.option else None


def recommend(sweep: Sweep, cells: Sequence[CellResult]) -> Recommendation:
    """The best cell within the study's limits on the next run.

    A cell that is no better than the baseline is never it. Without limits it is the one with the
    least expected time to the target, else the lowest validation loss. With a deadline, the one
    that takes the fewest worker-seconds and still meets it; with only a ceiling on cost or a
    number of workers, the soonest; without a target, the lowest loss within the limits.

    Times are compared at the pace of an idle machine. Of options whose times the intervals do not
    tell from the least, the one with the fewest workers and the smallest batch is taken: that
    order no noise moves, and a smaller batch takes no more examples.
    """
    candidates = options(sweep, cells)
    if unlearnt := nothing_learnt(sweep, cells):
        return Recommendation(unlearnt, candidates=candidates)
    cells = [cell for cell in cells if beats_baseline(sweep, cell) is not False]
    limits = sweep.limits
    if (limits.num_workers, limits.deadline_seconds, limits.cost_ceiling) == (None, None, None):
        return _unlimited(sweep, cells, candidates)
    return _limited(sweep, cells, candidates)


def _unlimited(
    sweep: Sweep, cells: Sequence[CellResult], candidates: tuple[Option, ...]
) -> Recommendation:
    objective = sweep.tuned_for
    criteria: tuple[Criterion, ...] = ("objective",)
    if sweep.has_target:
        criteria = ("seconds_to_target", "steps_to_target")
    own = [o for o in candidates if any(o.cell is cell for cell in cells) and not o.carried_over]
    for criterion in criteria:
        values = [(o, _compared(criterion, o, objective)) for o in own]
        known = [(o, value) for o, value in values if value.value is not None]
        if known:
            direction: Direction = objective.direction if criterion == "objective" else "minimize"
            known.sort(key=lambda pair: oriented(pair[1].value or 0.0, direction))
            reason = _best_cell(sweep, criterion, *map(list, zip(*known, strict=True)))
            return _of_option(sweep, reason.chosen, reason, candidates, meets_limits=None)
    if sweep.has_target:
        return Recommendation(_no_steps(cells))
    return Recommendation(NothingToRecommend("loss" if objective.is_loss else "metric"))


def _best_cell(
    sweep: Sweep, criterion: Criterion, ranked: list[Option], values: list[Estimate]
) -> LowestCell:
    if criterion == "objective":
        chosen = ranked[0]
        noise = _loss_noise(option.cell for option in ranked)
        tied = [o for o in ranked[1:] if not _is_surely_worse(chosen.cell, o.cell, noise)]
        is_known = len({r.seed for r in chosen.cell.replicates if r.seed is not None}) > 1
    else:
        chosen, tied = _settled(ranked, values)
        # One that is not the first ties with it by the intervals of both.
        is_known = chosen is not ranked[0] or all(v.interval is not None for v in values[:2])
    cells, others = (tuple(option.cell for option in group) for group in (ranked, tied))
    return LowestCell(criterion, chosen, cells, tuple(values), others, is_known, sweep.tuned_for)


def _compared(criterion: Criterion, option: Option, objective: Objective) -> Estimate:
    match criterion:
        case "objective":
            return _of_all_seeds(option, option.cell.value_of(objective))
        case "seconds_to_target":
            return option.idle_seconds
        case "steps_to_target":
            return option.mean_steps
    assert_never(criterion)


def _of_all_seeds(option: Option, value: Estimate) -> Estimate:
    """A loss or metric; no value where a seed diverged, since a mean of the others flatters."""
    return ABSENT if option.cell.has_diverged_seed else value


def _settled(ranked: Sequence[Option], values: Sequence[Estimate]) -> tuple[Option, list[Option]]:
    """Of what ties with the first, the fewest workers and the smallest batch; and the others."""
    tied = [
        option
        for option, value in zip(ranked, values, strict=True)
        if option is ranked[0] or _ties(values[0], value)
    ]
    chosen = min(tied, key=lambda o: (o.num_workers or 1, o.cell.global_batch_size or 0))
    return chosen, [option for option in tied if option is not chosen]


def _ties(a: Estimate, b: Estimate) -> bool:
    """Whether the interval of their ratio holds 1; False where one has no interval."""
    if a.interval is None or b.interval is None or not a.value or not b.value:
        return False
    ratio = ratio_interval(b, a)
    return ratio is None or ratio[0] <= 1


def _touch(a: Estimate, b: Estimate) -> bool:
    """Whether the interval of their difference holds 0; False where one has no interval."""
    if a.value is None or b.value is None or a.interval is None or b.interval is None:
        return False
    low, high = difference_interval(a.value, a.interval, b.value, b.interval)
    return low <= 0 <= high


def _of_option(
    sweep: Sweep,
    option: Option,
    reason: Reason,
    candidates: tuple[Option, ...],
    *,
    meets_limits: bool | None,
) -> Recommendation:
    cell = option.cell
    trial = next(iter(cell.replicates), cell.best)
    if sweep.has_target:
        trial = next(iter(cell.target.trials), trial)
    return Recommendation(reason, option, trial, meets_limits, candidates, pareto_front(candidates))


def _limited(
    sweep: Sweep, cells: Sequence[CellResult], candidates: tuple[Option, ...]
) -> Recommendation:
    limits, has_target, objective = sweep.limits, sweep.has_target, sweep.tuned_for
    goal = _goal(sweep)
    if goal == "held_out_loss" and any(option.cut_short for option in candidates):
        candidates = tuple(map(by_validation_loss, candidates))
    usable = [
        option
        for option in candidates
        if any(option.cell is cell for cell in cells)
        and option.seconds.value is not None
        and _decides(goal, option).value is not None
    ]
    if not usable:
        return Recommendation(_lacking(sweep, cells), candidates=candidates)
    meeting = [option for option in usable if _meets(option, limits)]
    if not meeting:
        nearest = min(usable, key=_seconds)
        reason = NoneWithinLimits(nearest, limits)
        return _of_option(sweep, nearest, reason, candidates, meets_limits=False)
    direction: Direction = objective.direction if goal == "metric" else "minimize"
    meeting.sort(key=lambda option: oriented(_decides(goal, option).value or 0.0, direction))
    ranked, values = meeting, [_decides(goal, option) for option in meeting]
    chosen, tied = _settled(ranked, values) if has_target else (ranked[0], [])
    if not has_target:
        tied = [o for o, v in zip(ranked, values, strict=True) if _touch(values[0], v)]
    others = {id(o.cell): o.cell for o in tied if o.cell is not chosen.cell}
    reason = BestWithinLimits(
        goal, chosen, limits, has_target, objective, sweep.loss_unit, tuple(others.values())
    )
    return _of_option(sweep, chosen, reason, candidates, meets_limits=True)


def _lacking(sweep: Sweep, cells: Sequence[CellResult]) -> NothingToRecommend:
    if sweep.has_target and not any(c.target.steps.value for c in cells):
        return _no_steps(cells)
    if not sweep.has_target and all(cell.has_diverged_seed for cell in cells):
        return NothingToRecommend("loss" if sweep.tuned_for.is_loss else "metric")
    workers = sweep.limits.num_workers
    if workers is not None and any(cell.replicates for cell in cells):
        return NothingToRecommend("workers", workers)
    return NothingToRecommend("times")


def _no_steps(cells: Sequence[CellResult]) -> NothingToRecommend:
    """No cell takes steps to the target: none reached it, or they were at it from the start."""
    is_there = any(cell.target.steps.value == 0 for cell in cells)
    return NothingToRecommend("stricter_target" if is_there else "target")


def _meets(option: Option, limits: Limits) -> bool:
    bound = max_seconds(limits, option.num_workers)
    return bound is None or _seconds(option) <= bound


def _goal(sweep: Sweep) -> Goal:
    """What decides among what meets the limits."""
    if not sweep.has_target:
        return "held_out_loss" if sweep.tuned_for.is_loss else "metric"
    return "worker_seconds" if sweep.limits.deadline_seconds is not None else "seconds"


def _decides(goal: Goal, option: Option) -> Estimate:
    match goal:
        case "held_out_loss":
            return _of_all_seeds(option, option.loss)
        case "metric":
            return _of_all_seeds(option, option.metric)
        case "worker_seconds":
            return scaled(option.idle_seconds, float(option.num_workers or 1))
        case "seconds":
            return option.idle_seconds
    assert_never(goal)


def _seconds(option: Option) -> float:
    assert option.seconds.value is not None
    return option.seconds.value


def _loss_noise(cells: Iterable[CellResult]) -> SeedVariance | None:
    """Of the loss or metric over seeds of one recipe; None where none has two."""
    return seed_variance(
        [
            {row.seed: cost for row in cell.replicates if row.seed is not None
             if (cost := row.cost) is not None}
            for cell in cells
        ]
    )  # fmt: skip


def _is_surely_worse(chosen: CellResult, other: CellResult, noise: SeedVariance | None) -> bool:
    """True when the difference is above zero with its whole interval.

    It is paired over seeds; with fewer than two shared, all recipes' noise stands for both cells'.
    """
    ours = {row.seed: row.cost for row in chosen.replicates if row.seed is not None}
    pairs = [(row.cost, ours.get(row.seed)) for row in other.replicates if row.seed is not None]
    interval = mean_estimate(
        [theirs - mine for theirs, mine in pairs if theirs is not None and mine is not None]
    ).interval
    if interval is not None:
        return interval[0] > 0
    best, costs = _costs(chosen), _costs(other)
    if noise is None or len(best) < 2 or not costs:
        return False
    half = t_quantile(noise.degrees) * math.sqrt(noise.variance * (1 / len(best) + 1 / len(costs)))
    return fmean(costs) - fmean(best) > half


def _costs(cell: CellResult) -> list[float]:
    return [row.cost for row in cell.replicates if row.cost is not None]
