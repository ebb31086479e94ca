"""What a larger batch still buys in steps, at each batch size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.statistics.uncertainty import Estimate, Interval

Regime = Literal["perfect scaling", "diminishing returns", "maximal data parallelism", "undecided"]
PERFECT, NONE = 0.9, 0.1
"""The local slope above which scaling is called perfect, and below which there is none left."""


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
