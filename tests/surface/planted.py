"""A loss with a known best rate at every batch size."""

import math
from collections.abc import Sequence

import numpy as np

from scaling.surface.loss_surface import Outcome
from scaling.surface.space import Axis, Space

BATCHES = (16, 64, 256, 1024)
RATE = Axis("peak_lr", low=1e-4, high=1e-1, log=True)
SPACE = Space(tuple({"global_batch_size": batch} for batch in BATCHES), (RATE,))


def best_rate(batch: int, exponent: float = 0.5, stays_from: float = math.inf) -> float:
    """The rate at which the loss of a batch size is lowest."""
    return 1e-3 * (min(batch, stays_from) / 16) ** exponent


def loss(batch: int, rate: float, exponent: float = 0.5, stays_from: float = math.inf) -> float:
    """Lowest at 2, and steeper above the best rate than below."""
    distance = math.log(rate / best_rate(batch, exponent, stays_from))
    return 2 + 0.1 * distance**2 * (2 if distance > 0 else 1)


def outcomes(
    rates: Sequence[float], exponent: float = 0.5, stays_from: float = math.inf,
    space: Space = SPACE, noise: float = 0.0, seed: int = 0,
) -> list[Outcome]:  # fmt: skip
    """Every rate at every batch size of a space."""
    rng = np.random.default_rng(seed)
    found: list[Outcome] = []
    for cell, setting in enumerate(space.cells):
        for rate in rates:
            value = loss(setting["global_batch_size"], rate, exponent, stays_from)
            found.append(Outcome(cell, {"peak_lr": rate}, value + noise * rng.standard_normal()))
    return found
