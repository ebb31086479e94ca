"""The runs of a ladder, from a study's trials or a table's rows, and whether they can be fitted."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.surface.ladder.runs import Runs

FEWEST_RUNS, FEWEST_OF_SIZE = 12, 3
"""Runs with a loss: of all sizes together, and of each size. Of a size that was only checked, so
many recipes with a loss."""
_FITTED = ("search", "confirm", "check")


@dataclass(frozen=True)
class LadderRun:
    """One run.

    Attributes:
        scale: The numbers that its size is, in the order of the question's names.
        loss: At the end; None where it diverged.
        seed: None where it is not known.
    """

    scale: tuple[float, ...]
    global_batch_size: int
    peak_lr: float
    loss: float | None
    seed: int | None = None


@dataclass(frozen=True)
class Problem:
    """Why runs of several sizes cannot be fitted.

    Attributes:
        kind: One size alone; a number that is the same for all of them; too few runs; too few of
            one size; one batch size alone or one rate; losses of which some are not positive; a
            metric in place of the loss.
        name: Of the number that is the same.
        scale: The size that has too few runs.
        count: How many sizes or runs there are.
    """

    kind: Literal[
        "one_size", "same_scale", "few_runs", "few_of_size", "one_batch", "one_rate",
        "not_positive", "maximized",
    ]  # fmt: skip
    name: str = ""
    scale: tuple[float, ...] = ()
    count: int = 0


def runs_of(sweep: Sweep, scale: Sequence[str]) -> list[LadderRun]:
    """The runs of a sweep that ended, of sizes that can be fitted, by the numbers of each cell."""
    without = not_fitted(sweep, scale)
    return [
        LadderRun(
            size,
            row.global_batch_size,
            row.peak_lr,
            None if row.status == "diverged" else row.validation_loss,
            row.seed,
        )
        for row in sweep.rows
        if row.phase in _FITTED and row.peak_lr is not None
        if row.status == "diverged" or row.validation_loss is not None
        if (size := _size_of(row, scale)) not in without
    ]


def not_fitted(sweep: Sweep, scale: Sequence[str]) -> dict[tuple[float, ...], int]:
    """Sizes that are not fitted, and how many of their recipes have a loss, by rising compute.

    None of a size that was searched has one, so that nothing is known of its floor. Of one that was
    only checked fewer than three have: that check is not over, or its runs diverged, which is no
    reason to fit none of the others.
    """
    recipes: dict[tuple[float, ...], set[tuple[int, float | None]]] = {}
    searched: set[tuple[float, ...]] = set()
    for row in sweep.rows:
        if row.phase not in _FITTED:
            continue
        size = _size_of(row, scale)
        found = recipes.setdefault(size, set())
        if row.validation_loss is not None and row.status != "diverged":
            found.add((row.global_batch_size, row.peak_lr))
        if row.phase != "check":
            searched.add(size)
    return {
        size: len(recipes[size])
        for size in _by_compute(recipes)
        if len(recipes[size]) < (1 if size in searched else FEWEST_OF_SIZE)
    }


def _size_of(row: TrialRow, scale: Sequence[str]) -> tuple[float, ...]:
    return tuple(float(row.cell[name]) for name in scale)


def problem_of(sweep: Sweep, scale: Sequence[str]) -> Problem | None:
    """Why a sweep cannot be fitted as a ladder; None where it can."""
    if not sweep.tuned_for.is_loss:
        return Problem("maximized", name=sweep.tuned_for.name)
    runs = runs_of(sweep, scale)
    sizes = sizes_of(runs)
    if len(sizes) < 2:
        return Problem("one_size", count=len(sizes))
    for name, values in zip(scale, zip(*sizes, strict=True), strict=True):
        if len(set(values)) < 2:
            return Problem("same_scale", name=name)
    with_loss = [run for run in runs if run.loss is not None]
    if any(run.loss is not None and run.loss <= 0 for run in with_loss):
        return Problem("not_positive")
    if len(with_loss) < FEWEST_RUNS:
        return Problem("few_runs", count=len(with_loss))
    for size in sizes:
        count = sum(run.scale == size for run in with_loss)
        if count < FEWEST_OF_SIZE:
            return Problem("few_of_size", scale=size, count=count)
    if len({run.global_batch_size for run in with_loss}) < 2:
        return Problem("one_batch")
    if len({run.peak_lr for run in with_loss}) < 2:
        return Problem("one_rate")
    return None


def sizes_of(runs: Iterable[LadderRun]) -> list[tuple[float, ...]]:
    """The different sizes, by rising compute."""
    return _by_compute({run.scale for run in runs})


def _by_compute(sizes: Iterable[tuple[float, ...]]) -> list[tuple[float, ...]]:
    return sorted(sizes, key=lambda size: (math.prod(size), size))


def as_arrays(runs: Sequence[LadderRun]) -> Runs:
    """The runs as the surface takes them, sizes by rising compute."""
    sizes = sizes_of(runs)
    place = {size: index for index, size in enumerate(sizes)}
    return Runs(
        rate=np.array([run.peak_lr for run in runs]),
        batch=np.array([float(run.global_batch_size) for run in runs]),
        loss=np.array([math.nan if run.loss is None else run.loss for run in runs]),
        size=np.array([place[run.scale] for run in runs], dtype=np.intp),
        scales=np.array(sizes),
    )
