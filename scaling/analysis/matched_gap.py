"""The generalization gap of the cells at equal steps, equal examples and equal training loss.

At the end of the budget cells differ in how far they have come, and the gap grows on the way: which
of the three is held equal can turn the conclusion round (Shallue et al. 2018, arXiv:1811.03600).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scaling.analysis.cells import CellResult
from scaling.analysis.rows import TrialRow
from scaling.analysis.uncertainty import ABSENT, Estimate, mean_estimate, root_mean_square

Matched = Literal["steps", "examples", "train_loss"]
MEASURES: tuple[Matched, ...] = ("steps", "examples", "train_loss")


@dataclass(frozen=True)
class MatchedGap:
    """Each cell's gap where all of them are equally far.

    Attributes:
        matched: What is equal.
        at: The furthest that every replicate of every cell reaches; None with fewer than two
            cells that have losses along the run.
        gaps: By cell, validation_loss − train_loss in nats per target, with an interval over
            seeds; absent for a cell without such losses.
    """

    matched: Matched
    at: float | None
    gaps: tuple[Estimate, ...]


@dataclass(frozen=True)
class _Point:
    """One evaluation of a run; `stderr` is of the gap, from sampling both splits."""

    steps: float
    examples: float
    train_loss: float
    gap: float
    stderr: float


def matched_gaps(cells: Sequence[CellResult]) -> tuple[MatchedGap, ...]:
    """The gaps of all cells' replicates at each kind of equal progress.

    Lost replicates are left out. Between evaluations the gap is interpolated linearly in steps or
    examples, or in the logarithm of the training loss on its first way down to the level.
    """
    curves = [
        [_curve(row) for row in cell.replicates if row.status != "diverged"] for cell in cells
    ]
    curves = [[curve for curve in own if curve] for own in curves]
    return tuple(_matched(matched, curves) for matched in MEASURES)


def _matched(matched: Matched, curves: Sequence[Sequence[Sequence[_Point]]]) -> MatchedGap:
    if sum(bool(own) for own in curves) < 2:
        return MatchedGap(matched, None, tuple(ABSENT for _ in curves))
    every = [curve for own in curves for curve in own]
    if matched == "train_loss":
        at = max(min(point.train_loss for point in curve) for curve in every)
    else:
        at = min(getattr(curve[-1], matched) for curve in every)
    return MatchedGap(matched, at, tuple(_gap(matched, at, own) for own in curves))


def _gap(matched: Matched, at: float, curves: Sequence[Sequence[_Point]]) -> Estimate:
    places = [_place(matched, at, curve) for curve in curves]
    gaps = [before.gap + share * (after.gap - before.gap) for before, after, share in places]
    return mean_estimate(gaps, shared_stderr=root_mean_square([p.stderr for _, p, _ in places]))


def _place(matched: Matched, at: float, curve: Sequence[_Point]) -> tuple[_Point, _Point, float]:
    """The evaluations around the first point that is as far as `at`, and where between them."""
    before = curve[0]
    for after in curve:
        if matched == "train_loss":
            if after.train_loss <= at:
                return before, after, _log_share(before.train_loss, after.train_loss, at)
        elif getattr(after, matched) >= at:
            start, end = getattr(before, matched), getattr(after, matched)
            return before, after, (at - start) / (end - start) if end > start else 1.0
        before = after
    raise AssertionError("every curve reaches the point that is common to all")


def _log_share(before: float, after: float, at: float) -> float:
    if after <= 0 or before <= after or before <= at:
        return 1.0
    return math.log(before / at) / math.log(before / after)


def _curve(row: TrialRow) -> list[_Point]:
    return [
        _Point(
            m.step,
            m.examples,
            m.train_loss,
            m.validation_loss - m.train_loss,
            math.hypot(m.validation_loss_stderr or 0.0, m.train_loss_stderr or 0.0),
        )
        for m in row.measurements
        if m.train_loss is not None and m.validation_loss is not None
    ]
