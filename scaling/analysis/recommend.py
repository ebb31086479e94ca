"""What to run next, from what was measured and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass

from scaling.analysis.cells import CellResult
from scaling.analysis.findings import Findings
from scaling.analysis.rows import TrialRow
from scaling.analysis.uncertainty import Estimate, Interval, mean_estimate
from scaling.analysis.wording import joined, number


@dataclass(frozen=True)
class Recommendation:
    """A recipe that was run, and what to expect of it; None is what the data do not allow.

    Attributes:
        expected_steps: To the target, else of the whole run.
        expected_seconds: Of training, to the target or of the whole run, on the study's hardware.
        expected_loss_interval: Of the loss at the end of the budget.
        reason: Why this one, in words.
    """

    reason: str
    global_batch_size: int | None = None
    peak_lr: float | None = None
    warmup_steps: int | None = None
    clip_norm: float | None = None
    expected_steps: float | None = None
    expected_seconds: float | None = None
    expected_loss_interval: Interval | None = None


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


def recommend(findings: Findings) -> Recommendation:
    """The cell with the least expected time to the target, else the lowest validation loss."""
    criteria = (_SECONDS, _STEPS) if findings.sweep.has_target else (_LOSS,)
    for criterion in criteria:
        valued = [(criterion.of_cell(cell), cell) for cell in findings.cells]
        ranked = sorted(
            ((value, cell) for value, cell in valued if value is not None),
            key=lambda entry: entry[0],
        )
        if ranked:
            return _of_cell(findings, criterion, [cell for _, cell in ranked])
    wanted = "reached the target" if findings.sweep.has_target else "ended with a loss"
    return Recommendation(reason=f"Not enough data: no cell {wanted} with every replicate.")


def _of_cell(findings: Findings, criterion: _Criterion, ranked: list[CellResult]) -> Recommendation:
    cell = ranked[0]
    to_target = findings.sweep.has_target
    recipe = cell.replicates[0] if cell.source == "confirm" else cell.best
    if recipe is None or (to_target and cell.source == "search"):
        recipe = _fastest_trial(cell) or recipe
    seconds = cell.target.seconds if to_target else _mean_seconds(cell)
    loss = cell.test_loss if cell.test_loss.interval else cell.validation_loss
    return Recommendation(
        reason=_reason(criterion, ranked),
        global_batch_size=cell.global_batch_size,
        peak_lr=recipe.peak_lr if recipe else None,
        warmup_steps=recipe.warmup_steps if recipe else None,
        clip_norm=recipe.clip_norm if recipe else None,
        expected_steps=(cell.target.steps if to_target else cell.steps).value,
        expected_seconds=seconds.value,
        expected_loss_interval=loss.interval,
    )


def _fastest_trial(cell: CellResult) -> TrialRow | None:
    return cell.target.trials[0] if cell.target.trials else None


def _mean_seconds(cell: CellResult) -> Estimate:
    return mean_estimate([row.seconds for row in cell.replicates if row.seconds is not None])


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
    if chosen.source == "search":
        parts.append("Picked and measured on the same search trials, so expect somewhat worse")
    if chosen.undertuned:
        parts.append(f"It may be undertuned: {' and '.join(chosen.undertuned)}")
    return ". ".join(parts) + "."


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
