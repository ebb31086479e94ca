"""Seconds a step: a property of a batch on a device, from every trial of all phases that ran there.

What else runs on a machine only ever slows a step. So batches are compared at the pace of an idle
machine, and what a run is expected to take is the usual pace, with the range that was seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from scipy.special import bdtrc  # pyright: ignore -- scipy ships no types

from scaling.analysis.critical_batch.branched_training import multiple_of
from scaling.analysis.statistics.uncertainty import LEVEL, Estimate
from scaling.analysis.trial_rows import Sweep, TrialRow

_IDLE = 0.1
"""The share of trials that ran on an idle machine, or nearly so."""


@dataclass(frozen=True)
class Pace:
    """Seconds a step of each of several trials with one batch size on as many workers.

    Attributes:
        seconds: Of each trial, rising.
    """

    seconds: tuple[float, ...]

    @property
    def usual(self) -> Estimate:
        """The median; its interval holds 90% of the trials, which shows contention."""
        low, high = np.quantile(self.seconds, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        interval = (float(low), float(high)) if len(self.seconds) > 1 else None
        return Estimate(median(self.seconds), interval, len(self.seconds))

    @property
    def idle(self) -> Estimate:
        """The tenth percentile; its interval reaches from the fastest trial to a 90% upper bound.

        Source: distribution-free interval of a quantile from order statistics, David & Nagaraja
            2003, Order statistics, sec. 7.1.
        """
        count = len(self.seconds)
        value = float(np.quantile(self.seconds, _IDLE))
        # bdtrc(k, n, p): chance that more than k of n trials are below the quantile
        places = range(count)
        last = next((k for k in places if float(bdtrc(k, count, _IDLE)) <= 1 - LEVEL), None)  # pyright: ignore -- untyped
        if last is None or count < 2:
            return Estimate(value, None, count)
        return Estimate(value, (self.seconds[0], max(self.seconds[last], value)), count)

    @property
    def contention(self) -> float:
        """How many times as long as on an idle machine a step usually took."""
        return (self.usual.value or 0.0) / (self.idle.value or 1.0)

    def times(self, factor: float) -> "Pace":
        """Every time multiplied by a factor."""
        return Pace(tuple(factor * seconds for seconds in self.seconds))


@dataclass(frozen=True)
class Paces:
    """What was measured of each cell, and of each number of examples a worker.

    Attributes:
        by_cell: By the cell's values, batch size and workers.
        by_share: Idle seconds a step by examples a worker, rising.
    """

    by_cell: Mapping[tuple[object, ...], Pace]
    by_share: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, sweep: Sweep) -> "Paces":
        """From all trials: search, transfer, confirm and branches.

        Where the batch grows, the mean step of the whole run is the pace of its cell alone. A
        branch with another batch than its cell's says nothing of that.
        """
        by_cell: dict[tuple[object, ...], list[float]] = {}
        by_share: dict[float, list[float]] = {}
        for row in sweep.rows:
            step = _seconds_per_step(row)
            if step is None or multiple_of(row) > 1:
                continue
            by_cell.setdefault(_key(row), []).append(step)
            # Workers under tp share every example, so other numbers of them do not follow.
            layout = row.recipe.layout if row.recipe is not None else None
            shares_batch = layout is not None and layout.data_parallel_size == layout.world_size
            if layout is not None and shares_batch and not grows(row):
                share = row.global_batch_size / layout.world_size
                by_share.setdefault(share, []).append(step)
        idle = {share: Pace(tuple(sorted(steps))).idle.value for share, steps in by_share.items()}
        return cls(
            {key: Pace(tuple(sorted(steps))) for key, steps in by_cell.items()},
            tuple(sorted((share, step) for share, step in idle.items() if step is not None)),
        )

    def like(self, row: TrialRow) -> Pace | None:
        """Of the trials of the same cell, batch size and workers; None where none was timed."""
        return self.by_cell.get(_key(row))

    def at(self, share: float) -> float | None:
        """By examples a worker, interpolated in logarithms; None outside of what was measured."""
        shares = [s for s, _ in self.by_share]
        if not shares or not shares[0] <= share <= shares[-1]:
            return None
        steps = [step for _, step in self.by_share]
        return math.exp(float(np.interp(math.log(share), np.log(shares), np.log(steps))))


def world_size(row: TrialRow) -> int | None:
    """Workers of a trial; None where that is not known."""
    return row.recipe.layout.world_size if row.recipe else None


def grows(row: TrialRow) -> bool:
    """Whether the batch grows during the run."""
    return row.recipe is not None and bool(row.recipe.hyperparameters.batch_ramp_at_examples)


def _key(row: TrialRow) -> tuple[object, ...]:
    cell = tuple(sorted((name, repr(value)) for name, value in row.cell.items()))
    return (*cell, row.global_batch_size, world_size(row))


def _seconds_per_step(row: TrialRow) -> float | None:
    if row.status == "failed" or not row.seconds or not row.steps:
        return None
    return row.seconds / row.steps
