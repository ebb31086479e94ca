"""Whether anything was learnt: trials against guessing by frequencies, whatever the input."""

# pyright: strict

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scaling.analysis.cell_results import CellResult
from scaling.analysis.statistics.uncertainty import root_mean_square, t_quantile
from scaling.analysis.trial_rows import Baseline, Sweep, TrialRow
from scaling.records.objective import VALIDATION_LOSS, Objective

Nearest = Literal["single_trial", "accuracy", "within_error", "none"]
"""What comes nearest to having learnt something: a single trial whose loss beats the baseline, an
accuracy that does, a loss below it by no more than the evaluation's error, or nothing."""
_ACCURACIES = ("accuracy", "window_accuracy")


@dataclass(frozen=True)
class NothingLearnt:
    """No cell's best recipe beats guessing by frequencies over its seeds.

    Attributes:
        baseline: What guessing gives.
        lowest_loss: Of all trials that ended, in nats.
        best_accuracy: Likewise; None where it was not measured.
        tuned_for: What it was judged by: the loss, or an accuracy.
    """

    baseline: Baseline
    nearest: Nearest
    lowest_loss: float
    best_accuracy: float | None
    tuned_for: Objective = VALIDATION_LOSS


def beats_baseline(sweep: Sweep, cell: CellResult) -> bool | None:
    """Whether the mean loss of a cell's best recipe is below the baseline's beyond doubt.

    That is by more than the error of both losses at 90%, since each is of a sample of the
    validation split; the error is taken as if the samples were two, so it is on the large side.
    Where recipes are tuned for an accuracy it is whether their mean is above that of the likeliest
    guess.

    Returns:
        None where there is no baseline or no loss, or recipes are tuned for another metric.
    """
    if sweep.tuned_for.is_loss:
        known = [row for row in cell.replicates if row.validation_loss is not None]
        return _is_below(sweep.baseline, known)
    accuracy = cell.value_of(sweep.tuned_for).value
    guess = None if sweep.baseline is None else sweep.baseline.accuracy
    if accuracy is None or guess is None or sweep.tuned_for.name not in _ACCURACIES:
        return None
    return accuracy > guess


def nothing_learnt(sweep: Sweep, cells: Sequence[CellResult]) -> NothingLearnt | None:
    """That no cell with a result beats the baseline; None where some cell does."""
    baseline = sweep.baseline
    verdicts = [beats_baseline(sweep, cell) for cell in cells]
    if baseline is None or True in verdicts or False not in verdicts:
        return None
    ended = [row for row in sweep.rows if row.ended and row.validation_loss is not None]
    lowest = min(row.validation_loss for row in ended if row.validation_loss is not None)
    accuracy = max((a for row in ended if (a := _accuracy(row)) is not None), default=None)
    nearest: Nearest = "none"
    if not sweep.tuned_for.is_loss:
        values = [row.tuned_value for row in ended if row.tuned_value is not None]
        if max(values, default=-math.inf) > (baseline.accuracy or 0.0):
            nearest = "single_trial"
        return NothingLearnt(baseline, nearest, lowest, accuracy, sweep.tuned_for)
    if any(_is_below(baseline, [row]) for row in ended):
        nearest = "single_trial"
    elif accuracy is not None and baseline.accuracy is not None and accuracy > baseline.accuracy:
        nearest = "accuracy"
    elif lowest < baseline.validation_loss:
        nearest = "within_error"
    return NothingLearnt(baseline, nearest, lowest, accuracy)


def cells_not_learnt(sweep: Sweep, cells: Sequence[CellResult]) -> tuple[CellResult, ...]:
    """The cells that do not beat the baseline where others do."""
    if nothing_learnt(sweep, cells):
        return ()
    return tuple(cell for cell in cells if beats_baseline(sweep, cell) is False)


def _is_below(baseline: Baseline | None, rows: Sequence[TrialRow]) -> bool | None:
    losses = [row.validation_loss for row in rows if row.validation_loss is not None]
    if baseline is None or not losses:
        return None
    sampling = root_mean_square([row.validation_loss_stderr or 0.0 for row in rows]) or 0.0
    error = math.hypot(sampling, baseline.validation_loss_stderr or 0.0)
    return sum(losses) / len(losses) + t_quantile(math.inf) * error < baseline.validation_loss


def _accuracy(row: TrialRow) -> float | None:
    last = next((m for m in reversed(row.measurements) if m.validation_loss is not None), None)
    if last is None:
        return None
    return next((last.metrics[name] for name in _ACCURACIES if name in last.metrics), None)
