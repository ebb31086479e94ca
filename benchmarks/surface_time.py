"""What fitting and reading the loss surface takes, in seconds of one core's processor time.

    OMP_NUM_THREADS=1 python benchmarks/surface_time.py [--trials 200] [--batches 10] [--repeats 5]

A planted sweep (exponent 0.4, one seed a trial, a basin three times steeper above) is fitted as a
report fits it. Then the best rates over the batch sizes are drawn, each cell's regret, and all that
a report reads. Each is the median of the repeats, every one with a new surface. The last line is
JSON.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from planted_rates import Plan, planted_sweep

from scaling.analysis.learning_rate.fitted_surface import fitted_surface, series_of
from scaling.analysis.learning_rate.surface_reading import read_surface
from scaling.analysis.trial_rows import Sweep
from scaling.surface.path import best_rates
from scaling.surface.space import BATCH


def main() -> None:
    """Time each step and print the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--trials", type=int, default=200, help="of all batch sizes")
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    sweep = _sweep(options.trials, options.batches)
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(options.repeats + 1):
        _time(sweep, seconds)
    medians = {name: statistics.median(taken[1:]) for name, taken in seconds.items()}
    for name, taken in medians.items():
        print(f"{name:<28} {taken:.3f} s")
    print(json.dumps({name: round(taken, 4) for name, taken in medians.items()}))


def _sweep(num_trials: int, num_batches: int) -> Sweep:
    plan = Plan(
        0.4, 1, num_trials // num_batches, design="quasi-random", shape="steeper above",
        noise=0.01, curvature=0.1, batches=tuple(8 * 2**place for place in range(num_batches)),
    )  # fmt: skip
    return planted_sweep(plan, np.random.default_rng(0), 0)


def _time(sweep: Sweep, seconds: dict[str, list[float]]) -> None:
    @contextmanager
    def timed(name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        seconds[name].append(time.process_time() - started)

    searches = [sweep.rows_of(cell, "search") for cell in sweep.cells]
    fitted = fitted_surface(sweep, searches)
    assert fitted is not None
    with timed("fit"):
        _ = fitted.surface.processes
    [order] = series_of(fitted.cells)
    with timed("best rates"):
        best_rates(fitted.surface, order, [fitted.cells[index][BATCH] for index in order])
    with timed("regrets"):
        fitted.surface.cells(sweep.small_regret)
    with timed("fit, and all that is read"):
        read_surface(sweep, searches)


if __name__ == "__main__":
    main()
