"""A planted sweep as a table with a known answer: what `foreign_tables.py` reads.

Every table is of one planted sweep or of a twist of it. The loss of a batch B at a rate is
lowest(B) + .05 ln²(rate / best(B)), best(B) = .002 √(B / 64), and 128 is the best batch. Steps to
the target are min_steps (1 + critical / B).
"""

import csv
import io
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BATCHES = (32, 64, 128, 256, 512)
RATES = tuple(1e-4 * 2 ** (step / 1.0) for step in range(9))
BEST_BATCH = 128
CRITICAL, MIN_STEPS = 700.0, 500.0


@dataclass(frozen=True)
class Answer:
    """What must come out.

    Attributes:
        cells: The best rate of each batch, within a grid step.
        losses: The best loss of each batch, within .03.
        metrics: The best value of a maximized metric of each batch, within .01, by its name.
        batch: What is recommended.
        critical: The critical batch, within 5%.
        num_trials: Trials that count.
        says: Words of the report.
        says_not: Words that it must not have.
        known: Further values of summary.json, by keys with dots.
    """

    cells: Mapping[int, float] = field(default_factory=dict[int, float])
    losses: Mapping[int, float] = field(default_factory=dict[int, float])
    metrics: Mapping[str, Mapping[int, float]] = field(
        default_factory=dict[str, Mapping[int, float]]
    )
    batch: int | None = None
    critical: float | None = None
    num_trials: int | None = None
    says: tuple[str, ...] = ()
    says_not: tuple[str, ...] = ()
    known: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Refusal:
    """What the refusal must name, and what it must not.

    Attributes:
        says: Words of the message, the options to go on with among them.
        says_not: Words that would lead astray.
    """

    says: tuple[str, ...]
    says_not: tuple[str, ...] = ()


@dataclass(frozen=True)
class Planted:
    """A table and what reading it must come to, with one set of options after the other."""

    name: str
    file: str
    content: bytes
    tries: tuple[tuple[tuple[str, ...], Answer | Refusal], ...]


def best_rate(batch: int) -> float:
    """The planted best rate."""
    return 0.002 * math.sqrt(batch / 64)


def lowest(batch: int) -> float:
    """The planted loss at the best rate."""
    return 2.0 + 0.02 * math.log2(batch / BEST_BATCH) ** 2


def loss_at(batch: int, rate: float) -> float:
    """The planted loss."""
    return lowest(batch) + 0.05 * math.log(rate / best_rate(batch)) ** 2


def steps_at(batch: float, critical: float = CRITICAL, least: float = MIN_STEPS) -> float:
    """The planted steps to the target."""
    return least * (1 + critical / batch)


ANSWER = Answer(
    cells={batch: best_rate(batch) for batch in BATCHES},
    losses={batch: lowest(batch) for batch in BATCHES},
    batch=BEST_BATCH,
)


@dataclass
class Run:
    """One run of the planted sweep."""

    number: int
    batch: int
    rate: float
    seed: int
    loss: float

    @property
    def steps(self) -> int:
        """Optimizer steps at an equal number of examples."""
        return 512_000 // self.batch

    @property
    def accuracy(self) -> float:
        """A score that is best where the loss is."""
        return 0.9 - (self.loss - 2.0) / 5


def runs(num_seeds: int = 1, noise: float = 0.002, batches: Sequence[int] = BATCHES) -> list[Run]:
    """The planted sweep: every batch × rate × seed, in an order that says nothing."""
    rng = random.Random(7)
    found = [
        Run(0, batch, rate, seed, loss_at(batch, rate) + rng.gauss(0, noise))
        for batch in batches
        for rate in RATES
        for seed in range(num_seeds)
    ]
    rng.shuffle(found)
    for number, run in enumerate(found):
        run.number = number
    return found


def text(
    rows: Iterable[Mapping[str, Any]],
    *,
    separator: str = ",",
    quote_all: bool = False,
    encoding: str = "utf-8",
    end: str = "\n",
) -> bytes:
    """Rows as a CSV file, with the columns in the order of their first appearance."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=end)
    writer.writerow(columns)
    writer.writerows([["" if row.get(c) is None else row.get(c) for c in columns] for row in rows])
    return file.getvalue().encode(encoding)


def rename(**ours: str) -> tuple[str, ...]:
    """Options that give their columns our names."""
    return tuple(part for our, theirs in ours.items() for part in ("--rename", f"{theirs}={our}"))


def hints(**ours: str) -> tuple[str, ...]:
    """The renamings that a refusal must name."""
    return tuple(f"{theirs}={our}" for our, theirs in ours.items())
