"""Steps that a seed would have taken that missed the target within its budget."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import log_ndtr  # pyright: ignore -- scipy ships no types

from scaling.analysis.statistics.profile import Array
from scaling.analysis.trial_rows import TrialRow

_NEAR = 0.1
"""Share of its way to the target that a seed may have left to be taken for one that was late."""
_MOST_ROUNDS = 500
_SAME = 1e-9
_LEAST_SD = 0.01
"""Of log steps over seeds: seeds that are closer are taken to differ by 1%."""


def with_expected_steps(rows: Sequence[TrialRow]) -> tuple[TrialRow, ...] | None:
    """The rows of one recipe; those that missed the target with the steps expected of them.

    Log steps are taken to be normal over seeds. The seeds that reached the target and the budgets
    that the others passed without it give its mean and deviation, and these what a seed takes
    that takes more than its budget. Left out, such seeds would flatter the recipe. A seed that
    had more than a tenth of its way left may never come there.

    Returns:
        None where most did not reach it, one diverged, had more left or would have trained
        otherwise in a longer run, or where steps are not known or are 0.

    Source: Dempster, Laird & Rubin 1977, Maximum likelihood from incomplete data via the EM
        algorithm, sec. 4.2, for censored normal values.
    """
    missed = [row for row in rows if row.steps_to_target is None]
    if not missed:
        return tuple(rows)
    reached = [row.steps_to_target for row in rows if row.steps_to_target is not None]
    budgets = [row.steps for row in missed if _was_near(row) and row.steps]
    if len(reached) <= len(missed) or len(budgets) < len(missed) or min(reached) <= 0:
        return None
    expected = iter(_expected(np.log(reached), np.log(budgets)))
    return tuple(row if row.steps_to_target else _at(row, math.exp(next(expected))) for row in rows)


def _was_near(row: TrialRow) -> bool:
    return row.status == "done" and row.left_to_target is not None and row.left_to_target <= _NEAR


def _expected(known: Array, above: Array) -> list[float]:
    """[m] what normal values are expected to be of which only a lower bound is known."""
    count = len(known) + len(above)
    both = np.concatenate([known, above])
    mean, sd, expected = float(both.mean()), max(float(both.std()), _LEAST_SD), above
    for _ in range(_MOST_ROUNDS):
        distance = (above - mean) / sd
        hazard = np.exp(-(distance**2) / 2 - log_ndtr(-distance)) / math.sqrt(2 * math.pi)
        expected = mean + sd * hazard
        squares = mean**2 + sd**2 + sd * (above + mean) * hazard
        before, mean = mean, float(known.sum() + expected.sum()) / count
        variance = float((known**2).sum() + squares.sum()) / count - mean**2
        was, sd = sd, max(math.sqrt(max(variance, 0.0)), _LEAST_SD)
        if abs(mean - before) + abs(sd - was) < _SAME:
            break
    return [float(value) for value in np.maximum(expected, above)]


def _at(row: TrialRow, steps: float) -> TrialRow:
    """A row as if it had gone on to the target as it ran."""
    assert row.steps is not None
    longer = steps / row.steps
    return replace(
        row,
        steps_to_target=steps,
        examples_to_target=None if row.examples is None else row.examples * longer,
        seconds_to_target=None if row.seconds is None else row.seconds * longer,
    )
