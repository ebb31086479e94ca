"""The gradient noise scale along training: it grows, so one number needs its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from scaling.analysis.rows import TrialRow
from scaling.analysis.uncertainty import ABSENT, Estimate, ratio_of_means
from scaling.records import Measurement


@dataclass(frozen=True)
class NoisePoint:
    """The noise scale after some steps: mean tr Σ over mean |G|² of the seeds measured there."""

    step: int
    examples: float
    scale: Estimate


@dataclass(frozen=True)
class NoiseCurve:
    """The noise scale of one cell.

    Attributes:
        points: By rising step, where every replicate has both parts.
        at_target: Where each replicate reached the target, both parts interpolated in steps;
            absent where a replicate did not.
        at_end: At each replicate's last estimate.
    """

    points: tuple[NoisePoint, ...] = ()
    at_target: Estimate = ABSENT
    at_end: Estimate = ABSENT


def noise_curve(replicates: Sequence[TrialRow], *, has_target: bool) -> NoiseCurve:
    """The noise scale of a cell's replicates along their runs, and at two named places.

    Both parts are the running means that the trials recorded, so a point looks back over some
    steps. The ratio is of means over seeds, with Fieller's interval.

    Source: McCandlish et al. 2018 (arXiv:1812.06162) eq. 2.9 and appendix A.1.
    """
    runs = [_parts(row) for row in replicates if row.status != "failed"]
    runs = [run for run in runs if run]
    if not runs:
        return NoiseCurve()
    by_step = [{m.step: m for m in run} for run in runs]
    points = tuple(
        NoisePoint(step, first.examples, _ratio([run[step] for run in by_step]))
        for step, first in by_step[0].items()
        if all(step in run for run in by_step)
    )
    return NoiseCurve(
        points=points,
        at_target=_at_target(replicates) if has_target else ABSENT,
        at_end=_ratio([run[-1] for run in runs]),
    )


def _parts(row: TrialRow) -> list[Measurement]:
    return [
        m
        for m in row.measurements
        if m.grad_sq_norm is not None and m.grad_covariance_trace is not None
    ]


def _ratio(measured: Sequence[Measurement]) -> Estimate:
    return ratio_of_means(
        [m.grad_covariance_trace or 0.0 for m in measured],
        [m.grad_sq_norm or 0.0 for m in measured],
    )


def _at_target(replicates: Sequence[TrialRow]) -> Estimate:
    traces: list[float] = []
    squares: list[float] = []
    for row in replicates:
        if row.status == "failed":
            continue
        place = row.steps_to_target
        around = None if place is None else _around(_parts(row), place)
        if around is None:
            return ABSENT
        before, after, share = around
        traces.append(_between(before.grad_covariance_trace, after.grad_covariance_trace, share))
        squares.append(_between(before.grad_sq_norm, after.grad_sq_norm, share))
    return ratio_of_means(traces, squares)


def _around(
    measured: Sequence[Measurement], place: float
) -> tuple[Measurement, Measurement, float] | None:
    """The estimates before and after a step, and how far between them it lies."""
    for before, after in pairwise(measured):
        if before.step <= place <= after.step:
            return before, after, (place - before.step) / (after.step - before.step)
    return None


def _between(before: float | None, after: float | None, share: float) -> float:
    return (before or 0.0) + share * ((after or 0.0) - (before or 0.0))
