"""How far the runs of a table came, and which of them a search stopped before the others."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from scaling.report.foreign_tables.table_names import (
    MAXIMIZED,
    place_of_result,
    plain,
    status_of,
    tells_stopped,
)
from scaling.report.foreign_tables.table_numbers import (
    TRUE,
    Marks,
    is_blank,
    may_be_version,
    number,
)

EARLY = 0.95
"""A run that ends before this share of the longest of its cell did not run to its budget."""
_ENDS = (
    "step", "global_step", "global_steps", "trainer_global_step", "train_step",
    "training_iteration", "iteration", "iter", "it", "update", "epoch",
)  # fmt: skip
"""How far a run came, in a table with one row a run; `steps` may be a budget that was set."""


@dataclass
class _Cell:
    """What a cell's runs have been seen to come to: the furthest end, with a loss and without."""

    longest: float = -math.inf
    with_loss: float = -math.inf
    best: tuple[float, float] = (math.inf, math.inf)
    """Cost of the best one, and minus its end: of two as good the longer one counts."""


class CellEnds:
    """How far the runs of each batch and cell came, and where the best one of each ended.

    A search that stops runs goes on with the best one. Where the best run of a cell ended before
    others, runs end by themselves, as by patience, and their losses are final. So they are in a
    table that has a word for stopped runs. Runs that failed or had not ended decide nothing.
    """

    def __init__(
        self, marks: Marks, names: Sequence[str], cell: Iterable[int], *, keeps_early: bool
    ) -> None:
        """`names` are the columns by our names, `cell` places of those that tell cells apart.

        Runs of one batch have the same budget only where those agree too, as a size does.
        `keeps_early` says that no run counts as stopped for having ended early.
        """
        self._marks, self._names, self._keeps_early = marks, names, keeps_early
        self._sign = -1 if MAXIMIZED in names else 1
        self.loss = place_of_result(names)
        self._reached = names.index("steps_to_target") if "steps_to_target" in names else None
        self._cell = (names.index("global_batch_size"), *cell)
        self._status = names.index("status") if "status" in names else None
        self._cells: dict[tuple[float | str, ...], _Cell] = {}
        self._known: dict[tuple[int, str], float | str] = {}

    def add(self, cells: Sequence[str], end: float, *, is_lost: bool = False) -> None:
        """One run that came to `end`; of a lost one the last loss says nothing."""
        if self._status is not None:
            self._keeps_early |= tells_stopped(cells[self._status])
        if not ended_as_it_should(cells, self._names):
            return
        cell = self._cells.setdefault(self._key(cells), _Cell())
        cell.longest = max(cell.longest, end)
        if not is_lost and self.has_loss(cells) and math.isfinite(loss := self._loss(cells)):
            cell.with_loss = max(cell.with_loss, end)
            kept = math.inf if self._has_reached(cells) else end
            cell.best = min(cell.best, (self._sign * loss, -kept))

    def progress(self, cells: Sequence[str], place: int) -> float:
        """-inf for none."""
        at = number(self._marks, "steps", cells[place])
        return -math.inf if math.isnan(at) else at

    def has_loss(self, cells: Sequence[str]) -> bool:
        """Whether a row has one, be it no number."""
        return self.loss is not None and not is_blank(cells[self.loss])

    def is_early(self, cells: Sequence[str], end: float) -> bool:
        """Whether others went on, and not because the run diverged or had reached the target."""
        if self._keeps_early or self.num_best_early:
            return False
        cell = self._cells.get(self._key(cells), _Cell())
        if not _is_short(end, cell.longest) or self._has_reached(cells):
            return False
        return not self.has_loss(cells) or math.isfinite(self._loss(cells))

    @cached_property
    def num_best_early(self) -> int:
        """Cells of which the best run ended before another one with a loss, once all are added."""
        cells = () if self._keeps_early else self._cells.values()
        return sum(_is_short(-cell.best[1], cell.with_loss) for cell in cells)

    def _key(self, cells: Sequence[str]) -> tuple[float | str, ...]:
        return tuple([self._alike(place, cells[place]) for place in self._cell])

    def _alike(self, place: int, text: str) -> float | str:
        """32 and 32.0 are one batch, 2.1 and 2.10 are two versions."""
        if (known := self._known.get((place, text))) is None:
            at = number(self._marks, "steps", text)
            is_word = math.isnan(at) or may_be_version(self._names[place])
            known = self._known[place, text] = text.strip() if is_word else at
        return known

    def _has_reached(self, cells: Sequence[str]) -> bool:
        if self._reached is None:
            return False
        return math.isfinite(number(self._marks, "steps_to_target", cells[self._reached]))

    def _loss(self, cells: Sequence[str]) -> float:
        return math.nan if self.loss is None else number(self._marks, "", cells[self.loss])


def ended_as_it_should(cells: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a row's run did, by the table's words; `names` are its columns by our names."""
    if "status" in names and status_of(cells[names.index("status")]) not in (None, "done"):
        return False
    return "diverged" not in names or cells[names.index("diverged")].strip().lower() not in TRUE


def _is_short(end: float, longest: float) -> bool:
    return -math.inf < end < EARLY * longest


class EarlyRows:
    """Which rows of one run each ended before others of their cell.

    Attributes:
        place: Of the column that says how far a run came; None without one, or without losses.
        ends: What has been seen of it.
    """

    def __init__(self, header: Sequence[str], ends: CellEnds, taken: Iterable[int]) -> None:
        """`taken` are the places of columns that are read as something else."""
        self.ends = ends
        plains, others = [plain(name) for name in header], set(taken)
        found = [plains.index(name) for name in _ENDS if name in plains]
        left = [place for place in found if place not in others]
        self.place = left[0] if left and ends.loss is not None else None

    def add(self, cells: Sequence[str]) -> None:
        """One row."""
        if self.place is not None:
            self.ends.add(cells, self.ends.progress(cells, self.place))

    def has(self, cells: Sequence[str]) -> bool:
        """Whether a row is of a run that ended early, with a loss."""
        if self.place is None or not self.ends.has_loss(cells):
            return False
        return self.ends.is_early(cells, self.ends.progress(cells, self.place))
