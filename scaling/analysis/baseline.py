"""Whether anything was learnt: trials against guessing by frequencies, whatever the input."""

# pyright: strict

import math
from collections.abc import Sequence

from scaling.analysis.cells import CellResult
from scaling.analysis.rows import Baseline, Sweep, TrialRow
from scaling.analysis.statistics.uncertainty import root_mean_square, t_quantile
from scaling.analysis.wording import joined, number

_ACCURACIES = ("accuracy", "window_accuracy")


def beats_baseline(sweep: Sweep, cell: CellResult) -> bool | None:
    """Whether the mean loss of a cell's best recipe is below the baseline's beyond doubt.

    That is by more than the error of both losses at 90%, since each is of a sample of the
    validation split; the error is taken as if the samples were two, so it is on the large side.

    Returns:
        None where there is no baseline or no loss.
    """
    return _is_below(sweep.baseline, [r for r in cell.replicates if r.validation_loss is not None])


def learnt_cells(sweep: Sweep, cells: Sequence[CellResult]) -> tuple[CellResult, ...]:
    """The cells that a batch may be recommended from: all but those that a guess is as good as."""
    return tuple(cell for cell in cells if beats_baseline(sweep, cell) is not False)


def nothing_learnt(sweep: Sweep, cells: Sequence[CellResult]) -> str:
    """That no cell with a loss beats the baseline, in one sentence; empty where some cell does."""
    baseline = sweep.baseline
    verdicts = [beats_baseline(sweep, cell) for cell in cells]
    if baseline is None or True in verdicts or False not in verdicts:
        return ""
    guess = f"always guessing the {baseline.guess} ({number(baseline.validation_loss)} nats)"
    ended = [row for row in sweep.rows if row.ended and row.validation_loss is not None]
    lowest = min(row.validation_loss for row in ended if row.validation_loss is not None)
    if any(_is_below(baseline, [row]) for row in ended):
        return (
            f"No cell's best recipe beats {guess} over its seeds, so no batch is recommended; the "
            f"lowest loss of a single trial is {number(lowest)}."
        )
    accuracy = max((a for row in ended if (a := _accuracy(row)) is not None), default=None)
    if accuracy is not None and baseline.accuracy is not None and accuracy > baseline.accuracy:
        return (
            f"No trial beats {guess} in loss, so no batch is recommended; the best accuracy is "
            f"{number(accuracy)}, and that of the likeliest guess {number(baseline.accuracy)}."
        )
    if lowest < baseline.validation_loss:
        return (
            f"No trial beats {guess} by more than the evaluation's error: the lowest loss is "
            f"{number(lowest)}, so no batch is recommended."
        )
    return f"No trial beats {guess}: the models learned nothing, so no batch is recommended."


def not_learnt_everywhere(sweep: Sweep, cells: Sequence[CellResult]) -> str:
    """Which cells do not beat the baseline where others do, in one sentence; empty without any."""
    baseline = sweep.baseline
    failing = [cell.label for cell in cells if beats_baseline(sweep, cell) is False]
    if baseline is None or not failing or nothing_learnt(sweep, cells):
        return ""
    return (
        f"Not better than always guessing the {baseline.guess} "
        f"({number(baseline.validation_loss)} nats): {joined(failing, 'and')}."
    )


def baseline_words(sweep: Sweep) -> str:
    """What the baseline is and gives, in one sentence; empty without one."""
    baseline = sweep.baseline
    if baseline is None:
        return ""
    right = (
        "" if baseline.accuracy is None else f" and is right {baseline.accuracy:.1%} of the time"
    )
    return (
        f"Baseline: always guessing the {baseline.guess} of the training split has a "
        f"validation loss of {number(baseline.validation_loss)} nats{right}."
    )


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
