"""Studies whose steps bend with another exponent than the classical curve's.

For `interval_coverage`: S = 60 (1 + (200 / B)^alpha), at 5 and at 9 batch sizes from 16 to 4,096.
"""

import math
from typing import Any

import numpy as np
from coverage_case import Case, Flag, Reading

from scaling.analysis.trial_rows import Sweep, TrialRow

EXPONENTS = (0.7, 0.85, 1.0, 1.3)
NUM_BATCHES = (5, 9)
NUM_SEEDS = (1, 3)
TWICE, MIN_STEPS = 200.0, 60.0
NOISE = (0.02, 0.05, 0.1)
"""Standard deviation of log steps over seeds; the studies of a case take turns."""


def cases() -> list[Case]:
    """Every case of this file."""
    return [
        Case(
            f"bend with alpha {alpha}, {num_batches} batch sizes, {seeds} seeds",
            lambda rng, number, a=alpha, b=num_batches, s=seeds: _study(rng, number, a, b, s),
            lambda summary, _, a=alpha: _read(summary, a),
        )
        for alpha in EXPONENTS
        for num_batches in NUM_BATCHES
        for seeds in NUM_SEEDS
    ]


def _study(
    rng: np.random.Generator, number: int, alpha: float, num_batches: int, num_seeds: int
) -> Sweep:
    noise = NOISE[number % len(NOISE)]
    batches = [round(16 * 256 ** (place / (num_batches - 1))) for place in range(num_batches)]
    rows: list[TrialRow] = []
    for batch in batches:
        for seed in range(num_seeds):
            steps = MIN_STEPS * (1 + (TWICE / batch) ** alpha)
            steps *= math.exp(noise * rng.standard_normal())
            rows.append(
                TrialRow(
                    f"{batch}-{seed}", "confirm", "done", {"global_batch_size": batch}, batch,
                    f"{batch}", seed=seed, peak_lr=1e-3, steps=2 * steps, steps_to_target=steps,
                    examples_to_target=steps * batch, validation_loss=0.9,
                )
            )  # fmt: skip
    cells = tuple({"global_batch_size": batch} for batch in batches)
    return Sweep("planted", "?", tuple(rows), cells, has_target=True, target=1.0)


def _read(summary: dict[str, Any], alpha: float) -> list[Reading | Flag]:
    fit = summary["critical_batch_size"]["steps_examples"]
    exponent, twice = fit["alpha"]["interval"], fit["at_twice_min_steps"]["interval"]
    return [
        Reading("batch at twice min_steps", twice, TWICE),
        Reading("alpha", exponent, alpha),
        Reading("critical batch with alpha = 1", fit["interval"], TWICE),
        Flag("alpha = 1 excluded", bool(exponent) and not exponent[0] <= 1 <= _end(exponent[1])),
        Flag("batch at twice min_steps open above", bool(twice) and twice[1] is None),
        *(Flag("regime named and wrong", _is_wrong(local, alpha)) for local in fit["regimes"]),
    ]


def _end(value: float | None) -> float:
    return math.inf if value is None else value


def _is_wrong(local: dict[str, Any], alpha: float) -> bool:
    ratio = (TWICE / local["global_batch_size"]) ** alpha
    slope = alpha * ratio / (1 + ratio)
    truth = "diminishing returns"
    if slope > 0.9:
        truth = "perfect scaling"
    elif slope < 0.1:
        truth = "maximal data parallelism"
    return local["regime"] not in (None, "undecided", truth)
