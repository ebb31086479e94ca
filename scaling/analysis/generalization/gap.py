"""The generalization gap: held-out loss minus training loss, both in evaluation mode."""

import math
from collections.abc import Sequence
from typing import Literal

from scaling.analysis.statistics.uncertainty import (
    Estimate,
    bounded,
    mean_estimate,
    root_mean_square,
)
from scaling.analysis.trial_rows import TrialRow

HeldOut = Literal["test_loss", "validation_loss"]
Split = Literal["train_loss", "validation_loss", "test_loss"]
SPLITS: tuple[Split, ...] = ("train_loss", "validation_loss", "test_loss")


def gap_estimate(rows: Sequence[TrialRow], held_out: HeldOut) -> Estimate:
    """Mean over seeds of held-out loss − train_loss, in nats per target.

    Args:
        rows: The replicates of one recipe.
        held_out: test_loss in confirm; validation_loss in search, which picked on it.

    Returns:
        An interval from the seeds (Student's t) and from evaluating on samples of the two
        splits; the sampling does not average down, since all seeds are evaluated on the same
        examples. No interval with fewer than two seeds.
    """
    gaps: list[float] = []
    sampling: list[float] = []
    for row in rows:
        loss: float | None = getattr(row, held_out)
        if loss is None or row.train_loss is None:
            continue
        gaps.append(loss - row.train_loss)
        errors = (getattr(row, f"{held_out}_stderr"), row.train_loss_stderr)
        sampling.append(math.hypot(*(error or 0.0 for error in errors)))
    return mean_estimate(gaps, shared_stderr=root_mean_square(sampling))


def loss_estimate(rows: Sequence[TrialRow], split: Split, least: float | None = None) -> Estimate:
    """Mean over seeds of one loss, with an interval from seeds and evaluation sampling.

    Args:
        rows: The replicates of one recipe.
        split: Of which the loss is.
        least: What no loss of the study is below.
    """
    measured = [row for row in rows if getattr(row, split) is not None]
    errors: list[float] = [getattr(row, f"{split}_stderr") or 0.0 for row in measured]
    values: list[float] = [getattr(row, split) for row in measured]
    return bounded(mean_estimate(values, shared_stderr=root_mean_square(errors)), least)
