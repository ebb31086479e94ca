"""A sweep that was run elsewhere, read from a table: CSV, Parquet, W&B's or MLflow's export."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from scaling.analysis.rows import Sweep, TrialRow
from scaling.records.trial import Status
from scaling.report.foreign_tables.table_names import (
    COLUMNS,
    COUNTS,
    known_statuses,
    listed,
    missing_columns,
    named,
    status_of,
)
from scaling.report.foreign_tables.table_text import TableError, TableText, read_text
from scaling.report.page.printable import printable
from scaling.report.words.numbers import counted

__all__ = ["COLUMNS", "SweepTable", "TableError", "read_table"]

_SMALLEST, _LARGEST = 1e-30, 1e30
"""Sizes within which squares and products are still numbers."""
MOST_CELLS = 1000
"""Cells that are compared."""
_MOST_LETTERS = 100
"""Of a value that is a word: it labels axes and legends."""
_NOTHING: Mapping[str, Any] = {}
_TRUE, _FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")
_BLANK = frozenset({"", "-", "–", "—", "none", "null", "na", "n/a", "<na>", "#n/a"})
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")


@dataclass(frozen=True)
class SweepTable:
    """A table's trials, and what a reader must know of how they were read."""

    sweep: Sweep
    notes: tuple[str, ...]


_MOST_KNOWN = 100_000
"""Different numbers that are remembered; a loss is hardly ever met again."""


class _Dialect:
    """How a table is written, and the numbers in it that were read already."""

    def __init__(self, file: str, theirs: Mapping[str, str], *, decimal_comma: bool) -> None:
        self.file, self.theirs, self.decimal_comma = file, theirs, decimal_comma
        self.numbers: dict[tuple[str, str], float | None] = {}
        self.num_commas_in_counts = 0
        self.num_commas = 0


@dataclass(slots=True)
class _Line:
    """One data row, by our names; `number` counts the file's lines, the header being line 1."""

    table: _Dialect
    number: int
    values: Mapping[str, str]

    def error(self, column: str, problem: str) -> TableError:
        value = self.values[column]
        shown = value if len(value) <= 60 else f"{value[:60]}…"
        name = self.table.theirs.get(column, column)
        where = f"{self.table.file}: line {self.number} (row {self.number - 1}), column {name!r}"
        return TableError(f"{where}: {shown!r} {problem}")

    def text(self, column: str) -> str:
        """The cell; empty for a blank one, or where there is no column."""
        text = self.values.get(column, "").strip()
        return "" if text.lower() in _BLANK else text

    def number_in(
        self, column: str, is_allowed: Callable[[float], bool], allowed: str
    ) -> float | None:
        """A finite number; None for a blank, NaN or infinite one, or where there is no column."""
        written = self.values.get(column)
        if written is None:
            return None
        known, key = self.table.numbers, (column, written)
        if key in known:
            return known[key]
        value = self._number(column, is_allowed, allowed)
        if len(known) < _MOST_KNOWN:
            known[key] = value
        return value

    def _number(
        self, column: str, is_allowed: Callable[[float], bool], allowed: str
    ) -> float | None:
        text = self.text(column)
        if not text:
            return None
        if "," in text:
            text = self._without_comma(column, text)
        try:
            value = math.nan if "_" in text else float(text)
        except ValueError as error:
            raise self.error(column, f"is not a number; it must be {allowed}") from error
        if "_" in text:
            raise self.error(column, f"is not a number; it must be {allowed}")
        if not math.isfinite(value):
            return None
        if not is_allowed(value):
            raise self.error(column, f"must be {allowed}")
        if value and not _SMALLEST <= abs(value) <= _LARGEST:
            raise self.error(column, "is out of all proportion; is the column the right one?")
        return value

    def _without_comma(self, column: str, text: str) -> str:
        """A comma is the decimal mark between semicolons or tabs, else one between thousands.

        Counts between semicolons may have either, so that 1,024 is refused there; so is a comma
        in anything but a count between commas.
        """
        groups = _THOUSANDS.fullmatch(text) is not None
        if self.table.decimal_comma and _DECIMAL_COMMA.fullmatch(text):
            if not (groups and column in COUNTS):
                return text.replace(",", ".")
        elif groups and column in COUNTS and not self.table.decimal_comma:
            return text.replace(",", "")
        raise self.error(
            column, "has a comma that may stand between thousands or before decimals; write the "
            "number with a point, and nothing between thousands",
        )  # fmt: skip


def read_table(
    path: Path,
    *,
    rename: Sequence[tuple[str, str]] = (),
    where: Sequence[tuple[str, str]] = (),
    nuisance: Sequence[str] = (),
    axes: Sequence[str] = (),
) -> SweepTable:
    """Read a table of trials.

    Columns: `global_batch_size`, and either `peak_lr` and `validation_loss` or
    `steps_to_target`; the others of `COLUMNS` where present; all else is ignored. Ours may stand
    behind `params.`, `metrics.`, `config.`, `summary.` or `tags.`. A blank `steps_to_target` is
    a censored trial; a loss that is NaN or infinite is a diverged one. Runs that had not ended
    are left out, failed ones count as such, and both are said.

    Args:
        path: A file as in `read_text`, with a header.
        rename: (their column, our column).
        where: (column, value) that a row must have to count; numbers are compared as numbers.
        nuisance: Further columns that the sweep searched; they are `choices` of each trial.
        axes: Further columns that tell cells apart, beside the batch size.

    Raises:
        TableError: With the column and the row, if the table cannot be used.
    """
    with read_text(path) as text:
        names = named(path.name, text.header, rename)
        _check_columns(path.name, names, text.header)
        theirs = dict(zip(names, text.header, strict=True))
        extras = _Extras(
            {c: names[_place(path.name, "--nuisance", c, names, text.header)] for c in nuisance},
            {c: names[_place(path.name, "--cell", c, names, text.header)] for c in axes},
        )
        conditions = [
            (_place(path.name, "--where", column, names, text.header), value)
            for column, value in where
        ]  # fmt: skip
        dialect = _Dialect(path.name, theirs, decimal_comma=text.separator != ",")
        trials = _Trials(dialect, names, extras)
        trials.read(_Kept(text, conditions, _parents(path, text.header)))
    if not trials.rows:
        raise TableError(f"{path.name}: {trials.nothing_left(where)}")
    rows, repeated = _apart_where_mixed(trials.rows)
    written = "".join(f", {column} = {value}" for column, value in where)
    sweep = Sweep(
        name=_stem(path),
        question=printable(
            f"What does the sweep in {path.name}{written} say about the batch size?"
        ),
        rows=tuple(rows),
        cells=tuple(dict(cell) for cell in sorted(trials.cells, key=_cell_order)),
        has_target="steps_to_target" in names,
        target=trials.target,
        objective="validation_loss" if "validation_loss" in names else "steps_to_target",
        loss_name=printable(theirs.get("validation_loss", "validation_loss")),
    )
    return SweepTable(sweep, (*trials.notes(), *repeated, *_meaning(names, dialect)))


@dataclass(frozen=True)
class _Extras:
    """Columns asked for by an option: what they are called in the report, and in a line."""

    nuisance: Mapping[str, str]
    axes: Mapping[str, str]


def _stem(path: Path) -> str:
    return printable(path.name.removesuffix(".gz").rsplit(".", 1)[0] or path.stem)


def _cell_order(cell: tuple[tuple[str, Any], ...]) -> tuple[Any, ...]:
    """By the further axes first, numbers before words, then by the batch size."""
    (_, size), *axes = cell
    return (*((isinstance(value, str), value) for _, value in axes), size)


def _check_columns(file: str, names: Sequence[str], header: Sequence[str]) -> None:
    needed = ["global_batch_size"]
    if "steps_to_target" not in names:
        needed += ["peak_lr", "validation_loss"]
    missing = [name for name in needed if name not in names]
    if missing:
        raise missing_columns(file, missing, header)


def _place(file: str, option: str, column: str, names: Sequence[str], header: Sequence[str]) -> int:
    """Where a column is that an option names, by their name or ours."""
    if column not in header and column not in names:
        raise TableError(f"{file}: {option}: no column {column!r}; there are {listed(header)}")
    in_order = header if column in header else names
    if list(in_order).count(column) > 1:
        raise TableError(f"{file}: {option}: two columns are called {column!r}")
    return list(in_order).index(column)


def _parents(path: Path, header: Sequence[str]) -> frozenset[str]:
    """A study's own run in MLflow is no trial; its trials name it as their parent."""
    if "run_id" not in header or "tags.mlflow.parentRunId" not in header:
        return frozenset()
    parent = header.index("tags.mlflow.parentRunId")
    with read_text(path) as text:
        return frozenset(cells[parent] for _, cells in text.body) - {""}


class _Kept:
    """The rows that meet every condition, without repeated ones and MLflow's parent runs.

    Read once, one by one; afterwards it is known how many were left out.
    """

    def __init__(
        self, text: TableText, conditions: Sequence[tuple[int, str]], parents: frozenset[str]
    ) -> None:
        self._text, self._conditions, self._parents = text, conditions, parents
        self.num_met = self.num_parents = self.num_repeated = 0

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        seen: set[bytes] = set()
        run = self._text.header.index("run_id") if self._parents else 0
        for number, cells in self._text.body:
            if self._conditions and not self._meets_all(cells):
                continue
            self.num_met += 1
            if self._parents and cells[run] in self._parents:
                self.num_parents += 1
                continue
            # of no two rows the same, in less memory than the rows
            written = "\0".join(cells).encode("utf-8", "surrogatepass")
            digest = blake2b(written, digest_size=16).digest()
            if digest in seen:
                self.num_repeated += 1
                continue
            seen.add(digest)
            yield number, cells

    def _meets_all(self, cells: Sequence[str]) -> bool:
        return all(_equal(cells[place], value) for place, value in self._conditions)

    def notes(self) -> list[str]:
        """What was left out."""
        notes: list[str] = []
        if self.num_parents:
            notes.append(f"Left out: {counted(self.num_parents, 'parent run')} of MLflow.")
        if self.num_repeated:
            count = counted(self.num_repeated, "row")
            notes.append(f"Left out: {count} that repeat an earlier one cell by cell.")
        return notes


def _equal(ours: str, theirs: str) -> bool:
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return ours.strip() == theirs.strip()


class _Trials:
    """The trials of a table's rows that ended, and what else the rows say."""

    def __init__(self, dialect: _Dialect, names: Sequence[str], extras: _Extras) -> None:
        self._dialect, self._extras = dialect, extras
        self._counts = [name for name in COUNTS if name in names]
        used = {*COLUMNS, *extras.nuisance.values(), *extras.axes.values()}
        self._used = [(name, place) for place, name in enumerate(names) if name in used]
        self._present = [(name, read) for name, read in _OPTIONAL.items() if name in names]
        self._left: Counter[Status] = Counter()
        self._kept: _Kept | None = None
        self.rows: list[TrialRow] = []
        self.cells: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
        self.target: float | None = None

    def read(self, kept: _Kept) -> None:
        """Raises TableError at the first row that cannot be read."""
        self._kept = kept
        for number, cells in kept:
            line = _Line(self._dialect, number, {name: cells[place] for name, place in self._used})
            self._note_commas(line)
            self._note_target(line)
            status = _status(line)
            if status in ("running", "failed"):
                self._left[status] += 1
            else:
                self.rows.append(_row(line, status, self._extras, self._present, self.cells))
            if len(self.cells) > MOST_CELLS:
                raise TableError(
                    f"{self._dialect.file}: line {number}: the rows before it have "
                    f"{MOST_CELLS:,} cells, the most that are compared; are --cell and the batch "
                    "size the right columns?"
                )

    def _note_commas(self, line: _Line) -> None:
        if "," not in "".join(line.values.values()):
            return
        self._dialect.num_commas += 1
        self._dialect.num_commas_in_counts += any("," in line.values[n] for n in self._counts)

    def _note_target(self, line: _Line) -> None:
        """The validation loss to reach, where the table has it; the same in every row."""
        value = _finite(line, "target")
        if value is not None and self.target is not None and value != self.target:
            raise line.error("target", f"is not the target of the rows above, {self.target}")
        self.target = value if value is not None else self.target

    def notes(self) -> list[str]:
        """How many rows were left out."""
        words = {"running": "had not ended", "failed": "failed or were killed"}
        kept = self._kept.notes() if self._kept else []
        return kept + [
            f"Left out: {counted(self._left[s], 'row')} of runs that {words[s]}."
            for s in sorted(self._left)
        ]

    def nothing_left(self, where: Sequence[tuple[str, str]]) -> str:
        """Why there is no trial."""
        if self._kept is None or not self._kept.num_met:
            conditions = " and ".join(f"{column}={value}" for column, value in where)
            return "no rows left" + (f" where {conditions}" if where else " after the header")
        return f"no rows left of runs that ended; {'; '.join(self.notes())}"


def _status(line: _Line) -> Status | None:
    if "status" not in line.values:
        return None
    text = line.text("status")
    if not text:
        return None
    status = status_of(text)
    if status is None:
        raise line.error("status", f"is no status; known: {known_statuses()}")
    return status


def _row(
    line: _Line,
    status: Status | None,
    extras: _Extras,
    present: Sequence[tuple[str, Callable[[_Line, str], Any]]],
    cells: dict[tuple[tuple[str, Any], ...], dict[str, Any]],
) -> TrialRow:
    """One trial.

    Args:
        line: The row.
        status: How it ended, where the table says so.
        extras: Columns asked for by an option.
        present: The optional columns that the table has, and how each is read.
        cells: Those met so far, so that a million rows share a few.
    """
    size = _size(line, "global_batch_size")
    if size is None:
        raise line.error("global_batch_size", "must be a whole number of at least 1")
    rate = _positive(line, "peak_lr")
    if "peak_lr" in line.values and rate is None:
        raise line.error("peak_lr", "must be a finite number above 0")
    loss = _finite(line, "validation_loss")
    lost = _diverged(line, loss, status)
    measured = {name: read(line, name) for name, read in present}
    steps, reached = measured.get("steps"), measured.get("steps_to_target")
    if measured.get("examples") is None and steps is not None:
        measured["examples"] = steps * size
    if reached is None:
        measured["seconds_to_target"] = None
    elif measured.get("examples_to_target") is None:
        measured["examples_to_target"] = reached * size
    axes = {name: _value(line, column) for name, column in extras.axes.items()}
    cell = {"global_batch_size": size, **axes}
    choices = _choices(line, rate, extras)
    name = f"line-{line.number}"
    row = TrialRow(
        trial_id=name,
        phase="search",
        status="diverged" if lost else status or "done",
        cell=cells.setdefault(tuple(cell.items()), cell),
        global_batch_size=size,
        recipe_key=name if measured.get("seed") is None else _recipe(cell, rate, measured, choices),
        peak_lr=rate,
        objective=loss if "validation_loss" in line.values else reached,
        validation_loss=loss,
        choices=choices,
        **measured,
    )
    return _without_losses(row) if lost else row


def _without_losses(row: TrialRow) -> TrialRow:
    """A diverged trial has no final losses and no target."""
    return replace(
        row, objective=None, validation_loss=None, train_loss=None, test_loss=None,
        steps_to_target=None, examples_to_target=None, seconds_to_target=None,
    )  # fmt: skip


def _choices(line: _Line, rate: float | None, extras: _Extras) -> Mapping[str, Any]:
    if not extras.nuisance:
        return _NOTHING
    searched = {"peak_lr": rate} if rate is not None else {}
    return searched | {name: _value(line, column) for name, column in extras.nuisance.items()}


def _value(line: _Line, column: str) -> float | str | None:
    """A finite number where the cell is one, else its words; None for a blank one."""
    text = line.text(column)
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        if len(text) > _MOST_LETTERS:
            raise line.error(
                column, f"has more than {_MOST_LETTERS} characters; give it a short name"
            )
        return printable(text)
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _recipe(
    cell: Mapping[str, Any],
    rate: float | None,
    measured: Mapping[str, Any],
    choices: Mapping[str, Any],
) -> str:
    """Equal for rows that differ in their seed and in what was measured alone."""
    parts = (rate, measured.get("warmup_steps"), measured.get("clip_norm"))
    return " ".join(map(str, (*cell.values(), *parts, *choices.values())))


def _apart_where_mixed(rows: Sequence[TrialRow]) -> tuple[Sequence[TrialRow], list[str]]:
    """Rows of a recipe that has a seed twice get a recipe each.

    Such a seed shows that something else differs, which the table's columns that are read do not
    tell: then no mean over such rows means anything.
    """
    seen: set[tuple[str, int]] = set()
    mixed: set[str] = set()
    for row in rows:
        if row.seed is not None:
            pair = (row.recipe_key, row.seed)
            if pair in seen:
                mixed.add(row.recipe_key)
            seen.add(pair)
    if not mixed:
        return rows, []
    count = counted(sum(row.recipe_key in mixed for row in rows), "row")
    apart = [replace(r, recipe_key=r.trial_id) if r.recipe_key in mixed else r for r in rows]
    return apart, [
        f"{count} have batch, rate and seed in common with another one, so that something else "
        "differs: each counts as a recipe of its own (--nuisance COLUMN names what was varied)."
    ]


def _meaning(names: Sequence[str], dialect: _Dialect) -> list[str]:
    """How units and marks were read, where a table could have meant something else."""
    theirs = dialect.theirs
    batch = theirs["global_batch_size"]
    unit = f"units of the column “{batch}” a step"
    if batch == "global_batch_size":
        unit = "examples (sequences) an optimizer step"
    notes = [f"The batch, and with it the critical batch size, is in {unit}."]
    if "steps_to_target" in names:
        notes.append(
            "The critical batch size is min_examples / min_steps of the fit (McCandlish et al. "
            "2018), not where the examples exceed those of some batch by 20% (Zhang et al. 2024), "
            "which is a smaller number."
        )
    if "status" in names:
        notes.append(f"How a run ended is from the column “{theirs['status']}”.")
    if dialect.num_commas_in_counts and not dialect.decimal_comma:
        notes.append("Commas inside of whole numbers are read as marks between thousands.")
    elif dialect.num_commas and dialect.decimal_comma:
        notes.append("Commas are read as decimal marks, as the cells are not parted by them.")
    return notes


def _diverged(line: _Line, loss: float | None, status: Status | None) -> bool:
    text = line.text("diverged").lower() if "diverged" in line.values else ""
    if text and text not in _TRUE + _FALSE:
        raise line.error("diverged", "must be true or false")
    if text in _TRUE or status == "diverged":
        return True
    if "validation_loss" not in line.values or loss is not None:
        return False
    if not line.text("validation_loss"):
        raise line.error("validation_loss", "is blank, and the row is not marked as diverged")
    return True


def _positive(line: _Line, column: str) -> float | None:
    return line.number_in(column, lambda value: value > 0, "a number above 0")


def _at_least_0(line: _Line, column: str) -> float | None:
    return line.number_in(column, lambda value: value >= 0, "a number of at least 0")


def _finite(line: _Line, column: str) -> float | None:
    return line.number_in(column, math.isfinite, "a number")


def _count(line: _Line, column: str) -> int | None:
    value = line.number_in(column, _is_whole, "a whole number of at least 0")
    return None if value is None else int(value)


def _is_whole(value: float) -> bool:
    return 0 <= value < 2**53 and value == int(value)


def _size(line: _Line, column: str) -> int | None:
    allowed = "a whole number of at least 1"
    value = line.number_in(column, lambda v: v >= 1 and _is_whole(v), allowed)
    return None if value is None else int(value)


_OPTIONAL: Mapping[str, Callable[[_Line, str], Any]] = {
    "seed": _count,
    "warmup_steps": _count,
    "clip_norm": _positive,
    "train_loss": _finite,
    "test_loss": _finite,
    "steps": _at_least_0,
    "examples": _at_least_0,
    "seconds": _at_least_0,
    "steps_to_target": _positive,
    "examples_to_target": _positive,
    "seconds_to_target": _positive,
    "grad_sq_norm": _positive,
    "grad_covariance_trace": _positive,
}
"""How the columns are read that a table need not have."""
