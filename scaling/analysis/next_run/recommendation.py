"""What to run next, from what was measured and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

from scaling.analysis.baseline import NothingLearnt, learnt_cells, nothing_learnt
from scaling.analysis.cell_results import CellResult
from scaling.analysis.next_run.goodput import Option, max_seconds, options, pareto_front
from scaling.analysis.statistics.uncertainty import mean_estimate
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.spec.phases import Limits

Criterion = Literal["seconds_to_target", "steps_to_target", "validation_loss", "maximized"]
"""What cells are compared by; lower is better, but for a metric that is maximized."""
Goal = Literal["held_out_loss", "worker_seconds", "seconds"]
"""What is made small among the options within the limits."""


@dataclass(frozen=True)
class NothingToRecommend:
    """The data do not allow a choice.

    Attributes:
        lack: A cell of which every replicate reached the target, or has a loss; a batch measured
            on the workers asked for or with as many examples a worker; any time at all.
        num_workers: As asked for.
    """

    lack: Literal["target", "loss", "metric", "workers", "times"]
    num_workers: int | None = None


@dataclass(frozen=True)
class LowestCell:
    """The cell with the best of a criterion.

    Attributes:
        ranked: Every cell that has a value, the chosen one first.
        values: Of each.
        unclear: Those that paired differences over seeds do not tell from the chosen one.
        has_seeds: Whether the chosen one has two seeds or more to pair.
        metric: What is maximized, by its name.
        in_nats: Whether a loss is known to be in nats.
    """

    criterion: Criterion
    ranked: tuple[CellResult, ...]
    values: tuple[float, ...]
    unclear: tuple[CellResult, ...]
    has_seeds: bool
    metric: str | None
    in_nats: bool


@dataclass(frozen=True)
class BestWithinLimits:
    """The best of what is expected to meet the limits.

    Attributes:
        has_target: Whether it runs to the target or to the end of the budget.
        overlapping: Other cells whose interval overlaps with its own.
    """

    goal: Goal
    chosen: Option
    limits: Limits
    has_target: bool
    overlapping: tuple[CellResult, ...]


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
        reason: Why this one, or why none.
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


def _of_cell(criterion: Criterion, cell: CellResult, metric: str | None) -> float | None:
    match criterion:
        case "validation_loss" | "maximized":
            return cell.tuned_value(metric).value
        case "seconds_to_target":
            return cell.target.seconds.value
        case "steps_to_target":
            return cell.target.steps.value
        case _:
            assert_never(criterion)


def recommend(sweep: Sweep, cells: Sequence[CellResult]) -> Recommendation:
    """The best cell within the study's limits on the next run.

    A cell that is no better than the baseline is never it. Without limits it is the one with the
    least expected time to the target, else the lowest validation loss. With a deadline, the one
    that takes the fewest worker-seconds and still meets it; with only a ceiling on cost or a
    number of workers, the soonest; without a target, the lowest loss within the limits.
    """
    candidates = options(sweep, cells)
    if unlearnt := nothing_learnt(sweep, cells):
        return Recommendation(unlearnt, candidates=candidates)
    cells = learnt_cells(sweep, cells)
    limits = sweep.limits
    if (limits.num_workers, limits.deadline_seconds, limits.cost_ceiling) == (None, None, None):
        return _unlimited(sweep, cells, candidates)
    return _limited(sweep, cells, candidates)


def _unlimited(
    sweep: Sweep, cells: Sequence[CellResult], candidates: tuple[Option, ...]
) -> Recommendation:
    metric = sweep.maximized
    criteria: tuple[Criterion, ...] = ("validation_loss" if metric is None else "maximized",)
    if sweep.has_target:
        criteria = ("seconds_to_target", "steps_to_target")
    sign = 1 if metric is None else -1
    for criterion in criteria:
        valued = [(_of_cell(criterion, cell, metric), cell) for cell in cells]
        known = [(value, cell) for value, cell in valued if value is not None]
        if known:
            known.sort(key=lambda entry: sign * entry[0])
            values, ranked = zip(*known, strict=True)
            unclear = tuple(c for c in ranked[1:] if not _worse(criterion, ranked[0], c))
            has_seeds = len({r.seed for r in ranked[0].replicates if r.seed is not None}) > 1
            in_nats = sweep.loss_name == "validation_loss"
            reason = LowestCell(
                criterion, ranked, values, unclear, has_seeds, metric=metric, in_nats=in_nats
            )
            option = next(option for option in candidates if option.cell is ranked[0])
            return _of_option(sweep, option, reason, candidates, meets_limits=None)
    lack = "target" if sweep.has_target else "loss" if metric is None else "metric"
    return Recommendation(NothingToRecommend(lack))


def _of_option(
    sweep: Sweep,
    option: Option,
    reason: Reason,
    candidates: tuple[Option, ...],
    *,
    meets_limits: bool | None,
) -> Recommendation:
    cell = option.cell
    trial = cell.replicates[0] if cell.source == "confirm" else cell.best
    if trial is None or (sweep.has_target and cell.source == "search"):
        trial = next(iter(cell.target.trials), trial)
    return Recommendation(reason, option, trial, meets_limits, candidates, pareto_front(candidates))


def _limited(
    sweep: Sweep, cells: Sequence[CellResult], candidates: tuple[Option, ...]
) -> Recommendation:
    limits, has_target = sweep.limits, sweep.has_target
    usable = [
        option
        for option in candidates
        if any(option.cell is cell for cell in cells)
        and option.seconds.value is not None
        and (has_target or option.loss.value is not None)
    ]
    if not usable:
        return Recommendation(_lacking(sweep, cells), candidates=candidates)
    meeting = [option for option in usable if _meets(option, limits)]
    if not meeting:
        nearest = min(usable, key=_seconds)
        reason = NoneWithinLimits(nearest, limits)
        return _of_option(sweep, nearest, reason, candidates, meets_limits=False)
    goal, key = _goal(limits, has_target=has_target)
    ranked = sorted(meeting, key=key)
    chosen = ranked[0]
    overlapping = {
        id(option.cell): option.cell
        for option in ranked[1:]
        if option.cell is not chosen.cell and _overlaps(option, chosen, has_target=has_target)
    }
    reason = BestWithinLimits(goal, chosen, limits, has_target, tuple(overlapping.values()))
    return _of_option(sweep, chosen, reason, candidates, meets_limits=True)


def _lacking(sweep: Sweep, cells: Sequence[CellResult]) -> NothingToRecommend:
    if sweep.has_target and all(c.target.steps.value is None for c in cells):
        return NothingToRecommend("target")
    workers = sweep.limits.num_workers
    if workers is not None and any(cell.replicates for cell in cells):
        return NothingToRecommend("workers", workers)
    return NothingToRecommend("times")


def _meets(option: Option, limits: Limits) -> bool:
    bound = max_seconds(limits, option.num_workers)
    return bound is None or _seconds(option) <= bound


def _goal(limits: Limits, *, has_target: bool) -> tuple[Goal, Callable[[Option], float]]:
    """What is made small among what meets the limits."""
    if not has_target:
        return "held_out_loss", lambda option: option.loss.value or 0.0
    if limits.deadline_seconds is not None:
        return "worker_seconds", lambda option: _seconds(option) * (option.num_workers or 1)
    return "seconds", _seconds


def _seconds(option: Option) -> float:
    assert option.seconds.value is not None
    return option.seconds.value


def _overlaps(option: Option, chosen: Option, *, has_target: bool) -> bool:
    a, b = (o.seconds if has_target else o.loss for o in (option, chosen))
    if a.interval is None or b.interval is None:
        return True
    return a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1]


def _worse(criterion: Criterion, chosen: CellResult, other: CellResult) -> bool:
    """True when the paired difference over seeds is above zero with its whole interval."""
    name = "cost" if criterion == "maximized" else criterion
    ours: dict[int, float | None] = {
        row.seed: getattr(row, name) for row in chosen.replicates if row.seed is not None
    }
    differences: list[float] = []
    for row in other.replicates:
        mine = None if row.seed is None else ours.get(row.seed)
        theirs = getattr(row, name)
        if theirs is not None and mine is not None:
            differences.append(theirs - mine)
    interval = mean_estimate(differences).interval
    return interval is not None and interval[0] > 0
