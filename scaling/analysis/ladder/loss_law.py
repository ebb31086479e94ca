"""The loss that a size comes to: L = E + A N^-α + B D^-β.

Hoffmann et al. 2022 (arXiv:2203.15556), approach 3: least Huber loss (δ = 1e-3) of the log losses,
from a grid of starts. Intervals are by refits to losses that are drawn around the law, as far from
it as the sizes are, by Student's t: as many sizes as it has numbers say nothing of how far.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.optimize import least_squares  # pyright: ignore -- scipy ships no types
from scipy.special import ndtri, stdtrit  # pyright: ignore -- scipy ships no types

from scaling.analysis.statistics.uncertainty import ABSENT, TAILS, Estimate
from scaling.surface.space import Array

_NUM_FITTED = 5
FEWEST_SIZES = _NUM_FITTED + 1
_HUBER = 1e-3
_NUM_BOOTSTRAP = 200
_WIDEST = 0.25
"""Half width of an interval over the loss from which on the law says nothing."""
_LOWER: Array = np.array([-20.0, -20.0, -5.0, 0.02, 0.02])
_UPPER: Array = np.array([25.0, 25.0, 3.0, 1.5, 1.5])
"""Of log A, log B, log E, α, β, in units of the largest size."""

NoLoss = Literal["one_scale", "few_sizes", "same_in_one", "not_identified"]


@dataclass(frozen=True)
class ExpectedLoss:
    """Of one size; `missing` says why there is none."""

    estimate: Estimate = ABSENT
    missing: NoLoss | None = None
    num_sizes: int = 0


def expected_losses(
    scales: Array, losses: Array, targets: Sequence[Sequence[float]]
) -> list[ExpectedLoss]:
    """The least loss to be expected at some sizes.

    Args:
        scales: [sizes, axes] two positive numbers each.
        losses: [sizes] the least loss of each.
        targets: The sizes asked for.
    """
    num_sizes, num_axes = scales.shape
    missing: NoLoss | None = None
    if num_axes != 2:
        missing = "one_scale"
    elif num_sizes < FEWEST_SIZES:
        missing = "few_sizes"
    elif any(len(set(column)) < 3 for column in scales.T.tolist()):
        missing = "same_in_one"
    if missing is not None:
        return [ExpectedLoss(missing=missing, num_sizes=num_sizes) for _ in targets]
    unit = scales.max(axis=0)
    logs, wanted = np.log(scales / unit), np.log(np.array(targets, dtype=float) / unit)
    best = _fitted(logs, np.log(losses), _starts(losses))
    on_law = np.log(_loss(best, logs))
    degrees = num_sizes - _NUM_FITTED
    sd = float(np.sqrt(((np.log(losses) - on_law) ** 2).sum() / degrees))
    sd *= float(stdtrit(degrees, TAILS[1]) / ndtri(TAILS[1]))
    away = sd * np.random.default_rng(0).standard_normal((_NUM_BOOTSTRAP, num_sizes))
    drawn = [_loss(_fitted(logs, on_law + each, [best]), wanted) for each in away]
    low, high = np.quantile(np.array(drawn), TAILS, axis=0)
    values = _loss(best, wanted)
    return [
        ExpectedLoss(missing="not_identified", num_sizes=num_sizes)
        if (ends[1] - ends[0]) / 2 > _WIDEST * value
        else ExpectedLoss(
            Estimate(float(value), (min(float(ends[0]), value), max(float(ends[1]), value))),
            num_sizes=num_sizes,
        )
        for value, *ends in zip(values.tolist(), low.tolist(), high.tolist(), strict=True)
    ]


def _starts(losses: Array) -> list[Array]:
    lowest = float(np.log(losses.min()))
    return [
        np.array([lowest + a, lowest + b, lowest + e, alpha, beta])
        for a, b, e, alpha, beta in itertools.product(
            (-3.0, -1.0), (-3.0, -1.0), (-1.0, -0.2), (0.2, 0.5), (0.2, 0.5)
        )
    ]


def _loss(law: Array, logs: Array) -> Array:
    """[n] losses of sizes given by the logarithms of their numbers over the largest ones."""
    log_a, log_b, log_e, alpha, beta = law
    return np.exp(log_e) + np.exp(log_a - alpha * logs[:, 0]) + np.exp(log_b - beta * logs[:, 1])


def _fitted(logs: Array, log_losses: Array, starts: Sequence[Array]) -> Array:
    def residuals(law: Array) -> Array:
        return np.log(_loss(law, logs)) - log_losses

    fits: list[Any] = [
        least_squares(
            residuals, np.clip(start, _LOWER + 1e-6, _UPPER - 1e-6), bounds=(_LOWER, _UPPER),
            loss="huber", f_scale=_HUBER, max_nfev=200,
        )
        for start in starts
    ]  # fmt: skip
    return np.asarray(min(fits, key=lambda fit: fit.cost).x, dtype=np.float64)
