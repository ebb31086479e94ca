"""A sweep that was run elsewhere, read from a table: CSV, Parquet, W&B's or MLflow's export."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.trial import Status
from scaling.report.foreign_tables.table_line import Dialect, Line
from scaling.report.foreign_tables.table_names import (
    COLUMNS,
    COUNTS,
    listed,
    missing_columns,
    named,
)
from scaling.report.foreign_tables.table_text import TableError, TableText, read_text
from scaling.report.foreign_tables.table_trial import OPTIONAL, Extras, status_in, trial_of
from scaling.report.page.printable import printable
from scaling.report.words.numbers import counted

__all__ = ["COLUMNS", "SweepTable", "TableError", "read_table"]

MOST_CELLS = 1000
"""Cells that are compared."""


@dataclass(frozen=True)
class SweepTable:
    """A table's trials, and what a reader must know of how they were read."""

    sweep: Sweep
    notes: tuple[str, ...]


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
        extras = Extras(
            {c: names[_place(path.name, "--nuisance", c, names, text.header)] for c in nuisance},
            {c: names[_place(path.name, "--cell", c, names, text.header)] for c in axes},
        )
        conditions = [
            (_place(path.name, "--where", column, names, text.header), value)
            for column, value in where
        ]  # fmt: skip
        dialect = Dialect(path.name, theirs, decimal_comma=text.separator != ",")
        trials = _Trials(dialect, names, extras)
        trials.read(_Kept(text, conditions, _parents(path, text.header)))
    if not trials.rows:
        raise TableError(f"{path.name}: {trials.nothing_left(where)}")
    rows, repeated = _apart_where_mixed(trials.rows)
    written = "".join(f", {column} = {value}" for column, value in where)
    sweep = Sweep(
        name=printable(path.name.removesuffix(".gz").rsplit(".", 1)[0] or path.stem),
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
            if not all(_equal(cells[place], value) for place, value in self._conditions):
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

    def __init__(self, dialect: Dialect, names: Sequence[str], extras: Extras) -> None:
        self._dialect, self._extras = dialect, extras
        self._counts = [name for name in COUNTS if name in names]
        used = {*COLUMNS, *extras.nuisance.values(), *extras.axes.values()}
        self._used = [(name, place) for place, name in enumerate(names) if name in used]
        self._present = [(name, read) for name, read in OPTIONAL.items() if name in names]
        self._left: Counter[Status] = Counter()
        self._kept: _Kept | None = None
        self.rows: list[TrialRow] = []
        self.cells: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}
        self.target: float | None = None

    def read(self, kept: _Kept) -> None:
        """Raises TableError at the first row that cannot be read."""
        self._kept = kept
        for number, cells in kept:
            line = Line(self._dialect, number, {name: cells[place] for name, place in self._used})
            self._note_commas(line)
            self._note_target(line)
            status = status_in(line)
            if status in ("running", "failed"):
                self._left[status] += 1
            else:
                self.rows.append(trial_of(line, status, self._extras, self._present, self.cells))
            if len(self.cells) > MOST_CELLS:
                raise TableError(
                    f"{self._dialect.file}: line {number}: the rows before it have "
                    f"{MOST_CELLS:,} cells, the most that are compared; are --cell and the batch "
                    "size the right columns?"
                )

    def _note_commas(self, line: Line) -> None:
        if "," not in "".join(line.values.values()):
            return
        self._dialect.num_commas += 1
        self._dialect.num_commas_in_counts += any("," in line.values[n] for n in self._counts)

    def _note_target(self, line: Line) -> None:
        """The validation loss to reach, where the table has it; the same in every row."""
        value = line.finite("target")
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


def _meaning(names: Sequence[str], dialect: Dialect) -> list[str]:
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
