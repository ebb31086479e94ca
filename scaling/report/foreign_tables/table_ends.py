"""How far the runs of a table came, and which of them a search stopped before the others."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scaling.report.foreign_tables.table_names import MAXIMIZED, place_of_result, plain
from scaling.report.foreign_tables.table_numbers import Marks, number

EARLY = 0.95
"""A run that ends before this share of the longest of its cell did not run to its budget."""
_ENDS = ("step", "global_step", "trainer_global_step", "train_step", "training_iteration",
         "iteration", "epoch")  # fmt: skip
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
    others, runs end by themselves, as by patience, and their losses are final.
    """

    def __init__(self, marks: Marks, names: Sequence[str], cell: Iterable[int]) -> None:
        """`names` are the columns by our names, `cell` places of those that tell cells apart.

        Runs of one batch have the same budget only where those agree too, as a size does.
        """
        self._marks = marks
        self._sign = -1 if MAXIMIZED in names else 1
        self.loss = place_of_result(names)
        self._reached = names.index("steps_to_target") if "steps_to_target" in names else None
        self._cell = (names.index("global_batch_size"), *cell)
        self._cells: dict[tuple[str, ...], _Cell] = {}

    def add(self, cells: Sequence[str], end: float, *, is_lost: bool = False) -> None:
        """One run that came to `end`; of a lost one the last loss says nothing."""
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
        return self.loss is not None and bool(cells[self.loss].strip())

    def is_early(self, cells: Sequence[str], end: float) -> bool:
        """Whether others went on, and not because the run diverged or had reached the target."""
        cell = self._cells.get(self._key(cells), _Cell())
        if not _is_short(end, cell.longest) or self._has_reached(cells):
            return False
        return not self.has_loss(cells) or math.isfinite(self._loss(cells))

    def num_best_early(self) -> int:
        """Cells of which the best run ended before another one with a loss."""
        return sum(_is_short(-cell.best[1], cell.with_loss) for cell in self._cells.values())

    def _key(self, cells: Sequence[str]) -> tuple[str, ...]:
        return tuple(cells[place] for place in self._cell)

    def _has_reached(self, cells: Sequence[str]) -> bool:
        return self._reached is not None and bool(cells[self._reached].strip())

    def _loss(self, cells: Sequence[str]) -> float:
        return math.nan if self.loss is None else number(self._marks, "", cells[self.loss])


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
        """One row that counts."""
        if self.place is not None:
            self.ends.add(cells, self.ends.progress(cells, self.place))

    def has(self, cells: Sequence[str]) -> bool:
        """Whether a row is of a run that ended early, with a loss."""
        if self.place is None or not self.ends.has_loss(cells):
            return False
        return self.ends.is_early(cells, self.ends.progress(cells, self.place))
