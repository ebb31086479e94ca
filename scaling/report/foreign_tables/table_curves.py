"""Tables with one row an evaluation: the rows of a run, made one by its last evaluation."""

import math
import statistics
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from scaling.report.foreign_tables.table_ends import EARLY, CellEnds
from scaling.report.foreign_tables.table_names import (
    COLUMNS,
    CONFIG_PREFIXES,
    place_of_result,
    plain,
)
from scaling.report.foreign_tables.table_numbers import Marks, is_blank, number

_RUN_COLUMNS = (
    "run_id", "trial_id", "run", "trial", "run_uuid", "uid", "id", "run_name", "version",
)  # fmt: skip
_STEP_COLUMNS = (
    "step", "global_step", "global_steps", "trainer_global_step", "train_step", "num_updates",
    "steps",
)  # fmt: skip
_OTHER_PROGRESS = (
    "training_iteration", "iteration", "iter", "it", "update", "epoch", "examples", "tokens",
    "consumed_samples", "consumed_tokens", "samples_seen", "examples_seen", "tokens_seen",
    "wall_time", "timestamp",
)  # fmt: skip
"""The last two only where no other is: a time may be a run's own."""
_BUDGETS = ("steps", "num_updates", "examples", "tokens")
"""What may as well have been set for a run, where no column names the runs."""
_MANY = 4
"""Rows of one recipe through which a column that rises is noted."""
_MOST_GROUPS = 10_000
"""Recipes whose rows are looked at for that."""
_NEARLY_ALL = 0.9
"""Share of a log's runs that begin at the same progress; the others were cut or resumed."""

Rows = Iterable[tuple[int, list[str]]]
_Evaluation = tuple[float, int, list[str]]
"""Progress, line and cells."""


@dataclass(frozen=True)
class Curves:
    """How a table says which rows are one run, and in which order.

    Attributes:
        run: Places of the columns that tell runs apart.
        progress: Place of the column that rises along a run.
        in_steps: Whether that counts optimizer steps.
        has_names: Whether a column names the runs; else replicates have all those in common.
        num_rows: Rows of the table.
        num_runs: Runs they are of.
    """

    run: tuple[int, ...]
    progress: int
    in_steps: bool
    has_names: bool
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

    A run is told by a column with such a name, and by its batch, rate and seed; by its cell and
    settings too where it would have two losses at one progress otherwise. Most runs must have
    several rows with different progress, or some where none has two losses at one, as most of a
    search that stops runs have one row. Where a name is shared by runs of several settings, or
    losses are repeated as by a run that was resumed, runs must begin alike. Without such a column a
    run is told by its settings too, most must have several rows and begin alike, and the
    column of progress be called as one; several losses at most values of that are as many runs.
    """

    def __init__(
        self,
        header: Sequence[str],
        names: Sequence[str],
        marks: Marks,
        axes: Sequence[int],
        settings: Sequence[int],
        unknown: Sequence[int],
        searched: Sequence[int],
    ) -> None:
        """The last four are places of further columns in which two runs may differ.

        Args:
            header: The table's columns.
            names: The same by our names.
            marks: How its numbers are written.
            axes: What tells cells apart.
            settings: What is compared or set by its name, and may be a schedule's.
            unknown: What may as well be measured.
            searched: What was named as searched.
        """
        plains = [plain(name) for name in header]
        other = {*axes, *searched, *(n for n, name in enumerate(names) if name in COLUMNS)}
        by_name = [plains.index(name) for name in _RUN_COLUMNS if name in plains]
        by_name = [place for place in by_name if place not in other]
        progress = [
            plains.index(name) for name in (*_STEP_COLUMNS, *_OTHER_PROGRESS) if name in plains
        ]
        progress += [names.index(name) for name in ("steps", "examples") if name in names]
        self._has_id = bool(by_name)
        allowed = [
            place for place in progress
            if self._has_id or plains[place] not in _BUDGETS
        ]  # fmt: skip
        self._progress = allowed[0] if allowed else None
        settings, unknown = (
            [place for place in places if place != self._progress] for places in (settings, unknown)
        )
        own = [names.index(n) for n in ("global_batch_size", "peak_lr", "seed") if n in names]
        own += [place for place in searched if place not in progress]
        recipe = [names.index(n) for n in ("warmup_steps", "clip_norm") if n in names]
        run = (*own, *(by_name[:1] or (*axes, *recipe, *settings, *unknown)))
        cell = [place for place in axes if by_name and place != self._progress]
        self._places = (*run, *cell, *(settings if by_name else ()))
        self._name, self._with_cell = len(run) - 1, len(run) + len(cell)
        theirs = plains[self._progress] if self._progress is not None else ""
        is_ours = self._progress is not None and names[self._progress] == "steps"
        self._in_steps = is_ours or theirs in _STEP_COLUMNS
        counts_up = theirs in _STEP_COLUMNS and theirs != "steps"
        self._may_be_budget = (is_ours and not counts_up) or self._progress in axes
        self._marks = marks
        self._loss = place_of_result(names)
        rate = names.index("peak_lr") if by_name and "peak_lr" in names else None
        is_set = rate is not None and (
            plains[rate] == "peak_lr" or header[rate].startswith(CONFIG_PREFIXES)
        )
        self._rate = None if is_set else rate
        self._runs: dict[tuple[str, ...], dict[str, int]] = {}
        self._rates: dict[tuple[str, ...], dict[str, set[str]]] = {}
        self._num_rows = 0

    def add(self, cells: Sequence[str]) -> None:
        """One row."""
        if self._progress is None:
            return
        at = cells[self._progress].strip()
        if not at:
            return
        self._num_rows += 1
        points = self._runs.setdefault(tuple(cells[place] for place in self._places), {})
        has_loss = self._loss is None or not is_blank(cells[self._loss])
        points[at] = points.get(at, 0) + has_loss
        if self._rate is not None and cells[self._rate].strip():
            places = self._places[: self._with_cell]
            but_rate = tuple("" if p == self._rate else cells[p] for p in places)
            self._rates.setdefault(but_rate, {}).setdefault(at, set()).add(cells[self._rate])

    def has_moving_rates(self) -> bool:
        """Whether most runs that have several rows have another rate as they go on.

        Runs that share a name, or begin to count anew, have two rates at one progress; or each ends
        at a progress of its own, which may also be its budget. A peak by its name, or one of the
        configuration, does not move.
        """
        if self._may_be_budget or not self._tells_runs():
            return False
        long = [rates for rates in self._rates.values() if len(rates) > 1]
        if 2 * len(set[str]().union(*long)) > sum(map(len, long)):
            return False
        changing = [
            rates for rates in long
            if all(len(at_once) == 1 for at_once in rates.values())
            if len(set[str]().union(*rates.values())) > 1
        ]  # fmt: skip
        return 2 * len(changing) > len(long) and self._begin_alike(self._rates)

    def curves(self) -> Curves | None:
        """None where every row is a run."""
        if self._progress is None or not self._runs:
            return None
        # a size may rise along a run, but numbers that begin anew may do so in each size too
        fewest = self._with_cell if self._are_shared(self._name + 1) else self._name + 1
        num_repeated = _num_repeated(self._runs)
        ways = sorted({fewest, self._with_cell, len(self._places)})
        joined = ((num_places, _joined(self._runs, num_places)) for num_places in ways)
        num_places, runs = next(way for way in joined if _num_repeated(way[1]) == num_repeated)
        if not self._are_evaluations(runs, num_repeated):
            return None
        places, has_names = self._places[:num_places], self._has_id
        num_runs = (
            len(runs) if has_names else sum(_num_replicates(p.values()) for p in runs.values())
        )
        return Curves(places, self._progress, self._in_steps, has_names, self._num_rows, num_runs)

    def _are_evaluations(
        self, runs: Mapping[tuple[str, ...], Mapping[str, int]], num_repeated: int
    ) -> bool:
        """Whether rows of a run are its evaluations, as numbers that begin anew name none."""
        num_long = sum(len(points) > 1 for points in runs.values())
        if 2 * num_long <= len(runs) and not (num_long and self._tells_runs() and not num_repeated):
            return False
        if not self._has_id:
            return self._begin_alike(runs)
        is_number = all(run[self._name].isdigit() for run in self._runs)
        begins_anew = self._are_shared(len(self._places) if is_number else self._name + 1)
        return not (num_repeated or begins_anew) or self._begin_alike(runs)

    def _are_shared(self, num_places: int) -> bool:
        """Whether a name is of several runs, as the first places tell them apart."""
        names = {run[self._name] for run in self._runs}
        return len({run[:num_places] for run in self._runs}) > len(names)

    def _tells_runs(self) -> bool:
        """Whether a column names the runs, and more than one."""
        return self._has_id and len({run[self._name] for run in self._runs}) > 1

    def _begin_alike(self, runs: Mapping[tuple[str, ...], Iterable[str]]) -> bool:
        """Whether nearly all runs of a batch and cell begin at the same progress, as logs do."""
        first: dict[tuple[str, ...], list[float]] = {}
        for run, seen in runs.items():
            cell = (run[0], *run[self._name + 1 : self._with_cell])
            first.setdefault(cell, []).append(min(number(self._marks, "steps", at) for at in seen))
        return sum(f.count(min(f)) for f in first.values()) >= _NEARLY_ALL * len(runs)


def _joined(
    runs: Mapping[tuple[str, ...], Mapping[str, int]], num_places: int
) -> dict[tuple[str, ...], Counter[str]]:
    """Losses at each progress of the runs as the first places tell them apart."""
    joined: dict[tuple[str, ...], Counter[str]] = {}
    for run, points in runs.items():
        joined.setdefault(run[:num_places], Counter()).update(points)
    return joined


def _num_repeated(runs: Mapping[tuple[str, ...], Mapping[str, int]]) -> int:
    """Losses beside another one of the same run at the same progress."""
    return sum(max(num - 1, 0) for points in runs.values() for num in points.values())


def _num_replicates(counts: Iterable[int]) -> int:
    """Runs that share all that tells them apart, of the losses at each progress."""
    return statistics.median_low([num for num in counts if num] or [1])


class RisingColumns:
    """Columns that are not read and rise through the rows of most recipes, as in a log.

    One that rises through the whole table, as a trial's number does, is its order and no progress.
    """

    def __init__(self, header: Sequence[str], recipe: Iterable[int], others: Iterable[int]) -> None:
        """`recipe` are the places that tell recipes and runs apart, `others` those looked at."""
        plains = [plain(name) for name in header]
        named = [plains.index(name) for name in _RUN_COLUMNS if name in plains]
        self._header, self._recipe = header, (*recipe, *named[:1])
        self._others = [place for place in others if place not in self._recipe]
        self._groups: dict[tuple[str, ...], int] = {}
        self._last: dict[tuple[str, ...], list[str]] = {}
        self._fallen: set[tuple[int, tuple[str, ...]]] = set()
        self._row_before: list[str] = []
        self._in_order = set(self._others)

    def add(self, cells: Sequence[str]) -> None:
        """One row."""
        group = tuple([cells[place] for place in self._recipe])
        if group not in self._groups and len(self._groups) >= _MOST_GROUPS:
            return
        self._groups[group] = self._groups.get(group, 0) + 1
        now = [cells[place] for place in self._others]
        before = self._last.get(group, ())
        for place, old, new in zip(self._others, before, now, strict=False):
            if (place, group) not in self._fallen and not _rises(old, new):
                self._fallen.add((place, group))
        for place, old, new in zip(self._others, self._row_before, now, strict=False):
            if place in self._in_order and not _rises(old, new):
                self._in_order.remove(place)
        self._last[group] = self._row_before = now

    def notes(self) -> list[str]:
        """That the rows may be evaluations of fewer runs; empty where nothing rises so."""
        many = [group for group, count in self._groups.items() if count >= _MANY]
        if 2 * len(many) <= len(self._groups):
            return []
        rising = [
            self._header[place]
            for place in self._others
            if place not in self._in_order
            if sum((place, group) not in self._fallen for group in many) >= _NEARLY_ALL * len(many)
        ]
        return [
            f"{column} rises through the rows of each recipe, as in a log. Every row counts as a "
            "run; if the rows are evaluations, keep only each run's last one."
            for column in rising[:1]
        ]


def _rises(before: str, after: str) -> bool:
    """By their numbers; dates and times in one notation rise as their words do."""
    try:
        return float(after) > float(before)
    except ValueError:
        return after.strip() > before.strip()


class LastEvaluations:
    """One row a run: of each column what the run had last."""

    def __init__(self, curves: Curves, ends: CellEnds) -> None:
        self._curves, self._cells = curves, ends

    def of(self, rows: Rows) -> Iterator[tuple[int, list[str], "End"]]:
        """(line, cells, how it ended) of each run, in the order of the runs' first rows."""
        runs: dict[tuple[str, ...], list[_Evaluation]] = {}
        for line, cells in rows:
            key = tuple(cells[place] for place in self._curves.run)
            at = self._cells.progress(cells, self._curves.progress)
            runs.setdefault(key, []).append((at, line, cells))
        last: list[tuple[float, int, list[str], list[float]]] = []
        for evaluations in chain.from_iterable(map(self._replicates, runs.values())):
            evaluations.sort(key=lambda entry: entry[0])
            evaluated = [at for at, _, cells in evaluations if self._cells.has_loss(cells)]
            end, line, _ = evaluations[-1]
            merged = list(evaluations[0][2])
            for _, _, cells in evaluations[1:]:
                merged = [
                    old if is_blank(new) else new for new, old in zip(cells, merged, strict=True)
                ]
            last.append((end, line, merged, evaluated))
        all_evaluated = sorted({at for *_, evaluated in last for at in evaluated})
        lost = [_is_lost(end, evaluated, all_evaluated) for end, *_, evaluated in last]
        for (end, _, merged, _), is_lost in zip(last, lost, strict=True):
            self._cells.add(merged, end, is_lost=is_lost)
        for (end, line, merged, _), is_lost in zip(last, lost, strict=True):
            steps = end if self._curves.in_steps and math.isfinite(end) else None
            yield line, merged, End(steps, self._cells.is_early(merged, end), is_lost)

    def _replicates(self, evaluations: list[_Evaluation]) -> list[list[_Evaluation]]:
        """The same as of one run each; those at one progress are in the order of the runs."""
        if self._curves.has_names:
            return [evaluations]
        met = Counter[tuple[float, bool]]()
        places: list[int] = []
        for at, _, cells in evaluations:
            point = at, self._cells.has_loss(cells)
            places.append(met[point])
            met[point] += 1
        num = _num_replicates(n for (_, has_loss), n in met.items() if has_loss)
        runs: list[list[_Evaluation]] = [[] for _ in range(num)]
        for place, evaluation in zip(places, evaluations, strict=True):
            runs[min(place, num - 1)].append(evaluation)
        return runs


def _is_lost(end: float, evaluated: Sequence[float], all_evaluated: Sequence[float]) -> bool:
    """Whether a run went on for an evaluation's time or more without a loss, where others had one.

    A tracker leaves a loss blank that is not a number. `end` is the progress of the run's last
    row, `evaluated` that at its losses, rising, and `all_evaluated` that at those of all runs.
    """
    if not evaluated or not math.isfinite(evaluated[-1]):
        return False
    usual = max(later - earlier for earlier, later in pairwise([0.0, *evaluated]))
    others = bisect_right(all_evaluated, end) - bisect_right(all_evaluated, evaluated[-1] / EARLY)
    return end - evaluated[-1] >= usual and others > 0
