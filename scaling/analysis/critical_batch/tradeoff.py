"""The critical batch size from the trade-off between steps and examples."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from scaling.analysis.critical_batch.free_exponent import FreeExponent, fit_free_exponent
from scaling.analysis.statistics.profile import Array, farthest, lowest
from scaling.analysis.statistics.scatter import ErrorVariance, Scatter, judged, scatter_of
from scaling.analysis.statistics.uncertainty import Estimate, Interval

_REACH = 1000.0
"""The bend is looked for up to this factor outside of the batch sizes measured."""
_POINTS = 501
_HALVINGS = 50

NoTradeoff = Literal[
    "cells_differ_otherwise", "few_batch_sizes", "bend_above", "bend_below", "no_interval"
]
"""Cells that differ in more than the batch size; fewer than two batch sizes that reached the
target; a bend beyond the largest or below the smallest of them; too few or too scattered ones for
an interval."""


@dataclass(frozen=True)
class SeedsIntervals:
    """90% intervals from the seeds alone; None without replicates at every batch size."""

    critical: Interval | None = None
    min_steps: Interval | None = None
    min_examples: Interval | None = None


@dataclass(frozen=True)
class TradeoffFit:
    """S = min_steps + min_examples / B; None where the data do not determine it.

    Its intervals assume that steps bend just so; `free` does not.

    Attributes:
        value: The critical batch size, min_examples / min_steps, in examples: there a run takes
            twice the fewest steps and twice the fewest examples.
        interval: Of the critical batch size. Where replicates show that the points miss the
            curve by more than seeds explain, their scatter counts; another exponent does not.
        min_steps: Steps that even the largest batch needs.
        min_examples: Examples that even the smallest batch needs.
        bounds: Of the critical batch size, each None where the data set none on that side; they
            may be there without a value, as where no bend is seen.
        of_seeds: Intervals of the curve that fits these batch sizes best, from the seeds alone.
        rms_misfit: Root mean square of log steps over the curve, about a relative error.
        free: The fit with the exponent of B free.
        misfit_exceeds_seeds: Whether that is more than seeds explain (F test at 10%); None without
            replicates.
        batch_range: The smallest and the largest batch size behind it; None without any.
        missing: Why something is missing; None when nothing is.
    """

    value: float | None = None
    interval: Interval | None = None
    min_steps: float | None = None
    min_steps_interval: Interval | None = None
    min_examples: float | None = None
    min_examples_interval: Interval | None = None
    num_batches: int = 0
    num_trials: int = 0
    bounds: tuple[float | None, float | None] = (None, None)
    of_seeds: SeedsIntervals = SeedsIntervals()
    rms_misfit: float | None = None
    misfit_exceeds_seeds: bool | None = None
    batch_range: tuple[int, int] | None = None
    free: FreeExponent = FreeExponent()  # noqa: RUF009  # immutable
    missing: NoTradeoff | None = None

    @property
    def headline(self) -> Estimate:
        """The critical batch size to name first: with alpha fitted where the data exclude 1."""
        if self.free.excludes_one:
            return self.free.at_twice_min_steps
        return Estimate(self.value, self.interval, self.num_trials)

    def steps_at(self, global_batch_size: float) -> float | None:
        """Steps to the target at a batch size, with the exponent fitted if the data exclude 1."""
        if self.free.excludes_one:
            return self.free.steps_at(global_batch_size)
        if self.min_steps is None or self.min_examples is None:
            return None
        return self.min_steps + self.min_examples / global_batch_size


def fit_tradeoff(
    batch_sizes: Sequence[int], steps: Sequence[float], seeds: Sequence[int | None] | None = None
) -> TradeoffFit:
    """Least squares of log S = log(min_steps + min_examples / B), both parameters positive.

    Replicates of a batch size (it is repeated) give a standard deviation over seeds, pooled over
    the batch sizes. Where the batch sizes' means scatter around the curve as seeds explain (F
    test at 25%), both are joined; where they scatter more, their own scatter counts, on two
    degrees of freedom fewer than batch sizes, as it does without replicates. Seeds that are the
    same at all batch sizes may share a part; it moves both parameters and not their ratio.

    Args:
        batch_sizes: Examples per optimizer step, one a trial.
        steps: Steps to the target of each, above zero.
        seeds: Of each trial, where known.

    Source: the hyperbola, McCandlish et al. 2018 (arXiv:1812.06162) eq. 2.11 and 5.1; profile
        interval and lack of fit, Bates & Watts 1988, Nonlinear regression analysis, sec. 1.3.2
        and 6.1.
    """
    count = len(set(batch_sizes))
    if count < 2:
        return TradeoffFit(num_batches=count, num_trials=len(steps), missing="few_batch_sizes")
    scatter = scatter_of(batch_sizes, np.log(np.asarray(steps, dtype=np.float64)), seeds)
    low, high = math.log(min(batch_sizes) / _REACH), math.log(max(batch_sizes) * _REACH)

    def least(weighted: Scatter) -> float:
        bend, _ = lowest(lambda bends: _curve(weighted, bends)[0], low, high)
        return float(_curve(weighted, np.array([bend]))[0][0])

    scatter, error = judged(scatter, least, parameters=2)

    def squares(log_critical: Array) -> Array:
        return _curve(scatter, log_critical)[0]

    bend, edge = lowest(squares, low, high)
    smallest = float(squares(np.array([bend]))[0])
    region = (low, high)
    if error is not None:
        region = _region(squares, bend, smallest + error.allowance, low, high)
    common = TradeoffFit(
        num_batches=count,
        num_trials=len(steps),
        batch_range=(min(batch_sizes), max(batch_sizes)),
        bounds=(_inside(region[0], low), _inside(region[1], high)),
        of_seeds=_of_seeds(scatter, bend) if edge is None else SeedsIntervals(),
        rms_misfit=math.sqrt(smallest / len(steps)),
        misfit_exceeds_seeds=error.misfit if error and scatter.degrees > 0 else None,
        free=fit_free_exponent(scatter, len(steps)),
    )
    if edge is not None:
        return replace(common, missing="bend_above" if edge == "high" else "bend_below")
    limit = smallest + (error.allowance if error else 0.0)
    heights, amounts = _parameters(scatter, region, limit)
    log_min_steps = float(_curve(scatter, np.array([bend]))[1][0])
    lower, upper = common.bounds
    interval = (lower, upper) if error and lower is not None and upper is not None else None
    return replace(
        common,
        value=math.exp(bend),
        interval=interval,
        min_steps=math.exp(log_min_steps),
        min_steps_interval=None if upper is None else _widened(heights, log_min_steps, scatter),
        min_examples=math.exp(log_min_steps + bend),
        min_examples_interval=None
        if lower is None
        else _widened(amounts, log_min_steps + bend, scatter),
        missing=None if interval else "no_interval",
    )


def _curve(scatter: Scatter, log_critical: Array) -> tuple[Array, Array]:
    """Squares of mean log steps around hyperbolas with these bends, and log min_steps of each."""
    shape = np.log1p(np.exp(log_critical)[:, None] / scatter.groups[None, :])
    residual = scatter.means[None, :] - shape
    height = (residual * scatter.weights).sum(axis=1) / scatter.weights.sum()
    squares = (scatter.weights * (residual - height[:, None]) ** 2).sum(axis=1)
    return squares, height


def _of_seeds(scatter: Scatter, bend: float) -> SeedsIntervals:
    """Of the best curve's parameters, by how each moves with the batch sizes' mean log steps."""
    share = 1 / (1 + scatter.groups / math.exp(bend))  # derivative of the shape by the bend
    weight = scatter.weights / scatter.weights.sum()
    steeper = share - (weight * share).sum()
    residual = scatter.means - np.log1p(math.exp(bend) / scatter.groups)
    height = float((weight * residual).sum())
    residual = residual - height
    curvature = float((weight * (steeper**2 - residual * share * (1 - share))).sum())
    if curvature <= 0:
        return SeedsIntervals()
    of_bend = weight * steeper / curvature
    of_height = weight - float((weight * share).sum()) * of_bend
    return SeedsIntervals(
        critical=_around(bend, scatter.error_by_seeds(of_bend)),
        min_steps=_around(height, scatter.error_by_seeds(of_height)),
        min_examples=_around(height + bend, scatter.error_by_seeds(of_height + of_bend)),
    )


def _around(logarithm: float, error: ErrorVariance | None) -> Interval | None:
    if error is None:
        return None
    half = math.sqrt(error.allowance)
    return math.exp(logarithm - half), math.exp(logarithm + half)


def _region(
    squares: Callable[[Array], Array], centre: float, limit: float, low: float, high: float
) -> Interval:
    """How far the bend may go each way before the sum of squares passes the limit."""
    ends = np.array([low, high])
    grids = np.linspace(centre, ends, _POINTS, axis=1)
    reached = farthest(
        lambda bends: squares(bends.ravel()).reshape(bends.shape), grids, limit, _HALVINGS
    )
    lower, upper = np.where(np.isnan(reached), ends, reached).tolist()
    return lower, upper


def _parameters(scatter: Scatter, region: Interval, limit: float) -> tuple[Interval, Interval]:
    """Profile intervals of log min_steps and log min_examples.

    With the bend fixed, the sum of squares is a parabola in the height: each bend of the region
    allows a stretch of heights, and the interval is what all stretches cover.
    """
    bends = np.linspace(*region, _POINTS)
    squares, heights = _curve(scatter, bends)
    half = np.sqrt(np.maximum(limit - squares, 0.0) / scatter.weights.sum())
    low, high = heights - half, heights + half
    return (
        (float(low.min()), float(high.max())),
        (float((low + bends).min()), float((high + bends).max())),
    )


def _widened(interval: Interval, centre: float, scatter: Scatter) -> Interval | None:
    """With what all batch sizes of a seed share, out of the logarithm."""
    if interval[0] == interval[1] and scatter.degrees == 0:
        return None
    shared = scatter.shared_allowance
    return (
        math.exp(centre - math.hypot(centre - interval[0], shared)),
        math.exp(centre + math.hypot(interval[1] - centre, shared)),
    )


def _inside(end: float, edge: float) -> float | None:
    return None if end == edge else math.exp(end)
