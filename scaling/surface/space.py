"""Where a trial lies: its hyperparameters as numbers between −1 and 1, and as labels."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.intp]

RATE = "peak_lr"
_RATES = (RATE, "base_lr")
"""Either is the learning rate; a rule carries the second one to the batch size."""
BATCH = "global_batch_size"
TAILS = (0.05, 0.95)
"""Ends of an interval, as shares of draws: all are at 90%."""


@dataclass(frozen=True)
class Axis:
    """One searched hyperparameter: a range or a list of values.

    Attributes:
        name: Of the hyperparameter.
        choice: Its values; None for a range.
        low: Lower end of the range.
        high: Upper end of the range.
        log: Whether equal ratios count as equal steps.
    """

    name: str
    choice: tuple[Any, ...] | None = None
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    @cached_property
    def _scale(self) -> tuple[float, ...] | None:
        """A list's values as numbers in rising order of place; None where they are labels."""
        values = self.choice or ()
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            return None
        is_log = self.name in (*_RATES, BATCH)
        return tuple(math.log(v) if is_log else float(sorted(values).index(v)) for v in values)

    @property
    def is_ordered(self) -> bool:
        """Whether values have distances, and are not just different."""
        return self.choice is None or self._scale is not None

    @property
    def ends(self) -> tuple[float, float]:
        """Logarithms of the lowest and the highest value of an axis of positive numbers."""
        values = self.choice if self.choice is not None else (self.low, self.high)
        return math.log(min(values)), math.log(max(values))

    def place(self, value: Any) -> float:
        """Of a value of an ordered axis: its place between −1 and 1."""
        if self.choice is None:
            low, high, at = self.low, self.high, float(value)
            if self.log:
                low, high, at = math.log(low), math.log(high), math.log(at)
        else:
            scale = self._scale or ()
            low, high, at = min(scale), max(scale), self._on_scale(value)
        return 0.0 if high == low else 2 * (at - low) / (high - low) - 1

    def _on_scale(self, value: Any) -> float:
        """A listed value; a rate or batch size may lie between them."""
        if self.name in (*_RATES, BATCH):
            return math.log(value)
        return (self._scale or ())[(self.choice or ()).index(value)]

    def value(self, place: float) -> float:
        """The value of a range at a place between −1 and 1."""
        share = (min(max(place, -1.0), 1.0) + 1) / 2
        if not self.log:
            return self.low + share * (self.high - self.low)
        value = self.low * (self.high / self.low) ** share
        return min(max(value, self.low), self.high)

    def at_share(self, share: float) -> Any:
        """The value at a share of the range or of the list, 0 ≤ share < 1."""
        if self.choice is not None:
            return self.choice[int(share * len(self.choice))]
        return self.value(2 * share - 1)

    def values(self, count: int) -> tuple[Any, ...]:
        """A list's values, or `count` values of a range, evenly spread and with its ends."""
        if self.choice is not None:
            return self.choice
        return tuple(self.value(float(place)) for place in np.linspace(-1, 1, count))


@dataclass(frozen=True)
class Coordinates:
    """Places of n trials.

    Attributes:
        rate: [n] log rate, −1 to 1 over its range; 0 where no rate is searched.
        batch: [n] log batch size, −1 to 1 over the study's batch sizes; 0 where there is one.
        numbers: [n, j] other ordered hyperparameters.
        labels: [n, k] which value of each other list.
        series: [n] which combination of scientific hyperparameters other than the batch size.
    """

    rate: Array
    batch: Array
    numbers: Array
    labels: Labels
    series: Labels

    def __len__(self) -> int:
        return len(self.rate)

    def take(self, which: Labels) -> "Coordinates":
        """Those of some of the trials."""
        return Coordinates(
            self.rate[which], self.batch[which], self.numbers[which], self.labels[which],
            self.series[which],
        )  # fmt: skip


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        cells: Scientific hyperparameters of each cell; one empty cell where a study has none.
        axes: Nuisance hyperparameters.
    """

    cells: tuple[Mapping[str, Any], ...]
    axes: tuple[Axis, ...]

    def axis(self, name: str) -> Axis | None:
        """The nuisance hyperparameter of a name; None where it is not searched."""
        return next((axis for axis in self.axes if axis.name == name), None)

    @property
    def rate(self) -> Axis | None:
        """The learning rate; None where it is not searched."""
        return next((axis for axis in self.axes if axis.name in _RATES), None)

    @property
    def others(self) -> tuple[Axis, ...]:
        """What is searched beside the learning rate and the batch size."""
        rate = self.rate
        return tuple(axis for axis in self.axes if axis is not rate and axis.name != BATCH)

    @cached_property
    def _cell_batches(self) -> Axis | None:
        sizes = sorted({cell[BATCH] for cell in self.cells if BATCH in cell})
        return Axis(BATCH, choice=tuple(sizes)) if sizes else None

    @cached_property
    def cell_series(self) -> tuple[int, ...]:
        """Of each cell, which combination of scientific hyperparameters but the batch it has."""
        keys = [
            str(sorted((name, repr(v)) for name, v in cell.items() if name != BATCH))
            for cell in self.cells
        ]
        order = list(dict.fromkeys(keys))
        return tuple(order.index(key) for key in keys)

    def batch_place(self, size: float) -> float:
        """Of a batch size, tried or not: its place over those of the cells."""
        return self._cell_batches.place(size) if self._cell_batches else 0.0

    def coordinates(self, trials: Sequence[tuple[int, Mapping[str, Any]]]) -> Coordinates:
        """Where trials lie, each a cell's index and its nuisance hyperparameters."""
        rate, batch, others = self.rate, self.axis(BATCH), self.others
        ordered = [axis for axis in others if axis.is_ordered]
        unordered = [axis for axis in others if not axis.is_ordered]
        at_batch = [
            batch.place(point[BATCH]) if batch
            else self.batch_place(self.cells[cell][BATCH]) if BATCH in self.cells[cell]
            else 0.0
            for cell, point in trials
        ]  # fmt: skip
        count = len(trials)
        return Coordinates(
            rate=np.array(
                [rate.place(p[rate.name]) if rate else 0.0 for _, p in trials], dtype=float
            ),
            batch=np.array(at_batch, dtype=float),
            numbers=np.array(
                [[axis.place(p[axis.name]) for axis in ordered] for _, p in trials], dtype=float
            ).reshape(count, len(ordered)),
            labels=np.array(
                [[(a.choice or ()).index(p[a.name]) for a in unordered] for _, p in trials],
                dtype=np.intp,
            ).reshape(count, len(unordered)),
            series=np.array([self.cell_series[cell] for cell, _ in trials], dtype=np.intp),
        )
