"""A sweep that was run elsewhere, read from a table: CSV, Parquet, JSON, a tracker's export."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.metrics import Metric
from scaling.records.objective import VALIDATION_LOSS, Objective
from scaling.records.trial import Status
from scaling.report.foreign_tables.table_columns import kind_of
from scaling.report.foreign_tables.table_curves import (
    CurveFinder,
    Curves,
    End,
    LastEvaluations,
    RisingColumns,
)
from scaling.report.foreign_tables.table_ends import CellEnds, EarlyRows, ended_as_it_should
from scaling.report.foreign_tables.table_line import Dialect, Line
from scaling.report.foreign_tables.table_names import (
    COLUMNS,
    MAXIMIZED,
    TableError,
)
from scaling.report.foreign_tables.table_numbers import (
    Marks,
    differ_in_zeros,
    marks_of,
    may_be_version,
)
from scaling.report.foreign_tables.table_seeds import (
    apart_where_mixed,
    with_retyped_rates,
    without_stuck,
)
from scaling.report.foreign_tables.table_source import Asked, KeptRows, Source
from scaling.report.foreign_tables.table_suggestions import is_rate, option
from scaling.report.foreign_tables.table_survey import Survey, Surveyor
from scaling.report.foreign_tables.table_trial import OPTIONAL, Extras, status_in, trial_of
from scaling.report.page.printable import printable
from scaling.report.words.numbers import counted

__all__ = ["COLUMNS", "SweepTable", "TableError", "read_table"]

MOST_CELLS = 1000
"""Cells that are compared."""
_NUMBERS = (*(name for name in COLUMNS if name not in ("status", "diverged")), MAXIMIZED)
_CLEARLY_LARGER = 1.5
_MAXIMIZED = "The table's metric in place of a loss. Higher is better."


@dataclass(frozen=True)
class SweepTable:
    """A table's trials, and what a reader must know of how they were read.

    Attributes:
        has_other_ways: Whether the notes name options that would read it otherwise.
    """

    sweep: Sweep
    notes: tuple[str, ...]
    has_other_ways: bool


def read_table(
    path: Path,
    *,
    rename: Sequence[tuple[str, str]] = (),
    where: Sequence[tuple[str, str]] = (),
    nuisance: Sequence[str] = (),
    axes: Sequence[str] = (),
    scale: Sequence[str] = (),
    maximize: str | None = None,
    keep_early: bool = False,
) -> SweepTable:
    """Read a table of trials.

    Columns: `global_batch_size`, and either `peak_lr` and `validation_loss` or
    `steps_to_target`; the others of `COLUMNS` where present. Ours may stand behind a tracker's
    prefix, as in `params.` or `config/`. A blank `steps_to_target` is a censored trial; a loss
    that is NaN or infinite is a diverged one. Runs that had not ended or failed are left out.
    Of a table with one row an evaluation each run counts with its last one. Other columns that
    vary are named: settings count as searched, and what is compared, as a model, is refused.

    Args:
        path: A file as in `read_text`, with a header.
        rename: (their column, our column); theirs may be a product, as in `batch*devices`.
        where: (column, value) that a row must have to count; numbers are compared as numbers.
        nuisance: Further columns that the sweep searched; they are `choices` of each trial.
        axes: Further columns that tell cells apart, beside the batch size.
        scale: Further ones that are the numbers of a size; they are above 0.
        maximize: The column that takes the place of `validation_loss`, and is made large.
        keep_early: Whether a run that ended before others of its cell has its final loss.

    Raises:
        TableError: With the column and the row, if the table cannot be used.
    """
    source = Source(path, Asked(rename, where, nuisance, axes, scale, maximize, keep_early))
    look = _look(source)
    names, theirs = source.names, dict(zip(source.names, source.header, strict=True))
    searched = {c: names[source.place("--nuisance", c)] for c in nuisance}
    searched |= {c: names[source.header.index(c)] for c in look.survey.searched}
    apart_by = {c: names[source.place("--cell", c)] for c in axes}
    sizes = {c: names[source.place("--scale", c)] for c in scale}
    tuned_for = _tuned_for(theirs.get("validation_loss"), maximize)
    extras = Extras(searched, apart_by, sizes, tuned_for)
    dialect = Dialect(path.name, theirs, look.marks, look.versions)
    trials = _Trials(dialect, names, extras)
    with source.rows() as kept:
        trials.read(kept, look)
    if look.survey.problem is not None:
        raise look.survey.problem
    if not trials.rows:
        raise TableError(f"{path.name}: {trials.nothing_left(where)}")
    retyped = with_retyped_rates(trials.rows)
    learned = without_stuck(retyped.rows)
    apart = apart_where_mixed(learned.rows)
    result = MAXIMIZED if maximize is not None else "validation_loss"
    rows_of = path.name + "".join(f", {column} = {value}" for column, value in where)
    sweep = Sweep(
        name=printable(path.name.removesuffix(".gz").rsplit(".", 1)[0] or path.stem),
        question=printable(f"What does the sweep in {rows_of} say about the batch size?"),
        rows=tuple(apart.rows),
        cells=tuple(dict(cell) for cell in sorted(trials.cells, key=_cell_order)),
        has_target="steps_to_target" in names,
        target=trials.target,
        objective="validation_loss" if result in names else "steps_to_target",
        tuned_for=tuned_for,
        target_metric=tuned_for,
        loss_unit=tuned_for.unit,
        metrics={}
        if maximize is None
        else {maximize: Metric(printable(maximize), _MAXIMIZED, direction="maximize")},
    )
    said = (*look.notes(), *retyped.notes, *learned.notes, *apart.notes)
    has_other_ways = bool(look.survey.searched or trials.num_early or apart.notes)
    return SweepTable(sweep, (*trials.notes(), *said, *_meaning(names, dialect)), has_other_ways)


def _tuned_for(loss: str | None, maximize: str | None) -> Objective:
    """What the table's recipes are compared by; the unit of its own columns is not known."""
    if maximize is not None:
        return Objective(maximize, "maximize", "", printable(maximize))
    if loss is None or loss == VALIDATION_LOSS.name:
        return VALIDATION_LOSS
    return replace(VALIDATION_LOSS, unit="", label=printable(loss).replace("_", " "))


def _cell_order(cell: tuple[tuple[str, Any], ...]) -> tuple[Any, ...]:
    """By the further axes first, blanks before numbers before words, then by the batch size."""
    (_, size), *axes = cell
    return (*((v is not None, isinstance(v, str), 0 if v is None else v) for _, v in axes), size)


@dataclass(frozen=True)
class _Look:
    """What a first look at all rows says.

    Attributes:
        early: Which rows of one run each ended early.
        ends: How far the runs of rows that are evaluations came, nothing yet.
        versions: Columns, by our names, in which 2.1 and 2.10 differ.
        respelled: Others, by theirs, that have both, which are one number.
        rising: That rows which count as runs may be evaluations of fewer.
    """

    marks: Marks
    survey: Survey
    curves: Curves | None
    early: EarlyRows
    ends: CellEnds
    versions: frozenset[str]
    respelled: Sequence[str]
    rising: Sequence[str]

    def notes(self) -> list[str]:
        """What varies, and which numbers are one."""
        if not self.respelled:
            return [*self.survey.notes(), *self.rising]
        columns = ", ".join(self.respelled)
        return [
            *self.survey.notes(),
            f"Numbers such as 0.1 and 0.10 are the same in: {columns}.",
            *self.rising,
        ]


def _look(source: Source) -> _Look:
    """How numbers are written, what varies, and whether rows are evaluations."""
    names, asked = source.names, source.asked
    numbers = [(name, names.index(name)) for name in _NUMBERS if name in names]
    with source.rows() as kept:
        cells_of_numbers = ([(n, cells[place]) for n, place in numbers] for _, cells in kept)
        marks = marks_of(cells_of_numbers, source.separator)
    axes = [source.place("--cell", column) for column in asked.axes]
    axes += [source.place("--scale", column) for column in asked.scale]
    read = {*COLUMNS, MAXIMIZED} - {"steps", "examples"}
    taken = {place for place, name in enumerate(names) if name in read}
    taken |= {place for place, *_ in source.conditions} | set(axes)
    nuisance = [source.place("--nuisance", column) for column in asked.nuisance]
    taken |= {*nuisance} | {
        source.header.index(part.strip())
        for theirs, _ in asked.rename if "*" in theirs
        for part in theirs.split("*") if part.strip() in source.header
    }  # fmt: skip
    surveyor = Surveyor(source.file, source.header, names, taken, nuisance)
    finder = CurveFinder(source.header, names, marks, axes, *surveyor.places, nuisance)
    budgets = [place for place in nuisance if kind_of(source.header[place]) == "budget"]
    of_rows, of_curves = (
        CellEnds(marks, names, (*axes, *budgets), keeps_early=asked.keep_early) for _ in range(2)
    )
    early = EarlyRows(source.header, of_rows, taken)
    higher = _HigherRates(source)
    own = ("global_batch_size", "peak_lr", "seed", "warmup_steps", "clip_norm")
    recipe = [names.index(name) for name in own if name in names]
    recipe += [*axes, *nuisance, *surveyor.places[0]]
    rising = RisingColumns(source.header, recipe, sorted({*range(len(names))} - taken))
    looked_at = {*axes, *nuisance, *chain(*surveyor.places)}
    words = {place: set[str]() for place in looked_at}
    with source.rows() as kept:
        for _, cells in kept:
            finder.add(cells)
            early.add(cells)
            rising.add(cells)
            for place, known in words.items():
                if len(known) < MOST_CELLS:
                    known.add(cells[place])
            if ended_as_it_should(cells, names):
                surveyor.add(cells, tuple(cells[place] for place in axes))
                higher.add(cells)
    curves = finder.curves()
    higher.check()
    survey = surveyor.survey(curves)
    if survey.problem is None and finder.has_moving_rates():
        raise TableError(
            f"{source.file}: column {source.theirs('peak_lr')!r} changes along a run; "
            "--rename COLUMN=peak_lr names the column that has the configured peak, or "
            "--nuisance RUN the one that tells no runs apart",
            offers=["--nuisance"],
        )
    respelled = {place for place, known in words.items() if differ_in_zeros(known)}
    versions = {place for place in respelled if may_be_version(source.header[place])}
    asked_for = {*axes, *nuisance, *(source.header.index(column) for column in survey.searched)}
    equal = [source.header[place] for place in sorted(respelled & asked_for - versions)]
    as_words = frozenset(names[p] for p in versions)
    notes = [] if curves else rising.notes()
    return _Look(marks, survey, curves, early, of_curves, as_words, equal, notes)


class _HigherRates:
    """Columns of rates that are above the one taken for the peak, which then may be the last."""

    def __init__(self, source: Source) -> None:
        self._source = source
        names, options = source.names, source.asked.columns
        self._peak = names.index("peak_lr") if "peak_lr" in names else -1
        self._larger = {
            place: [0, 0]
            for place, name in enumerate(source.header)
            if is_rate(name) and names[place] == name != "peak_lr" and name not in options
            if self._peak >= 0
        }  # fmt: skip

    def add(self, cells: Sequence[str]) -> None:
        """One row."""
        for place, counts in self._larger.items():
            try:
                peak, other = float(cells[self._peak]), float(cells[place])
            except ValueError:
                continue
            counts[0] += other > _CLEARLY_LARGER * peak
            counts[1] += other < peak

    def check(self) -> None:
        """Raises TableError where another rate is larger in most rows and smaller in none."""
        for place, (larger, smaller) in self._larger.items():
            if larger and not smaller:
                ours, other = self._source.theirs("peak_lr"), self._source.header[place]
                raise TableError(
                    f"{self._source.file}: column {ours!r} is never above {other!r} and looks "
                    "like a schedule's last value; "
                    f"{option('--rename', f'{other}=peak_lr')} takes the other one for the peak, "
                    f"and {option('--nuisance', other)} keeps this one",
                    offers=["--nuisance"],
                )


class _Trials:
    """The trials of a table's rows that ended, and what else the rows say."""

    def __init__(self, dialect: Dialect, names: Sequence[str], extras: Extras) -> None:
        self._dialect, self._extras, self._names = dialect, extras, names
        used = {*COLUMNS, MAXIMIZED, *extras.nuisance.values(), *extras.axes.values()}
        used |= set(extras.scale.values())
        self._used = [(name, place) for place, name in enumerate(names) if name in used]
        self._present = [(name, read) for name, read in OPTIONAL.items() if name in names]
        self._left: Counter[Status] = Counter()
        self._num_stopped = self.num_early = self._num_best_early = self._num_lost = 0
        self._ends: int | None = None
        self._kept: KeptRows | None = None
        self._curves: Curves | None = None
        self.rows: list[TrialRow] = []
        self.cells: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
        self.target: float | None = None

    def read(self, kept: KeptRows, look: _Look) -> None:
        """Raises TableError at the first row that cannot be read."""
        self._kept = kept
        runs: Iterable[tuple[int, list[str], End]]
        if look.curves is None:
            early, ends, self._ends = look.early, look.early.ends, look.early.place
            runs = ((n, cells, End(is_early=early.has(cells))) for n, cells in kept)
        else:
            self._curves, ends = look.curves, look.ends
            runs = LastEvaluations(look.curves, ends).of(kept)
        for number, cells, end in runs:
            line = Line(self._dialect, number, {name: cells[place] for name, place in self._used})
            self._note_target(line)
            status = status_in(line)
            if status in ("running", "failed"):
                self._left[status] += 1
            else:
                row = trial_of(line, status, self._extras, self._present, self.cells, end)
                self._num_stopped += row.status == "stopped"
                self.num_early += end.is_early and row.status == "stopped" != status
                self._num_lost += end.is_lost and row.status == "diverged" != status
                self.rows.append(row)
            if len(self.cells) > MOST_CELLS:
                raise TableError(
                    f"{self._dialect.file}: line {number}: the rows before it have "
                    f"{MOST_CELLS:,} cells, the most that are compared; are --cell and the batch "
                    "size the right columns?"
                )
        self._num_best_early = ends.num_best_early

    def _note_target(self, line: Line) -> None:
        """The validation loss to reach, where the table has it; the same in every row."""
        value = line.finite("target")
        if value is not None and self.target is not None and value != self.target:
            raise line.error("target", f"is not the target of the rows above, {self.target}")
        self.target = value if value is not None else self.target

    def notes(self) -> list[str]:
        """How many rows were left out, or made one."""
        words = {"running": "had not ended", "failed": "failed or were killed"}
        notes = self._kept.notes() if self._kept else []
        notes += [
            f"Left out: {counted(self._left[s], 'row')} of runs that {words[s]}."
            for s in sorted(self._left)
        ]
        if self._num_stopped:
            count = counted(self._num_stopped, "run")
            notes.append(f"{count} stopped before the end: tried, without a final loss.")
        if self.num_early and self._ends is not None:
            column = self._dialect.theirs[self._names[self._ends]]
            notes.append(
                f"{self.num_early:,} of them had a smaller {column} than others of the same cell; "
                "--keep-early keeps their losses."
            )
        if (curves := self._curves) is not None:
            notes.append(
                f"The table has one row per evaluation: {curves.num_rows:,} rows of "
                f"{counted(curves.num_runs, 'run')}. Each run counts with its last one."
            )
            if self.num_early:
                notes.append(
                    f"{counted(self.num_early, 'run')} ended before others of the same cell, "
                    "and so without a final loss; --keep-early keeps the last one."
                )
            if self._num_lost:
                notes.append(
                    f"{counted(self._num_lost, 'run')} went on without a loss where others have "
                    "one, and so diverged."
                )
        if self._num_best_early:
            cells = counted(self._num_best_early, "cell")
            notes.append(
                f"The best run of {cells} ended before others, as early stopping by patience "
                "does; so no run counts as stopped for having ended early."
            )
        return notes

    def nothing_left(self, where: Sequence[tuple[str, str]]) -> str:
        """Why there is no trial."""
        if self._kept is None or not self._kept.num_met:
            conditions = " and ".join(f"{column}={value}" for column, value in where)
            return "no rows left" + (f" where {conditions}" if where else " after the header")
        return f"no rows left of runs that ended; {'; '.join(self.notes())}"


def _meaning(names: Sequence[str], dialect: Dialect) -> list[str]:
    """How units and marks were read, where a table could have meant something else."""
    theirs = dialect.theirs
    batch = theirs["global_batch_size"]
    unit = f"what the column “{batch}” counts, an optimizer step"
    if batch == "global_batch_size":
        unit = "examples (sequences) an optimizer step"
    notes = [f"The batch, and with it the critical batch size, is in {unit}."]
    if "steps_to_target" in names:
        notes.append(
            "The critical batch size is min_examples / min_steps of the fit (McCandlish et al. "
            "2018), not where the examples exceed those of some batch by 20% (Zhang et al. 2024), "
            "which is a smaller number."
        )
    elif unread := [n for n in ("examples_to_target", "seconds_to_target") if n in names]:
        notes.append(f"Without steps_to_target these are not read: {', '.join(unread)}.")
    if "status" in names:
        notes.append(f"How a run ended is from the column “{theirs['status']}”.")
    if dialect.has_decimal_commas:
        notes.append("Commas in numbers are read as decimal marks.")
    if dialect.has_thousands:
        mark = "Points, spaces" if dialect.has_decimal_commas else "Commas, spaces"
        notes.append(f"{mark} and apostrophes in numbers are read as marks between thousands.")
    if dialect.has_units:
        notes.append("Times with a unit are read as seconds.")
    return notes
