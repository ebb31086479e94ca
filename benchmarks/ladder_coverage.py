"""How often the intervals of a ladder's prediction cover a planted bottom, and how wide they are.

    python benchmarks/ladder_coverage.py [--ladders 100] [--first 0] [--only NAME] [--processes 2]

Every ladder is a table of runs with a planted valley whose bottom moves with the size on a line or
a bent one, with walls that may change or that are no parabolas; the size that is predicted has 8
times the compute of the largest run. The last line is JSON.
"""

import argparse
import json
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product

import numpy as np
from rich.console import Console
from rich.table import Table

from scaling.surface.ladder.ladder import Ladder
from scaling.surface.ladder.runs import Runs
from scaling.surface.space import Array

BEYOND = 8.0


@dataclass(frozen=True)
class Case:
    """Planted ladders of one kind.

    Attributes:
        bend: Change of the rate's exponent of compute over the ladder, at most, either way.
        walls: Parabolas alike at every size, such that change with it, or no parabolas.
        design: A grid of rates and batches, or random ones.
        stray: Standard deviation of each size's independent part, in octaves.
        departs: Whether the rate leaves its line, and whether the batch does; 1 or 0.
    """

    name: str
    num_sizes: int
    num_axes: int
    bend: float = 0.0
    walls: str = "alike"
    design: str = "grid"
    runs: int = 60
    noise: float = 0.1
    stray: float = 0.0
    departs: tuple[int, int] = (1, 1)


def cases() -> list[Case]:
    """Every kind."""
    made = [
        Case(f"{form}, {sizes} sizes, {axes} axes", sizes, axes, bend=bend, walls=walls)
        for (form, bend, walls), sizes, axes in product(
            (
                ("straight", 0.0, "alike"),
                ("bent", 0.15, "alike"),
                ("changing walls", 0.0, "change"),
            ),
            (4, 8),
            (1, 2),
        )
    ]
    made += [
        Case("no parabolas, 8 sizes, 2 axes", 8, 2, walls="other"),
        Case("no parabolas, 4 sizes, 1 axes", 4, 1, walls="other"),
        Case("straying, 8 sizes, 2 axes", 8, 2, stray=0.1),
        Case("straying, 4 sizes, 1 axes", 4, 1, stray=0.1),
        Case("bent rate alone, 8 sizes, 2 axes", 8, 2, bend=0.15, departs=(1, 0)),
        Case("bent rate alone, 4 sizes, 1 axes", 4, 1, bend=0.15, departs=(1, 0)),
        Case("straying rate alone, 8 sizes, 2 axes", 8, 2, stray=0.1, departs=(1, 0)),
        Case("straying batch alone, 4 sizes, 1 axes", 4, 1, stray=0.1, departs=(0, 1)),
        Case("20 random runs, 8 sizes, 2 axes", 8, 2, design="random", runs=20),
        Case("20 random runs, 4 sizes, 1 axes", 4, 1, design="random", runs=20),
        Case("much noise, 8 sizes, 2 axes", 8, 2, noise=0.5),
    ]
    return made


def planted(case: Case, rng: np.random.Generator) -> tuple[Runs, Array, Array]:
    """A table, the size to predict and its log2 best rate and batch."""
    octaves = np.linspace(0, rng.uniform(3, 6), case.num_sizes)
    if case.num_axes == 1:
        logs = octaves[:, None]
    else:
        tokens = octaves + rng.permuted(np.tile((0.0, 2.3), case.num_sizes))[: case.num_sizes]
        logs = np.stack([octaves, tokens], axis=1)
    order = logs.sum(axis=1)
    target = logs[order.argmax()] + np.log2(BEYOND) / case.num_axes
    places = np.vstack([logs, target])
    compute = places.sum(axis=1)
    share = (compute - compute[:-1].mean()) / np.ptp(compute[:-1])
    rate_slopes = rng.uniform(-0.5, 0.1, case.num_axes)
    batch_slopes = rng.uniform(0.0, 0.5, case.num_axes)
    departs = np.array(case.departs)
    bend = departs * case.bend * rng.uniform(-1, 1, 2) / 2 * np.ptp(compute[:-1])
    rate = -9 + places @ rate_slopes + bend[0] * share**2
    batch = 7 + places @ batch_slopes + bend[1] * share**2
    rate += departs[0] * case.stray * rng.standard_normal(len(rate))
    batch += departs[1] * case.stray * rng.standard_normal(len(batch))
    tilt, skew = rng.uniform(-0.5, 0.1), rng.uniform(-0.2, 0.5)
    width = rng.uniform(0.15, 0.5, 2)
    powers = rng.uniform(-0.2, 0.2, 2) if case.walls == "change" else np.zeros(2)
    parts: list[tuple[Array, Array, Array, Array]] = []
    for size in range(case.num_sizes):
        about = np.round(rate[size]), np.round(batch[size])
        if case.design == "grid":
            step = 0.5 if case.runs > 40 else 1.0
            num_rates = round(np.sqrt(case.runs))
            grid = np.arange(num_rates) - num_rates / 2 + rng.integers(-1, 2)
            x, b = (part.ravel() for part in np.meshgrid(grid * step * 1.5, grid * step * 1.5))
        else:
            x, b = rng.uniform(-3, 3, (2, case.runs))
        x, b = x + about[0], b + about[1]
        u, v = x - rate[size], b - batch[size]
        a, c = width * 2 ** (powers * share[size])
        if case.walls == "other":
            lifted = a * (2 ** (1.2 * u) - 1 - 1.2 * np.log(2) * u) * 2 + 2 * c * np.log1p(v**2)
            heights = lifted + np.where(u > 3, 100.0, 0.0)
        else:
            heights = a * u**2 * np.exp(skew * 2 * np.tanh(u / 2)) + c * v**2
            heights += 2 * np.tanh(tilt) * np.sqrt(a * c) * u * v
        noise = rng.normal(0, case.noise, len(u)) * (1 + heights / 4)
        loss = 3 * 2 ** (-0.1 * compute[size]) * np.exp((heights + noise) / 100)
        parts.append((2**x, 2**b, loss, np.full(len(x), size)))
    rates, batches, losses, sizes = (np.concatenate(part) for part in zip(*parts, strict=True))
    scales = 2 ** (logs + 20)
    return (
        Runs(rates, batches, losses, sizes, scales),
        2 ** (target + 20),
        np.array([rate[-1], batch[-1]]),
    )


def covered(name: str, number: int) -> tuple[Array, Array, Array]:
    """Of one ladder: whether rate and batch lie inside, width in octaves, error in octaves."""
    case = next(case for case in cases() if case.name == name)
    rng = np.random.default_rng((zlib.crc32(name.encode()), number))
    runs, scales, truth = planted(case, rng)
    found = Ladder(runs).predict(scales)
    low, high = np.quantile(found.draws, (0.05, 0.95), axis=0)
    error = np.log2([found.rate, found.batch]) - truth
    return (low <= truth) & (truth <= high), high - low, error


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ladders", type=int, default=100, help="of each case")
    parser.add_argument("--first", type=int, default=0, help="number that the first is drawn by")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    names = [case.name for case in cases() if options.only in case.name]
    if not names:
        parser.error(f"no case's name contains {options.only!r}")
    table = Table("case", "rate covered", "batch covered", "rate width", "batch width", "rms error")
    found: dict[str, dict[str, float]] = {}
    with ProcessPoolExecutor(options.processes) as pool:
        for name in names:
            numbers = range(options.first, options.first + options.ladders)
            results = list(pool.map(covered, [name] * options.ladders, numbers))
            inside, width, error = (np.array(part) for part in zip(*results, strict=True))
            share, wide = inside.mean(axis=0), np.median(width, axis=0)
            rms = np.sqrt((error**2).mean(axis=0))
            table.add_row(
                name, *(f"{x:.0%}" for x in share), *(f"{x:.2f}" for x in wide),
                f"{rms[0]:.2f} {rms[1]:.2f}",
            )  # fmt: skip
            found[name] = {
                "peak_lr_covered": float(share[0]),
                "global_batch_size_covered": float(share[1]),
                "peak_lr_width_octaves": float(wide[0]),
                "global_batch_size_width_octaves": float(wide[1]),
            }
    Console(width=120).print(table)
    print(json.dumps(found, allow_nan=False))


if __name__ == "__main__":
    main()
