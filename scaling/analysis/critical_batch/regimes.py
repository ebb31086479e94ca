"""What a larger batch still buys in steps, at each batch size, and two other critical sizes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate, Interval

Regime = Literal["perfect scaling", "diminishing returns", "maximal data parallelism", "undecided"]
PERFECT, NONE = 0.9, 0.1
"""The local slope above which scaling is called perfect, and below which there is none left."""
OVERHEAD = 0.2
REFERENCE = 256
"""Of Zhang et al. 2024; where it was not run, the smallest batch size takes its place."""


@dataclass(frozen=True)
class LocalScaling:
    """How steps fall with the batch around one batch size.

    Attributes:
        slope: −d log steps / d log batch: 1 halves the steps with every doubling, 0 leaves them.
            Of the fit with its exponent free where there are four batch sizes or more and a bend;
            else B_crit / (B_crit + B), bounded on one side at least where the bend is.
        regime: Named only where the whole interval is on one side of 0.9 and 0.1; None where
            there is no interval at all.
    """

    global_batch_size: int
    slope: Estimate
    regime: Regime | None


@dataclass(frozen=True)
class Overhead:
    """The batch at which a run takes 20% more examples than at a reference batch.

    Attributes:
        reference_batch_size: Where the examples are counted from.
        on_fit: 0.2 × critical batch + 1.2 × reference, on the fitted curve with alpha = 1.
        on_curve: Where the measured points themselves cross 20%, between two batch sizes,
            interpolated in logarithms; it has no interval.
    """

    reference_batch_size: int | None
    on_fit: Estimate
    on_curve: Estimate


def local_scaling(fit: TradeoffFit, batch_sizes: Sequence[int]) -> tuple[LocalScaling, ...]:
    """The regime at each batch size, from the fit's slope and its interval.

    Source: the three regimes, Shallue et al. 2018 (arXiv:1811.03600) sec. 4.1; the two bounds
        are ours.
    """
    if fit.num_batches < 2:
        return ()
    return tuple(_local(fit, size) for size in sorted(set(batch_sizes)))


def _local(fit: TradeoffFit, size: int) -> LocalScaling:
    free = fit.free.slope_at(size)
    if free.interval is not None:
        return LocalScaling(size, free, _regime(free.interval))
    value = None if fit.value is None else fit.value / (fit.value + size)
    low, high = fit.bounds
    if low is None and high is None:
        return LocalScaling(size, Estimate(value, None, fit.num_trials), None)
    interval = (
        0.0 if low is None else low / (low + size),
        1.0 if high is None else high / (high + size),
    )
    return LocalScaling(size, Estimate(value, interval, fit.num_trials), _regime(interval))


def _regime(interval: Interval) -> Regime:
    low, high = interval
    if low > PERFECT:
        return "perfect scaling"
    if high < NONE:
        return "maximal data parallelism"
    return "diminishing returns" if low >= NONE and high <= PERFECT else "undecided"


def overhead(fit: TradeoffFit, batch_sizes: Sequence[int], steps: Sequence[float]) -> Overhead:
    """Where 20% more examples are spent than at the reference batch, by fit and by points.

    Args:
        fit: The trade-off.
        batch_sizes: Rising, each once.
        steps: To the target, of each.

    Source: the definition, Zhang et al. 2024 (arXiv:2410.21676) sec. 2.
    """
    if len(batch_sizes) < 2:
        return Overhead(None, ABSENT, ABSENT)
    reference = REFERENCE if REFERENCE in batch_sizes else batch_sizes[0]

    def of(critical: float) -> float:
        return OVERHEAD * critical + (1 + OVERHEAD) * reference

    on_fit = ABSENT
    if fit.value is not None:
        interval = (of(fit.interval[0]), of(fit.interval[1])) if fit.interval else None
        on_fit = Estimate(of(fit.value), interval, fit.num_trials)
    return Overhead(reference, on_fit, _on_points(batch_sizes, steps, reference))


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
