"""The gradient noise scale along training: it grows, so one number needs its place."""

from collections.abc import Sequence
from dataclasses import dataclass

from scaling.analysis.statistics.interpolation import interpolated
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate, ratio_of_means
from scaling.analysis.trial_rows import TrialRow
from scaling.records.measurement import Measurement


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
        points: By rising step, where the first replicate has both parts and the others span it.
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
    ended = [row for row in replicates if row.status != "failed"]
    runs = [run for run in map(_parts, ended) if run]
    if not runs:
        return NoiseCurve()
    places = [_at(runs, m.step) for m in runs[0]]
    points = tuple(
        NoisePoint(m.step, m.examples, scale)
        for m, scale in zip(runs[0], places, strict=True)
        if scale.value is not None
    )
    ends = [(m.grad_covariance_trace or 0.0, m.grad_sq_norm or 0.0) for *_, m in runs]
    return NoiseCurve(
        points=points,
        at_target=_at_target(ended) if has_target else ABSENT,
        at_end=_ratio(ends),
    )


Parts = tuple[float, float]
"""tr Σ and |G|²."""


def _parts(row: TrialRow) -> list[Measurement]:
    return [
        m
        for m in row.measurements
        if m.grad_sq_norm is not None and m.grad_covariance_trace is not None
    ]


def _ratio(parts: Sequence[Parts]) -> Estimate:
    return ratio_of_means([trace for trace, _ in parts], [sq_norm for _, sq_norm in parts])


def _at(runs: Sequence[Sequence[Measurement]], step: float) -> Estimate:
    """Over the runs after some steps; absent where one of them has no estimate there."""
    return _of_all([_between(run, step) for run in runs])


def _at_target(rows: Sequence[TrialRow]) -> Estimate:
    return _of_all(
        [
            None if row.steps_to_target is None else _between(_parts(row), row.steps_to_target)
            for row in rows
        ]
    )


def _of_all(parts: Sequence[Parts | None]) -> Estimate:
    known = [pair for pair in parts if pair is not None]
    return _ratio(known) if len(known) == len(parts) else ABSENT


def _between(run: Sequence[Measurement], place: float) -> Parts | None:
    """Both parts after some steps, interpolated between two estimates; None outside of them."""
    steps = [m.step for m in run]
    trace = interpolated(steps, [m.grad_covariance_trace or 0.0 for m in run], place)
    sq_norm = interpolated(steps, [m.grad_sq_norm or 0.0 for m in run], place)
    return None if trace is None or sq_norm is None else (trace, sq_norm)
