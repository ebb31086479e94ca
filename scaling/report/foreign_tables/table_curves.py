"""Tables with one row an evaluation: the rows of a run, made one by its last evaluation."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from scaling.report.foreign_tables.table_names import MAXIMIZED, plain
from scaling.report.foreign_tables.table_numbers import Marks, UnclearMarkError

_RUN_COLUMNS = (
    "run_id",
    "trial_id",
    "run",
    "trial",
    "run_uuid",
    "uid",
    "id",
    "run_name",
    "version",
)
_STEP_COLUMNS = ("step", "global_step", "trainer_global_step", "train_step", "steps")
_OTHER_PROGRESS = ("training_iteration", "iteration", "epoch", "examples", "tokens")
_EARLY = 0.95
"""A run that ends before this share of the longest of its cell did not run to its budget."""

_ENDS = (
    *(name for name in _STEP_COLUMNS if name != "steps"),
    "training_iteration",
    "iteration",
    "epoch",
)
"""How far a run came, in a table with one row a run; `steps` may be a budget that was set."""

Rows = Iterable[tuple[int, list[str]]]


@dataclass(frozen=True)
class Curves:
    """How a table says which rows are one run, and in which order.

    Attributes:
        run: Places of the columns that tell runs apart.
        progress: Place of the column that rises along a run.
        in_steps: Whether that counts optimizer steps.
        num_rows: Rows of the table.
        num_runs: Runs they are of.
    """

    run: tuple[int, ...]
    progress: int
    in_steps: bool
    num_rows: int
    num_runs: int


@dataclass(frozen=True)
class End:
    """Where a run's curve ends.

    Attributes:
        steps: Of its last evaluation; None where the table does not count them.
        is_early: Whether others of its cell went on.
        is_lost: Whether it went on itself, without a loss where others had one: it diverged.
    """

    steps: float | None = None
    is_early: bool = False
    is_lost: bool = False


class CurveFinder:
    """Goes through a table's rows once and says whether they are evaluations of fewer runs.

    A run is told by a column with such a name, and by its batch, rate, seed and cell; then they are
    where any run has several rows with different progress, as most of a search that stops runs
    have one. Without such a column it is told by its settings too, and most runs must have several
    rows, the column of progress be called as one, and no two rows of a run share a value of it.
    """

    def __init__(
        self,
        header: Sequence[str],
        names: Sequence[str],
        axes: Sequence[int],
        settings: Iterable[int],
    ) -> None:
        """`axes` and `settings` are the places of further columns in which two runs may differ.

        Those of `axes` tell cells apart.
        """
        plains = [plain(name) for name in header]
        by_name = [plains.index(name) for name in _RUN_COLUMNS if name in plains]
        progress = [
            plains.index(name) for name in (*_STEP_COLUMNS, *_OTHER_PROGRESS) if name in plains
        ]
        progress += [names.index(name) for name in ("steps", "examples") if name in names]
        self._has_id = bool(by_name)
        own = [names.index(n) for n in ("global_batch_size", "peak_lr", "seed") if n in names]
        self._run = (*own, *(by_name[:1] or (*axes, *settings)))
        self._axes = tuple(axes) if by_name else ()
        allowed = [
            place for place in progress
            if self._has_id or plains[place] not in ("steps", "examples", "tokens")
        ]  # fmt: skip
        self._progress = allowed[0] if allowed else None
        self._in_steps = self._progress is not None and (
            plains[self._progress] in _STEP_COLUMNS or names[self._progress] == "steps"
        )
        self._rate = names.index("peak_lr") if by_name and "peak_lr" in names else None
        self._runs: dict[tuple[str, ...], set[str]] = {}
        self._rates: dict[tuple[str, ...], dict[str, set[str]]] = {}
        self._num_rows = self._num_repeated = 0

    def add(self, cells: Sequence[str]) -> None:
        """One row."""
        if self._progress is None:
            return
        at = cells[self._progress].strip()
        if not at:
            return
        self._num_rows += 1
        run = tuple(cells[place] for place in (*self._run, *self._axes))
        seen = self._runs.setdefault(run, set())
        self._num_repeated += at in seen
        seen.add(at)
        if self._rate is not None and cells[self._rate].strip():
            places = (*self._run, *self._axes)
            but_rate = tuple(cells[place] for place in places if place != self._rate)
            self._rates.setdefault(but_rate, {}).setdefault(at, set()).add(cells[self._rate])

    def has_moving_rates(self) -> bool:
        """Whether most runs that have several rows have another rate as they go on.

        Runs that share a name, or begin to count anew, have two rates at one progress.
        """
        if not self._tells_runs():
            return False
        long = [rates for rates in self._rates.values() if len(rates) > 1]
        changing = [
            rates for rates in long
            if all(len(at_once) == 1 for at_once in rates.values())
            if len(set[str]().union(*rates.values())) > 1
        ]  # fmt: skip
        return 2 * len(changing) > len(long)

    def curves(self) -> Curves | None:
        """None where every row is a run."""
        if self._progress is None or not self._runs:
            return None
        places, runs = (*self._run, *self._axes), self._runs
        if self._may_rise() and not self._are_long(runs):
            places, runs = self._run, dict[tuple[str, ...], set[str]]()
            for run, seen in self._runs.items():
                runs.setdefault(run[: len(places)], set()).update(seen)
        is_unique = self._has_id or self._num_repeated == 0
        if not (self._are_long(runs) and is_unique):
            return None
        return Curves(places, self._progress, self._in_steps, self._num_rows, len(runs))

    def _may_rise(self) -> bool:
        """Whether a size may be what rises along a run; not if runs of several settings share ids.

        Those are numbers that begin anew, perhaps in each size too.
        """
        own = {run[: len(self._run)] for run in self._runs}
        is_one_run = len({run[-1] for run in own}) == len(own)
        return bool(self._axes) and (self._progress in self._axes or is_one_run)

    def _tells_runs(self) -> bool:
        """Whether a column names the runs, and more than one."""
        place = len(self._run) - 1
        return self._has_id and len({run[place] for run in self._runs}) > 1

    def _are_long(self, runs: Mapping[tuple[str, ...], set[str]]) -> bool:
        """Whether runs have several rows with different progress: most, or any that is named."""
        num_long = sum(len(seen) > 1 for seen in runs.values())
        return 2 * num_long > len(runs) or (num_long > 0 and self._tells_runs())


class LastEvaluations:
    """One row a run: of each column what the run had last.

    Attributes:
        num_early: Runs that ended before the others of their cell.
        num_lost: Runs that went on without a loss.
    """

    def __init__(
        self, curves: Curves, marks: Marks, names: Sequence[str], axes: Iterable[int]
    ) -> None:
        """`names` are the columns by our names, `axes` the places of those that tell cells apart.

        Runs of one batch have the same budget only where those agree too, as a size does.
        """
        self._curves, self._marks = curves, marks
        result = MAXIMIZED if MAXIMIZED in names else "validation_loss"
        self._loss = names.index(result) if result in names else None
        self._cell = (names.index("global_batch_size"), *axes)
        self.num_early = self.num_lost = 0

    def of(self, rows: Rows) -> Iterator[tuple[int, list[str], "End"]]:
        """(line, cells, how it ended) of each run, in the order of the runs' first rows."""
        runs: dict[tuple[str, ...], list[tuple[float, int, list[str]]]] = {}
        for number, cells in rows:
            key = tuple(cells[place] for place in self._curves.run)
            runs.setdefault(key, []).append((self._at(cells), number, cells))
        ends: dict[tuple[str, ...], float] = {}
        last: list[tuple[float, int, list[str], list[float]]] = []
        for evaluations in runs.values():
            evaluations.sort(key=lambda entry: entry[0])
            evaluated = [at for at, _, cells in evaluations if self._has_loss(cells)]
            end, number, _ = evaluations[-1]
            merged = self._merged([cells for _, _, cells in evaluations])
            last.append((end, number, merged, evaluated))
            cell = self._cell_of(merged)
            ends[cell] = max(ends.get(cell, -math.inf), end)
        all_evaluated = sorted({at for *_, evaluated in last for at in evaluated})
        for end, number, merged, evaluated in last:
            is_lost = _is_lost(end, evaluated, all_evaluated)
            is_early = end < _EARLY * ends[self._cell_of(merged)] and self._is_finite(merged)
            self.num_lost += is_lost
            self.num_early += is_early and not is_lost
            steps = end if self._curves.in_steps and math.isfinite(end) else None
            yield number, merged, End(steps, is_early, is_lost)

    def _cell_of(self, merged: Sequence[str]) -> tuple[str, ...]:
        return tuple(merged[place] for place in self._cell)

    def _has_loss(self, cells: Sequence[str]) -> bool:
        return self._loss is not None and bool(cells[self._loss].strip())

    def _merged(self, evaluations: Sequence[Sequence[str]]) -> list[str]:
        merged = list(evaluations[0])
        for cells in evaluations[1:]:
            for place, cell in enumerate(cells):
                if cell.strip():
                    merged[place] = cell
        return merged

    def _at(self, cells: Sequence[str]) -> float:
        try:
            return float(self._marks.plain("steps", cells[self._curves.progress].strip()))
        except (ValueError, UnclearMarkError):
            return -math.inf

    def _is_finite(self, merged: Sequence[str]) -> bool:
        if self._loss is None:
            return True
        try:
            return math.isfinite(float(self._marks.plain("", merged[self._loss].strip())))
        except (ValueError, UnclearMarkError):
            return True


class EarlyRows:
    """Which rows of one run each ended before others of their cell.

    Attributes:
        place: Of the column that says how far a run came; None without one.
    """

    def __init__(
        self,
        header: Sequence[str],
        names: Sequence[str],
        marks: Marks,
        axes: Iterable[int],
        taken: Iterable[int],
    ) -> None:
        """`taken` are the places of columns that are read as something else."""
        plains, others = [plain(name) for name in header], set(taken)
        found = [plains.index(name) for name in _ENDS if name in plains]
        self.place = next((place for place in found if place not in others), None)
        result = MAXIMIZED if MAXIMIZED in names else "validation_loss"
        self._loss = names.index(result) if result in names else None
        self._cell = (names.index("global_batch_size"), *axes)
        self._marks = marks
        self._ends: dict[tuple[str, ...], float] = {}

    def add(self, cells: Sequence[str]) -> None:
        """One row that counts."""
        if self.place is not None and self._loss is not None:
            cell = tuple(cells[place] for place in self._cell)
            self._ends[cell] = max(self._ends.get(cell, -math.inf), self._number(cells, self.place))

    def has(self, cells: Sequence[str]) -> bool:
        """Whether a row is of a run that ended early, with a loss."""
        if self.place is None or self._loss is None:
            return False
        end = self._ends.get(tuple(cells[place] for place in self._cell), -math.inf)
        at, loss = self._number(cells, self.place), self._number(cells, self._loss)
        return -math.inf < at < _EARLY * end and math.isfinite(loss)

    def _number(self, cells: Sequence[str], place: int) -> float:
        """-inf for none."""
        try:
            column = "steps" if place == self.place else ""
            value = float(self._marks.plain(column, cells[place].strip()))
        except (ValueError, UnclearMarkError):
            return -math.inf
        return -math.inf if math.isnan(value) else value


def _is_lost(end: float, evaluated: Sequence[float], all_evaluated: Sequence[float]) -> bool:
    """Whether a run went on for an evaluation's time or more without a loss, where others had one.

    A tracker leaves a loss blank that is not a number, so the last one it has says nothing of
    how the run ended.

    Args:
        end: Progress of the run's last row.
        evaluated: Progress at its losses, rising.
        all_evaluated: The same of all runs.
    """
    if not evaluated or not math.isfinite(evaluated[-1]):
        return False
    usual = max(later - earlier for earlier, later in pairwise([0.0, *evaluated]))
    others = bisect_right(all_evaluated, end) - bisect_right(all_evaluated, evaluated[-1] / _EARLY)
    return end - evaluated[-1] >= usual and others > 0
