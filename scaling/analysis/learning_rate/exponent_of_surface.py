"""The exponent of the best rate, and the evidence for others, from draws of the surface."""

import math

import numpy as np
from scipy.special import ndtr, ndtri  # pyright: ignore -- scipy ships no types

from scaling.analysis.learning_rate.exponent import (
    FEWEST_FOR_INTERVAL,
    REFERENCE_EXPONENTS,
    Evidence,
    LrScaling,
    Surge,
)
from scaling.analysis.statistics.uncertainty import Estimate, holm, t_quantile
from scaling.surface.path import BestRates


def by_surface(rates: BestRates) -> LrScaling:
    """The exponent of the drawn paths, as a least-squares line through each has it.

    The evidence takes the exponent's distribution for normal on each side of its median.
    """
    sizes = rates.batch_sizes
    if len(sizes) < 2:
        return LrScaling(Estimate(count=len(sizes)), sizes)
    value, (low, high) = rates.exponent
    logs = np.log(np.array(sizes, dtype=np.float64))
    level = float(np.mean(np.log(rates.rates)))
    enough = len(sizes) >= FEWEST_FOR_INTERVAL
    return LrScaling(
        Estimate(value, (low, high) if enough else None, len(sizes)),
        sizes,
        evidence=_evidence_of_draws(rates) if enough else (),
        surge=Surge(num_batch_sizes=len(sizes), missing="not_by_surface"),
        middle=(math.exp(float(logs.mean())), math.exp(level)),
        from_surface=True,
    )


def _evidence_of_draws(rates: BestRates) -> tuple[Evidence, ...]:
    value, (low, high) = rates.exponent
    sides = ((value - low) / t_quantile(math.inf), (high - value) / t_quantile(math.inf))
    if min(sides) <= 0:
        return ()
    farthest = -float(ndtri(1 / (len(rates.draws) + 1)))  # pyright: ignore
    away = [(p - value) / sides[p > value] for p in REFERENCE_EXPONENTS]
    scores = [min(abs(score), farthest) for score in away]
    tails = [2 * float(ndtr(-score)) for score in scores]  # pyright: ignore
    return tuple(
        Evidence(p, tail, joint, math.exp(score**2 / 2), is_bound=score == farthest)
        for p, score, tail, joint in zip(
            REFERENCE_EXPONENTS, scores, tails, holm(tails), strict=True
        )
    )
