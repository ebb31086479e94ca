"""How the best learning rate moves with the batch: a curve a batch, then one exponent."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np

from scaling.analysis.profile import Array, scan
from scaling.analysis.rows import TrialRow
from scaling.analysis.targets import by_recipe
from scaling.analysis.uncertainty import Estimate, Interval, slope_estimate

Edge = Literal["low", "high"]


@dataclass(frozen=True)
class LrCurve:
    """Loss against peak learning rate in one cell.

    Attributes:
        points: (peak_lr, loss of the best recipe with that rate), by rising rate.
        diverged: Rates at which some trial diverged.
        optimum: Rate at the minimum of a parabola through the lowest points; None when they
            have no minimum inside the rates tried.
        interval: Of the optimum.
        edge: The best trial has the lowest or the highest rate tried, so the optimum may lie
            beyond. A diverged trial beyond the best one counts as tried.
    """

    points: tuple[tuple[float, float], ...]
    diverged: tuple[float, ...] = ()
    optimum: float | None = None
    interval: Interval | None = None
    edge: Edge | None = None

    @property
    def best_tried(self) -> float | None:
        """The rate with the lowest mean loss."""
        return min(self.points, key=lambda point: point[1])[0] if self.points else None


def lr_curve(rows: Sequence[TrialRow]) -> LrCurve | None:
    """The curve of one cell's search trials, and its optimum by a local quadratic fit.

    Of several recipes with one rate the best counts, at its mean over seeds. The fit is of loss
    against log rate, through the lower half of the points (at least five): those are the
    neighbourhood of the minimum however steep the cliff towards divergence is.

    Returns:
        None when fewer than three rates were tried, as with a fixed rate.
    """
    envelope: dict[float, float] = {}
    for recipe in by_recipe(rows):
        losses = [row.validation_loss for row in recipe if row.status == "done"]
        known = [loss for loss in losses if loss is not None]
        rate = recipe[0].peak_lr
        if rate is not None and len(known) == len(recipe):
            envelope[rate] = min(fmean(known), envelope.get(rate, math.inf))
    diverged = sorted({r.peak_lr for r in rows if r.status == "diverged" and r.peak_lr})
    points = sorted(envelope.items())
    if not points or len(set(envelope) | set(diverged)) < 3:
        return None
    optimum, interval = _vertex(points)
    curve = LrCurve(tuple(points), tuple(diverged), optimum, interval)
    return LrCurve(curve.points, curve.diverged, optimum, interval, _edge(curve))


def _edge(curve: LrCurve) -> Edge | None:
    tried = [rate for rate, _ in curve.points] + list(curve.diverged)
    if curve.best_tried == min(tried):
        return "low"
    return "high" if curve.best_tried == max(tried) else None


def _vertex(points: Sequence[tuple[float, float]]) -> tuple[float | None, Interval | None]:
    """Vertex of the parabola in log rate through the lower half of the points."""
    if len(points) < 3:
        return None, None
    kept = sorted(points, key=lambda point: point[1])[: max(5, math.ceil(len(points) / 2))]
    x = np.log(np.array([rate for rate, _ in kept]))
    y = np.array([loss for _, loss in kept])
    y = y - y.mean()

    def squares(vertex: Array) -> Array:
        u = (x[None, :] - vertex[:, None]) ** 2
        u = u - u.mean(axis=1, keepdims=True)
        bend = np.maximum((u * y).sum(axis=1) / (u * u).sum(axis=1), 0.0)
        return ((y[None, :] - bend[:, None] * u) ** 2).sum(axis=1)

    profile = scan(squares, float(x.min()), float(x.max()), degrees=len(kept) - 3)
    if profile.edge is not None:
        return None, None
    interval = profile.interval
    return math.exp(profile.value), (
        (math.exp(interval[0]), math.exp(interval[1])) if interval else None
    )


def lr_exponent_estimate(batch_sizes: Sequence[int], best_lrs: Sequence[float]) -> Estimate:
    """The p of best rate ∝ global_batch_size^p, by least squares in logarithms.

    The interval comes from the scatter of the optima around the line (Student's t), and with it
    from whatever moves them: seeds, few trials, or a law that is no power.

    Args:
        batch_sizes: Examples per step, one a cell whose optimum is inside the rates tried.
        best_lrs: The best rate of each.

    Returns:
        No value with fewer than two batch sizes, no interval with fewer than three.
    """
    return slope_estimate([math.log(b) for b in batch_sizes], [math.log(r) for r in best_lrs])
