"""The batch at which a run takes 20% more examples than at a reference batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import brentq  # pyright: ignore -- scipy ships no types

from scaling.analysis.critical_batch.free_exponent import FreeExponent
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate, Interval

OVERHEAD = 0.2
REFERENCE = 256
"""Of Zhang et al. 2024; where it was not run, the smallest batch size takes its place."""

NoOverhead = Literal["few_batch_sizes", "no_fit", "beyond_largest", "no_interval"]
"""Fewer than two batch sizes that reached the target; no fit with its exponent free; a batch beyond
the largest that reached the target; a fit without an interval."""


@dataclass(frozen=True)
class Overhead:
    """The batch at which a run takes 20% more examples than at a reference batch.

    Attributes:
        reference_batch_size: Where the examples are counted from; None with fewer than two batch
            sizes that reached the target.
        largest_batch_size: That reached the target. What lies beyond it is no value: nothing was
            measured there, and an end of an interval that does is infinite.
        on_fit: On the curve with its exponent fitted, with every pair of parameters that the data
            allow.
        on_curve: Where the measured points themselves cross 20%, between two batch sizes,
            interpolated in logarithms; it has no interval.
        fit_missing: Why `on_fit` or its interval is missing; None when neither is.
        curve_missing: Why `on_curve` has no value; None when it has one.
    """

    reference_batch_size: int | None = None
    largest_batch_size: int | None = None
    on_fit: Estimate = ABSENT
    on_curve: Estimate = ABSENT
    fit_missing: NoOverhead | None = "few_batch_sizes"
    curve_missing: NoOverhead | None = "few_batch_sizes"


def overhead(fit: TradeoffFit, batch_sizes: Sequence[int], steps: Sequence[float]) -> Overhead:
    """Where 20% more examples are spent than at the reference batch, by fit and by points.

    Args:
        fit: The trade-off.
        batch_sizes: Rising, each once.
        steps: To the target, of each.

    Source: the definition, Zhang et al. 2024 (arXiv:2410.21676) sec. 2.
    """
    if len(batch_sizes) < 2:
        return Overhead()
    reference = REFERENCE if REFERENCE in batch_sizes else batch_sizes[0]
    largest = batch_sizes[-1]
    found = _on_fit(fit.free, reference, largest)
    on_curve = _on_points(batch_sizes, steps, reference)
    return replace(
        found,
        reference_batch_size=reference,
        largest_batch_size=largest,
        on_curve=on_curve,
        curve_missing="beyond_largest" if on_curve.value is None else None,
    )


def _on_fit(free: FreeExponent, reference: int, largest: int) -> Overhead:
    value = free.at_twice_min_steps.value
    if value is None or free.alpha.value is None:
        return Overhead(fit_missing="no_fit")
    at, interval = _crossing(free.alpha.value, math.log(value), reference), None
    if free.allowed:
        # For any exponent, a later bend puts the crossing later too.
        low = min(_crossing(alpha, bend, reference) for alpha, bend, _ in free.allowed)
        high = max(_crossing(alpha, bend, reference) for alpha, _, bend in free.allowed)
        interval = _within(low, high, largest)
    count = free.alpha.count
    if at > largest:
        return Overhead(on_fit=Estimate(None, interval, count), fit_missing="beyond_largest")
    return Overhead(
        on_fit=Estimate(at, interval, count), fit_missing=None if interval else "no_interval"
    )


def _within(low: float, high: float, largest: int) -> Interval | None:
    """An interval up to the largest batch that was run; None where all of it lies beyond."""
    if low > largest:
        return None
    return low, high if high <= largest else math.inf


def _crossing(alpha: float, log_bend: float, reference: int) -> float:
    """Where examples, B + bend^alpha B^(1 - alpha), are 1.2 times those at the reference.

    On the way up, as they fall first with alpha above 1; infinite where they are never as many.
    """
    start = math.log(reference)

    def log_examples(log_batch: float) -> float:
        return log_batch + float(np.logaddexp(0.0, alpha * (log_bend - log_batch)))

    limit = log_examples(start) + math.log(1 + OVERHEAD)
    lowest = log_bend + math.log(alpha - 1) / alpha if alpha > 1 else start
    low = max(start, lowest)
    high = max(low, log_bend) + 50.0
    if log_examples(high) < limit:
        return math.inf
    return math.exp(brentq(lambda place: log_examples(place) - limit, low, high))  # pyright: ignore


def _on_points(batch_sizes: Sequence[int], steps: Sequence[float], reference: int) -> Estimate:
    sizes = np.log(np.asarray(batch_sizes, dtype=np.float64))
    examples = sizes + np.log(np.asarray(steps, dtype=np.float64))
    start = float(np.log(reference))
    limit = float(np.interp(start, sizes, examples) + np.log(1 + OVERHEAD))
    for index in range(1, len(sizes)):
        if sizes[index] > start and examples[index] >= limit:
            before, after = float(examples[index - 1]), float(examples[index])
            share = (limit - before) / (after - before)
            place = sizes[index - 1] + share * (sizes[index] - sizes[index - 1])
            return Estimate(float(np.exp(place)), None, len(sizes))
    return ABSENT
