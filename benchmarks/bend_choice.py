"""How often the batch that a report leads with lies in its interval, where α may be 1.

`python benchmarks/bend_choice.py [--studies 150]` prints the table of docs/statistics.md: steps
40 (1 + (80 / B)^α) at batch sizes from 8 to 512, with seeds that scatter by themselves and alike
at all batch sizes (.03), and batch sizes that are tuned unequally well.
"""

import argparse
import math

import numpy as np

from scaling.analysis.critical_batch.tradeoff import TradeoffFit, fit_tradeoff
from scaling.analysis.statistics.uncertainty import Interval

TWICE, MIN_STEPS, SHARED, NUM_SEEDS = 80.0, 40.0, 0.03, 3
ROWS = [
    (alpha, tuning, noise, 5)
    for alpha in (1.0, 0.85, 1.15, 1.3)
    for tuning, noise in ((0.0, 0.03), (0.06, 0.03), (0.0, 0.1))
] + [(1.0, 0.06, 0.03, 4), (1.0, 0.06, 0.03, 9)]
"""α, deviations of log steps over batch sizes (half a normal) and over seeds, batch sizes."""


def planted(
    rng: np.random.Generator, alpha: float, tuning: float, noise: float, num_batches: int
) -> TradeoffFit:
    """The fit of one study."""
    batches = [round(8 * 64 ** (place / (num_batches - 1))) for place in range(num_batches)]
    shared = SHARED * rng.standard_normal(NUM_SEEDS)
    sizes: list[int] = []
    steps: list[float] = []
    for batch in batches:
        worse = tuning * abs(rng.standard_normal())
        scatter = worse + shared + noise * rng.standard_normal(NUM_SEEDS)
        sizes += [batch] * NUM_SEEDS
        steps += (MIN_STEPS * (1 + (TWICE / batch) ** alpha) * np.exp(scatter)).tolist()
    return fit_tradeoff(sizes, steps, [*range(NUM_SEEDS)] * num_batches)


def covers(interval: Interval | None) -> bool:
    """Whether there is an interval and the truth lies in it."""
    return interval is not None and interval[0] <= TWICE <= interval[1]


def width(interval: Interval | None) -> float:
    """Its ratio of ends; infinite where one is open."""
    return interval[1] / interval[0] if interval and interval[0] > 0 else math.inf


def main() -> None:
    """Print a row of the table for each kind of study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=150)
    studies = parser.parse_args().studies
    print("| α | deviations | batch sizes | excludes 1 | leading | fitted | classical | width |")
    for row in ROWS:
        rng = np.random.default_rng(0)
        fits = [planted(rng, *row) for _ in range(studies)]
        shares = (
            np.mean([fit.free.excludes_one for fit in fits]),
            np.mean([covers(fit.headline.interval) for fit in fits]),
            np.mean([covers(fit.free.at_twice_min_steps.interval) for fit in fits]),
            np.mean([covers(fit.interval) for fit in fits]),
        )
        wide = float(np.median([width(fit.headline.interval) for fit in fits]))
        cells = " | ".join(f"{share:.0%}" for share in shares)
        print(f"| {row[0]} | {row[1]}, {row[2]} | {row[3]} | {cells} | {wide:.2f} |", flush=True)


if __name__ == "__main__":
    main()
