"""The critical batch size from the trade-off between steps and examples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling.analysis.profile import Array, scan
from scaling.analysis.uncertainty import Interval

_REACH = 1000.0
"""The bend is looked for up to this factor outside of the batch sizes measured."""


@dataclass(frozen=True)
class TradeoffFit:
    """S = min_steps + min_examples / B; None where the data do not determine it.

    Attributes:
        value: The critical batch size, min_examples / min_steps, in examples: there a run takes
            twice the fewest steps and twice the fewest examples.
        interval: Of the critical batch size.
        min_steps: Steps that even the largest batch needs.
        min_examples: Examples that even the smallest batch needs.
        num_batches: Batch sizes behind the fit.
        note: Why something is missing, in words; empty when nothing is.
    """

    value: float | None = None
    interval: Interval | None = None
    min_steps: float | None = None
    min_examples: float | None = None
    num_batches: int = 0
    note: str = ""

    def steps_at(self, global_batch_size: float) -> float | None:
        """Steps to the target that the fit expects at a batch size."""
        if self.min_steps is None or self.min_examples is None:
            return None
        return self.min_steps + self.min_examples / global_batch_size


def fit_tradeoff(batch_sizes: Sequence[int], steps: Sequence[float]) -> TradeoffFit:
    """Least squares of log S = log(min_steps + min_examples / B), both parameters positive.

    Args:
        batch_sizes: Examples per optimizer step.
        steps: Steps to the target at each.

    Source: the hyperbola, McCandlish et al. 2018 (arXiv:1812.06162) eq. 2.11 and 5.1.
    """
    count = len(set(batch_sizes))
    if count < 2:
        return TradeoffFit(num_batches=count, note="fewer than two batch sizes reached the target")
    log_steps = np.log(np.asarray(steps, dtype=np.float64))
    inverse = 1 / np.asarray(batch_sizes, dtype=np.float64)

    def squares(log_critical: Array) -> Array:
        shape = np.log1p(np.exp(log_critical)[:, None] * inverse[None, :])
        residual = log_steps[None, :] - shape
        residual -= residual.mean(axis=1, keepdims=True)
        return (residual**2).sum(axis=1)

    low, high = math.log(min(batch_sizes) / _REACH), math.log(max(batch_sizes) * _REACH)
    profile = scan(squares, low, high, degrees=len(steps) - 2)
    if profile.edge == "high":
        note = f"steps fall as 1/B up to {max(batch_sizes)}: the bend lies beyond"
        return TradeoffFit(num_batches=count, note=note)
    if profile.edge == "low":
        note = f"steps do not fall from {min(batch_sizes)} on: the bend lies below"
        return TradeoffFit(num_batches=count, note=note)
    critical = math.exp(profile.value)
    min_steps = math.exp(float((log_steps - np.log1p(critical * inverse)).mean()))
    interval = profile.interval
    return TradeoffFit(
        value=critical,
        interval=(math.exp(interval[0]), math.exp(interval[1])) if interval else None,
        min_steps=min_steps,
        min_examples=min_steps * critical,
        num_batches=count,
        note="" if interval else "too few or too scattered batch sizes for an interval",
    )
