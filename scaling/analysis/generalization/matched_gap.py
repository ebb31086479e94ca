"""The generalization gap of the cells at equal steps, equal examples and equal training loss.

At the end of the budget cells differ in how far they have come, and the gap grows on the way: which
of the three is held equal can turn the conclusion round (Shallue et al. 2018, arXiv:1811.03600).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scaling.analysis.cell_results import CellResult
from scaling.analysis.generalization.loss_parts import reference_cell
from scaling.analysis.statistics.uncertainty import (
    ABSENT,
    Estimate,
    mean_estimate,
    root_mean_square,
)
from scaling.analysis.trial_rows import TrialRow

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
        differences: By cell, its gap − that of the reference batch, paired by seed; absent for
            the reference itself and where no seed is in both.
        reference_batch_size: The base batch, or the smallest; None where nothing is matched.
        reference: Index of its cell.
    """

    matched: Matched
    at: float | None
    gaps: tuple[Estimate, ...]
    differences: tuple[Estimate, ...]
    reference_batch_size: int | None = None
    reference: int | None = None


@dataclass(frozen=True)
class _Point:
    """One evaluation of a run; `stderr` is of the gap, from sampling both splits."""

    steps: float
    examples: float
    train_loss: float
    gap: float
    stderr: float


Runs = Sequence[tuple[int | None, Sequence[_Point]]]
"""The seed and the evaluations of each run of a cell."""


def matched_gaps(
    cells: Sequence[CellResult], base_batch_size: int | None = None
) -> tuple[MatchedGap, ...]:
    """The gaps of all cells' replicates at each kind of equal progress.

    Lost replicates are left out. Between evaluations the gap is interpolated linearly in steps or
    examples, or in the logarithm of the training loss on its first way down to the level, or in
    the loss itself where it comes to zero or below.
    Intervals of differences are over paired seeds; the error of evaluating on the same examples
    largely cancels and is not in them.
    """
    runs = [
        [(row.seed, _curve(row)) for row in cell.replicates if row.status != "diverged"]
        for cell in cells
    ]
    runs = [[(seed, curve) for seed, curve in own if curve] for own in runs]
    reference = reference_cell(cells, base_batch_size)
    place = next((i for i, cell in enumerate(cells) if cell is reference), None)
    size = reference.global_batch_size if reference else None
    return tuple(_matched(matched, runs, place, size) for matched in MEASURES)


def _matched(
    matched: Matched, cells: Sequence[Runs], place: int | None, size: int | None
) -> MatchedGap:
    absent = tuple(ABSENT for _ in cells)
    if sum(bool(own) for own in cells) < 2:
        return MatchedGap(matched, None, absent, absent)
    every = [curve for own in cells for _, curve in own]
    if matched == "train_loss":
        at = max(min(point.train_loss for point in curve) for curve in every)
    else:
        at = min(getattr(curve[-1], matched) for curve in every)
    gaps = tuple(_gap(matched, at, own) for own in cells)
    if place is None:
        return MatchedGap(matched, at, gaps, absent)
    base = cells[place]
    differences = tuple(
        ABSENT if own is base else _difference(matched, at, own, base) for own in cells
    )
    return MatchedGap(matched, at, gaps, differences, size, place)


def _gap(matched: Matched, at: float, runs: Runs) -> Estimate:
    gaps = [_value(matched, at, curve) for _, curve in runs]
    errors = [_place(matched, at, curve)[1].stderr for _, curve in runs]
    return mean_estimate(gaps, shared_stderr=root_mean_square(errors))


def _difference(matched: Matched, at: float, runs: Runs, base: Runs) -> Estimate:
    theirs = {seed: _value(matched, at, curve) for seed, curve in base}
    # rounded, so that what floats lose is not taken for a difference
    return mean_estimate(
        [
            round(_value(matched, at, curve) - theirs[seed], 12)
            for seed, curve in runs
            if seed in theirs
        ]
    )


def _value(matched: Matched, at: float, curve: Sequence[_Point]) -> float:
    before, after, share = _place(matched, at, curve)
    return before.gap + share * (after.gap - before.gap)


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
    if before <= after or before <= at:
        return 1.0
    if after <= 0:  # where there are no logarithms, evenly
        return (before - at) / (before - after)
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
