"""What to run next, from what was measured and nothing else."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scaling.analysis.baseline import learnt_cells, nothing_learnt
from scaling.analysis.cells import CellResult
from scaling.analysis.next_run.goodput import Option, max_seconds, options, pareto_front
from scaling.analysis.next_run.recipe_yaml import recipe_yaml
from scaling.analysis.rows import Sweep, TrialRow
from scaling.analysis.statistics.uncertainty import Estimate, mean_estimate
from scaling.analysis.wording import between, counted, joined, number
from scaling.spec.phases import Limits


@dataclass(frozen=True)
class Recommendation:
    """A recipe that was run, and what to expect of it; None is what the data do not allow.

    Attributes:
        reason: Why this one, in words.
        option: The cell, and what a run of it takes.
        trial: One with the recipe.
        meets_limits: Whether its expected seconds and cost are within the limits; None without.
        candidates: Everything that was chosen from.
        front: Those that no other beats in both seconds and examples, by rising seconds.
    """

    reason: str
    option: Option | None = None
    trial: TrialRow | None = None
    meets_limits: bool | None = None
    candidates: tuple[Option, ...] = ()
    front: tuple[Option, ...] = ()

    @property
    def global_batch_size(self) -> int | None:
        """Examples per optimizer step."""
        return self.option.cell.global_batch_size if self.option else None

    @property
    def recipe(self) -> str | None:
        """As YAML for a study file; see `recipe_yaml`."""
        if self.option is None or self.trial is None:
            return None
        steps = self.option.steps
        return recipe_yaml(
            self.trial.recipe,
            steps=steps.interval[1] if steps.interval else steps.value,
            num_workers=self.option.num_workers,
        )


@dataclass(frozen=True)
class _Criterion:
    """What cells are compared by; lower is better."""

    phrase: str
    unit: str
    of_cell: Callable[[CellResult], float | None]
    of_trial: Callable[[TrialRow], float | None]


_SECONDS = _Criterion(
    "least training time to the target",
    "seconds",
    lambda cell: cell.target.seconds.value,
    lambda row: row.seconds_to_target,
)
_STEPS = _Criterion(
    "fewest steps to the target (times were not measured)",
    "steps",
    lambda cell: cell.target.steps.value,
    lambda row: row.steps_to_target,
)
_LOSS = _Criterion(
    "lowest validation loss at the end of the budget",
    "nats",
    lambda cell: cell.validation_loss.value,
    lambda row: row.validation_loss,
)


def recommend(sweep: Sweep, cells: Sequence[CellResult]) -> Recommendation:
    """The best cell within the study's limits on the next run.

    A cell that is no better than the baseline is never it. Without limits it is the one with the
    least expected time to the target, else the lowest validation loss. With a deadline, the one
    that takes the fewest worker-seconds and still meets it; with only a ceiling on cost or a
    number of workers, the soonest; without a target, the lowest loss within the limits.
    """
    candidates = options(sweep, cells)
    if reason := nothing_learnt(sweep, cells):
        return Recommendation(reason, candidates=candidates)
    cells = learnt_cells(sweep, cells)
    if _is_unlimited(sweep.limits):
        return _unlimited(sweep, cells, candidates)
    return _limited(sweep, cells, candidates)


def _is_unlimited(limits: Limits) -> bool:
    return (limits.num_workers, limits.deadline_seconds, limits.cost_ceiling) == (None, None, None)


def _unlimited(
    sweep: Sweep, cells: Sequence[CellResult], candidates: tuple[Option, ...]
) -> Recommendation:
    criteria = (_SECONDS, _STEPS) if sweep.has_target else (_LOSS,)
    for criterion in criteria:
        valued = [(criterion.of_cell(cell), cell) for cell in cells]
        ranked = sorted(
            ((value, cell) for value, cell in valued if value is not None),
            key=lambda entry: entry[0],
        )
        if ranked:
            best = ranked[0][1]
            reason = _reason(criterion, [cell for _, cell in ranked])
            option = next(option for option in candidates if option.cell is best)
            return _of_option(sweep, option, reason, candidates, meets_limits=None)
    wanted = "reached the target" if sweep.has_target else "ended with a loss"
    return Recommendation(f"Not enough data: no cell {wanted} with every replicate.")


def _of_option(
    sweep: Sweep,
    option: Option,
    reason: str,
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
        return Recommendation(_nothing_usable(sweep, cells), candidates=candidates)
    meeting = [option for option in usable if _meets(option, limits)]
    if not meeting:
        nearest = min(usable, key=_seconds)
        bound = max_seconds(limits, nearest.num_workers)
        reason = (
            f"Nothing that was measured is expected to meet {_limit_words(limits)}. The soonest "
            f"takes {_with_interval(nearest.seconds)} seconds{_on_workers(nearest)} at "
            f"{nearest.cell.label}, where {number(bound)} are allowed"
        )
        reason = ". ".join([reason, *_caveats(nearest)]) + "."
        return _of_option(sweep, nearest, reason, candidates, meets_limits=False)
    key, phrase = _goal(limits, has_target=has_target)
    ranked = sorted(meeting, key=key)
    reason = _limited_reason(ranked, limits, phrase, has_target=has_target)
    return _of_option(sweep, ranked[0], reason, candidates, meets_limits=True)


def _nothing_usable(sweep: Sweep, cells: Sequence[CellResult]) -> str:
    if sweep.has_target and all(c.target.steps.value is None for c in cells):
        return "Not enough data: no cell reached the target with every replicate."
    workers = sweep.limits.num_workers
    if workers is not None and any(cell.replicates for cell in cells):
        return (
            f"Not enough data: no batch size was measured with as many examples a worker as "
            f"{counted(workers, 'worker')} would have, and none on {counted(workers, 'worker')}."
        )
    return "Not enough data: no time was measured."


def _meets(option: Option, limits: Limits) -> bool:
    bound = max_seconds(limits, option.num_workers)
    return bound is None or _seconds(option) <= bound


def _goal(limits: Limits, *, has_target: bool) -> tuple[Callable[[Option], float], str]:
    """What is made small among what meets the limits, and its words."""
    if not has_target:
        return lambda option: option.loss.value or 0.0, "lowest held-out loss"
    if limits.deadline_seconds is not None:
        return lambda option: _seconds(option) * (option.num_workers or 1), "fewest worker-seconds"
    return _seconds, "least training time"


def _seconds(option: Option) -> float:
    assert option.seconds.value is not None
    return option.seconds.value


def _limited_reason(
    ranked: Sequence[Option], limits: Limits, phrase: str, *, has_target: bool
) -> str:
    chosen = ranked[0]
    took = f"{_with_interval(chosen.seconds)} seconds{_on_workers(chosen)}"
    if has_target:
        first = f"The {phrase} to the target within {_limit_words(limits)}: {took}"
    else:
        loss = _with_interval(chosen.loss)
        first = f"The {phrase} within {_limit_words(limits)}: {loss} nats after {took}"
    parts = [first, *_sureness(chosen, limits)]
    others = list(
        dict.fromkeys(
            option.cell.label
            for option in ranked[1:]
            if option.cell is not chosen.cell and _overlaps(option, chosen, has_target=has_target)
        )
    )
    if others:
        parts.append(f"Its interval overlaps with that of {joined(others, 'and')}")
    return ". ".join([*parts, *_caveats(chosen)]) + "."


def _overlaps(option: Option, chosen: Option, *, has_target: bool) -> bool:
    a, b = (o.seconds if has_target else o.loss for o in (option, chosen))
    if a.interval is None or b.interval is None:
        return True
    return a.interval[0] <= b.interval[1] and b.interval[0] <= a.interval[1]


def _sureness(option: Option, limits: Limits) -> list[str]:
    if max_seconds(limits, option.num_workers) is None:
        return []
    if option.cut_short:
        return [
            "The limit ends the run before the study's budget, at the last evaluation before it"
        ]
    if option.chance is None:
        return ["How surely one more run meets it is not known from a single seed"]
    count = counted(option.seconds.count, "seed")
    return [f"One more run meets it with a chance of {option.chance:.2f}, by the spread of {count}"]


def _caveats(option: Option) -> list[str]:
    parts: list[str] = []
    if option.carried_over:
        parts.append(
            "Seconds are carried over from a batch with as many examples a worker, so they are at "
            "best: what more workers have to exchange was not measured"
        )
    return parts + _caveats_of_cell(option.cell)


def _caveats_of_cell(cell: CellResult) -> list[str]:
    parts: list[str] = []
    if cell.source == "search":
        parts.append("Picked and measured on the same search trials, so expect somewhat worse")
    if cell.undertuned:
        parts.append(f"It may be undertuned: {' and '.join(cell.undertuned)}")
    return parts


def _limit_words(limits: Limits) -> str:
    words: list[str] = []
    if limits.deadline_seconds is not None:
        words.append(f"{number(limits.deadline_seconds)} seconds")
    if limits.cost_ceiling is not None:
        words.append(f"a cost of {number(limits.cost_ceiling)}")
    if limits.num_workers is not None:
        words.append(counted(limits.num_workers, "worker"))
    return joined(words, "and")


def _on_workers(option: Option) -> str:
    return "" if option.num_workers is None else f" on {counted(option.num_workers, 'worker')}"


def _with_interval(estimate: Estimate) -> str:
    bounds = f" {between(estimate.interval)}" if estimate.interval else ""
    return f"{number(estimate.value)}{bounds}"


def _reason(criterion: _Criterion, ranked: list[CellResult]) -> str:
    chosen = ranked[0]
    parts = [f"The {criterion.phrase}: {number(criterion.of_cell(chosen))} {criterion.unit}"]
    if len(ranked) > 1:
        runner_up = number(criterion.of_cell(ranked[1]))
        parts[0] += f", against {runner_up} for the next ({ranked[1].label})"
        unclear = [cell.label for cell in ranked[1:] if not _worse(criterion, chosen, cell)]
        if len(unclear) == len(ranked) - 1 > 1:
            parts.append("Over paired seeds, the data do not separate it from any other cell")
        elif unclear:
            parts.append(
                f"Over paired seeds, the data do not separate it from {joined(unclear, 'or')}"
            )
    return ". ".join([*parts, *_caveats_of_cell(chosen)]) + "."


def _worse(criterion: _Criterion, chosen: CellResult, other: CellResult) -> bool:
    """True when the paired difference over seeds is above zero with its whole interval."""
    ours = {row.seed: criterion.of_trial(row) for row in chosen.replicates}
    differences: list[float] = []
    for row in other.replicates:
        theirs, mine = criterion.of_trial(row), ours.get(row.seed)
        if theirs is not None and mine is not None:
            differences.append(theirs - mine)
    interval = mean_estimate(differences).interval
    return interval is not None and interval[0] > 0
