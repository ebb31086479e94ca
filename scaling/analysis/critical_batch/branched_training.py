"""The critical batch size along a run, by branched training."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scaling.analysis.statistics.uncertainty import (
    ABSENT,
    Estimate,
    Interval,
    mean_estimate,
    ratio_of_means,
)
from scaling.analysis.trial_rows import Sweep, TrialRow

NoBranches = Literal["not_measured", "none_ended", "no_reference"]
"""No branches were asked for; none ended; none could be compared with the batch left as it was."""


@dataclass(frozen=True)
class BranchLoss:
    """What a larger batch costs after the window.

    Attributes:
        difference: Validation loss minus that of the branch of multiple 1, in nats, paired by
            seed. No value where no pair ended or some seed diverged.
        diverged: Some seed blew up; the batch is outside then.
    """

    global_batch_size: int
    difference: Estimate
    diverged: bool = False


@dataclass(frozen=True)
class BranchPoint:
    """The local critical batch size after some examples.

    Attributes:
        examples: Where the branches leave.
        value: The largest batch up to which every mean difference is within the tolerance; a
            lower bound where `is_bound`. None where the branch of multiple 1 has no loss.
        is_bound: The largest batch tried is still within.
        surely_inside: The largest batch up to which every interval is within; the base batch
            where none is larger, which is within by definition.
        surely_outside: The smallest batch whose interval is not; None where none is.
        losses: Of the larger batches, rising.
        noise_scale: The gradient noise scale on the way there, in examples.
        is_upper_bound: No larger batch is surely within: the interval's lower end is the base
            batch, which is so by definition and measures nothing.
    """

    examples: int
    value: int | None
    is_bound: bool
    surely_inside: int
    surely_outside: int | None
    losses: tuple[BranchLoss, ...]
    noise_scale: Estimate = ABSENT
    is_upper_bound: bool = False

    @property
    def interval(self) -> Interval | None:
        """Between what is surely inside and surely outside; None where one is not known."""
        known = any(loss.difference.interval or loss.diverged for loss in self.losses)
        if self.value is None or self.surely_outside is None or not known:
            return None
        return float(self.surely_inside), float(self.surely_outside)


@dataclass(frozen=True)
class BranchedTraining:
    """The critical batch size at several points of a run, by rising examples.

    Attributes:
        missing: Why there is none; None where there is.
    """

    points: tuple[BranchPoint, ...] = ()
    tolerance: float | None = None
    missing: NoBranches | None = "not_measured"

    @property
    def last(self) -> BranchPoint | None:
        """The last point that has a value: the nearest to the end of the run."""
        return next((p for p in reversed(self.points) if p.value is not None), None)


def branched_training(sweep: Sweep) -> BranchedTraining:
    """The critical batch size at each branch point.

    Source: Merrill et al. 2025 (arXiv:2505.23971). They compare smoothed training losses of one
        run each; here it is the validation loss on fixed examples, over seeds.
    """
    tolerance = sweep.branch_tolerance
    rows = [r for r in sweep.rows if r.phase == "branch" and _start(r)]
    if tolerance is None:
        return BranchedTraining()
    if not any(row.ended for row in rows):
        return BranchedTraining(tolerance=tolerance, missing="none_ended")
    starts = sorted({_start(row) for row in rows})
    points = tuple(
        _point(start, [r for r in rows if _start(r) == start], tolerance) for start in starts
    )
    has_value = any(point.value is not None for point in points)
    return BranchedTraining(points, tolerance, None if has_value else "no_reference")


def _point(start: int, rows: Sequence[TrialRow], tolerance: float) -> BranchPoint:
    reference = {
        row.seed: row.validation_loss
        for row in rows
        if multiple_of(row) == 1 and row.validation_loss is not None
    }
    base = rows[0].global_batch_size
    losses = tuple(
        _loss(multiple * base, [row for row in rows if multiple_of(row) == multiple], reference)
        for multiple in sorted({multiple_of(row) for row in rows} - {1})
    )
    inside, surely_inside = base, base
    for loss in losses:
        value = loss.difference.value
        if loss.diverged or value is None or value > tolerance:
            break
        inside = loss.global_batch_size
    for loss in losses:
        interval = loss.difference.interval
        if loss.diverged or interval is None or interval[1] > tolerance:
            break
        surely_inside = loss.global_batch_size
    outside = [
        loss.global_batch_size
        for loss in losses
        if loss.diverged or ((interval := loss.difference.interval) and interval[0] > tolerance)
    ]
    return BranchPoint(
        examples=start,
        value=inside if reference and losses else None,
        is_bound=bool(losses) and inside == losses[-1].global_batch_size,
        surely_inside=surely_inside,
        surely_outside=min((size for size in outside if size > surely_inside), default=None),
        losses=losses,
        is_upper_bound=surely_inside == base,
        noise_scale=_noise_scale(start, [row for row in rows if multiple_of(row) == 1]),
    )


def _start(row: TrialRow) -> int:
    """Examples before the branch; 0 of a trial that is none."""
    return (row.recipe.hyperparameters.branch_from_examples or 0) if row.recipe else 0


def multiple_of(row: TrialRow) -> int:
    """How many times its cell's batch a trial has from its branch on; 1 of one that is none."""
    return row.recipe.hyperparameters.branch_multiple if row.recipe else 1


def _loss(size: int, rows: Sequence[TrialRow], reference: dict[int | None, float]) -> BranchLoss:
    if any(row.status == "diverged" for row in rows):
        return BranchLoss(size, ABSENT, diverged=True)
    return BranchLoss(
        size,
        mean_estimate(
            [
                row.validation_loss - reference[row.seed]
                for row in rows
                if row.validation_loss is not None and row.seed in reference
            ]
        ),
    )


def _noise_scale(start: int, rows: Sequence[TrialRow]) -> Estimate:
    """Of the last evaluation before the branch, as a ratio of means over seeds."""
    last: list[tuple[float, float]] = []
    for row in rows:
        known = [
            (m.grad_covariance_trace, m.grad_sq_norm)
            for m in row.measurements
            if m.examples <= start
            if m.grad_covariance_trace is not None and m.grad_sq_norm is not None
        ]
        last += known[-1:]
    return ratio_of_means([trace for trace, _ in last], [square for _, square in last])
