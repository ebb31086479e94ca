"""A sweep that was run elsewhere, read from a CSV table."""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scaling.analysis.rows import Sweep, TrialRow

COLUMNS = (
    "global_batch_size", "peak_lr", "validation_loss", "train_loss", "steps", "examples",
    "steps_to_target", "seed", "diverged",
)  # fmt: skip
_TRUE, _FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no", "")


class TableError(ValueError):
    """The table or what was asked of it is wrong, in one line for the user."""


@dataclass(frozen=True)
class _Line:
    """One data row, by our names; `number` counts the file's lines, the header being line 1."""

    file: str
    number: int
    values: Mapping[str, str]
    theirs: Mapping[str, str]

    def error(self, column: str, problem: str) -> TableError:
        value = self.values[column]
        name = self.theirs.get(column, column)
        where = f"{self.file}: line {self.number} (row {self.number - 1}), column {name!r}"
        return TableError(f"{where}: {value!r} {problem}")

    def number_in(
        self, column: str, is_allowed: Callable[[float], bool], allowed: str
    ) -> float | None:
        """A finite number; None for a blank, NaN or infinite one, or where there is no column."""
        text = self.values.get(column, "").strip()
        if not text:
            return None
        try:
            value = float(text)
        except ValueError as error:
            raise self.error(column, f"is not a number; it must be {allowed}") from error
        if not math.isfinite(value):
            return None
        if not is_allowed(value):
            raise self.error(column, f"must be {allowed}")
        return value


def read_sweep(
    path: Path, *, rename: Sequence[tuple[str, str]] = (), where: Sequence[tuple[str, str]] = ()
) -> Sweep:
    """Read a table of trials.

    Columns: `global_batch_size`, and either `peak_lr` and `validation_loss` or
    `steps_to_target`; `train_loss`, `steps`, `examples`, `seed`, `diverged` where present; all
    others are ignored. A blank `steps_to_target` is a censored trial; a loss that is NaN or
    infinite is a diverged one.

    Args:
        path: A UTF-8 CSV file with a header.
        rename: (their column, our column).
        where: (column, value) that a row must have to count; numbers are compared as numbers.

    Raises:
        TableError: With the column and the row, if the table cannot be used.
    """
    header, body = _read(path)
    names = _renamed(path.name, header, rename)
    _check_columns(path.name, names, header)
    theirs = dict(zip(names, header, strict=True))
    lines = [
        _Line(path.name, number, dict(zip(names, cells, strict=True)), theirs)
        for number, cells in _kept(path.name, header, names, body, where)
    ]
    rows = tuple(_row(line) for line in lines)
    sizes = sorted({row.global_batch_size for row in rows})
    conditions = "".join(f", {column} = {value}" for column, value in where)
    by_steps = "validation_loss" not in names
    return Sweep(
        name=path.stem,
        question=f"What does the sweep in {path.name}{conditions} say about the batch size?",
        rows=rows,
        cells=tuple({"global_batch_size": size} for size in sizes),
        has_target="steps_to_target" in names,
        objective="steps_to_target" if by_steps else "validation_loss",
        loss_name=theirs.get("validation_loss", "validation_loss"),
    )


def _read(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header and the data rows, each with its line number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if any(c.strip() for c in cells)]
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TableError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except csv.Error as error:
        raise TableError(f"{path}: is not a CSV table: {error}") from error
    if not lines:
        raise TableError(f"{path}: is empty; it needs a header and at least one row")
    header = [name.strip() for name in lines[0][1]]
    for number, cells in lines[1:]:
        if len(cells) != len(header):
            raise TableError(
                f"{path.name}: line {number} (row {number - 1}) has {len(cells)} columns, "
                f"the header has {len(header)}"
            )
    return header, lines[1:]


def _renamed(file: str, header: list[str], rename: Sequence[tuple[str, str]]) -> list[str]:
    names = list(header)
    for theirs, ours in rename:
        if theirs not in header:
            raise TableError(f"{file}: --rename: no column {theirs!r}; there are {_list(header)}")
        if ours not in COLUMNS:
            raise TableError(f"{file}: --rename: unknown name {ours!r}; known: {_list(COLUMNS)}")
        names[header.index(theirs)] = ours
    for name in names:
        if names.count(name) > 1:
            raise TableError(f"{file}: line 1 (header): two columns are called {name!r}")
    return names


def _check_columns(file: str, names: Sequence[str], header: Sequence[str]) -> None:
    needed = ["global_batch_size"]
    if "steps_to_target" not in names:
        needed += ["peak_lr", "validation_loss"]
    missing = [name for name in needed if name not in names]
    if missing:
        raise TableError(
            f"{file}: line 1 (header): missing column {_list(missing)}; there are {_list(header)} "
            "(--rename THEIRS=OURS names a column)"
        )


def _kept(
    file: str,
    header: Sequence[str],
    names: Sequence[str],
    body: list[tuple[int, list[str]]],
    where: Sequence[tuple[str, str]],
) -> list[tuple[int, list[str]]]:
    """The rows that meet every condition."""
    for column, value in where:
        if column not in header and column not in names:
            raise TableError(f"{file}: --where: no column {column!r}; there are {_list(header)}")
        index = (header if column in header else names).index(column)
        body = [(number, cells) for number, cells in body if _equal(cells[index], value)]
    if not body:
        conditions = " and ".join(f"{column}={value}" for column, value in where)
        raise TableError(
            f"{file}: no rows left" + (f" where {conditions}" if where else " after the header")
        )
    return body


def _equal(ours: str, theirs: str) -> bool:
    try:
        return float(ours) == float(theirs)
    except ValueError:
        return ours.strip() == theirs.strip()


def _row(line: _Line) -> TrialRow:
    size = _whole(line, "global_batch_size", at_least=1)
    if size is None:
        raise line.error("global_batch_size", "must be a whole number of at least 1")
    rate = line.number_in("peak_lr", lambda value: value > 0, "a number above 0")
    if "peak_lr" in line.values and rate is None:
        raise line.error("peak_lr", "must be a finite number above 0")
    loss = line.number_in("validation_loss", math.isfinite, "a number")
    reached = line.number_in("steps_to_target", lambda value: value > 0, "a number above 0")
    diverged = _diverged(line, loss)
    steps = line.number_in("steps", lambda value: value >= 0, "a number of at least 0")
    seed = _whole(line, "seed", at_least=0)
    examples = line.number_in("examples", lambda value: value >= 0, "a number of at least 0")
    objective = loss if "validation_loss" in line.values else reached
    return TrialRow(
        trial_id=f"line-{line.number}",
        phase="search",
        status="diverged" if diverged else "done",
        cell={"global_batch_size": size},
        global_batch_size=size,
        recipe_key=f"line-{line.number}" if seed is None else f"{size} {rate}",
        peak_lr=rate,
        seed=seed,
        objective=None if diverged else objective,
        validation_loss=None if diverged else loss,
        train_loss=None if diverged else line.number_in("train_loss", math.isfinite, "a number"),
        steps=steps,
        examples=examples if examples is not None or steps is None else steps * size,
        steps_to_target=None if diverged else reached,
        examples_to_target=None if diverged or reached is None else reached * size,
    )


def _diverged(line: _Line, loss: float | None) -> bool:
    text = line.values.get("diverged", "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise line.error("diverged", "must be true or false")
    if text in _TRUE or "validation_loss" not in line.values or loss is not None:
        return text in _TRUE
    if not line.values["validation_loss"].strip():
        raise line.error("validation_loss", "is blank, and the row is not marked as diverged")
    return True


def _whole(line: _Line, column: str, *, at_least: int) -> int | None:
    allowed = f"a whole number of at least {at_least}"
    value = line.number_in(column, lambda v: v >= at_least and v == int(v), allowed)
    return None if value is None else int(value)


def _list(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
