"""The rows of a table that count, by our names: renamed, multiplied out, filtered."""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from scaling.report.foreign_tables.table_names import (
    MAXIMIZED,
    TableError,
    listed,
    named,
    plain,
    status_of,
)
from scaling.report.foreign_tables.table_numbers import differ_in_zeros, may_be_version
from scaling.report.foreign_tables.table_suggestions import (
    is_score,
    missing_columns,
    option,
    product_of_batch,
    suggestions,
)
from scaling.report.foreign_tables.table_text import TableText, read_text
from scaling.report.words.numbers import counted

_LOSSES = ("validation_loss", "train_loss", "test_loss", "target")
_LOOKED_AT = 200
"""Rows that help with a suggestion."""

Condition = tuple[int, str, bool]
"""Place of a column, what it must hold, and whether as it is written: 2.1 is not 2.10 then."""


@dataclass(frozen=True)
class Asked:
    """What the options say of a table: pairs and columns, by their names or ours."""

    rename: Sequence[tuple[str, str]] = ()
    where: Sequence[tuple[str, str]] = ()
    nuisance: Sequence[str] = ()
    axes: Sequence[str] = ()
    scale: Sequence[str] = ()
    maximize: str | None = None
    keep_early: bool = False

    @property
    def columns(self) -> set[str]:
        """Those that are named for something else than a renaming."""
        return {column for column, _ in self.where} | {*self.nuisance, *self.axes, *self.scale}


class Source:
    """A table that is read from its beginning as often as it is asked for.

    Attributes:
        header: Its columns, with one for each product that a renaming asks for.
        names: The same by our names.
        separator: What stands between its cells.
    """

    def __init__(self, path: Path, asked: Asked) -> None:
        """Raises TableError for columns that are missing, unknown or named twice."""
        self.path, self.asked, self.file = path, asked, path.name
        with self._text() as text:
            self.header, self.separator = text.header, text.separator
            first = zip(range(_LOOKED_AT), text.body, strict=False)
            self._first_rows = [cells for _, (_, cells) in first]
        self.names = self._named()
        self.conditions = [self._condition(column, value) for column, value in asked.where]
        self._pass_over_status()
        self._pass_over_target()
        self.parents = self._parents()
        self._check_batch()
        self._check_direction()

    @contextmanager
    def _text(self) -> Iterator[TableText]:
        with read_text(self.path) as text:
            yield _with_products(self.file, text, [theirs for theirs, _ in self.asked.rename])

    def _named(self) -> list[str]:
        self._check_renamed()
        names = named(self.file, self.header, self.asked.rename)
        if self.asked.maximize is not None:
            place = _place(self.file, "--maximize", self.asked.maximize, names, self.header)
            names = [f"({name})" if name in _LOSSES else name for name in names]
            names[place] = MAXIMIZED
        needed = ["global_batch_size"]
        if "steps_to_target" not in names:
            result = "validation_loss" if self.asked.maximize is None else MAXIMIZED
            needed += ["peak_lr", result]
        if missing := [name for name in needed if name not in names]:
            raise missing_columns(self.file, missing, self.header, self._first_rows)
        return names

    def _check_renamed(self) -> None:
        for theirs, _ in self.asked.rename:
            _check_single(self.file, f"--rename {theirs}", theirs, self.header)
        unknown = [(t, ours) for t, ours in self.asked.rename if t not in self.header]
        if not unknown:
            return
        theirs = unknown[0][0]
        hints = suggestions([ours for _, ours in unknown], self.header, self._first_rows)
        help_ = f" (did you mean {' '.join(hints)}?)" if hints else ""
        raise TableError(
            f"{self.file}: --rename: no column {theirs!r}; there are {listed(self.header)}{help_}"
        )

    def place(self, asked_by: str, column: str) -> int:
        """Where a column is that an option names, by their name or ours."""
        return _place(self.file, asked_by, column, self.names, self.header)

    def _condition(self, column: str, value: str) -> Condition:
        place = self.place("--where", column)
        if "." not in value or not may_be_version(self.header[place]):
            return place, value, False
        with self._text() as text:
            same = {cells[place] for _, cells in text.body if _equal(cells[place], value)}
        return place, value, differ_in_zeros(same)

    def theirs(self, ours: str) -> str:
        """What the table calls one of our columns."""
        return self.header[self.names.index(ours)]

    @contextmanager
    def rows(self) -> Iterator["KeptRows"]:
        """The rows that count, while the file is open."""
        with self._text() as text:
            yield KeptRows(text, self.conditions, self.parents)

    def _parents(self) -> frozenset[str]:
        """A study's own run in MLflow is no trial; its trials name it as their parent."""
        header = self.header
        if "run_id" not in header or "tags.mlflow.parentRunId" not in header:
            return frozenset()
        parent = header.index("tags.mlflow.parentRunId")
        with self._text() as text:
            return frozenset(cells[parent] for _, cells in text.body) - {""}

    def _pass_over_status(self) -> None:
        """A column of states that are no run's is not read, nor one that --where goes by."""
        if "status" not in self.names:
            return
        place = self.names.index("status")
        asked = any(place == column for column, *_ in self.conditions)
        words = self._some(place)
        is_other = plain(self.header[place]).endswith("state") and words
        if asked or (is_other and not any(map(status_of, words))):
            self.names[place] = "(status)"

    def _pass_over_target(self) -> None:
        """A target of words, as `config.target` of a data set's labels, is none to reach."""
        if "target" not in self.names or "target" in {ours for _, ours in self.asked.rename}:
            return
        place = self.names.index("target")
        words = self._some(place)
        if words and not any(re.match(r"\s*[+-]?[\d.,]", word) for word in words):
            self.names[place] = "(target)"

    def _some(self, place: int) -> list[str]:
        """Cells of a column that are not blank."""
        return [cells[place] for cells in self._first_rows if cells[place].strip()]

    def _check_direction(self) -> None:
        """A score that was renamed to a loss would recommend the worst run."""
        if "validation_loss" in self.names and is_score(theirs := self.theirs("validation_loss")):
            raise TableError(
                f"{self.file}: column {theirs!r} looks like a score, of which more is better, and "
                f"validation_loss is made small; {option('--maximize', theirs)} instead of "
                f"{option('--rename', f'{theirs}=validation_loss')} makes it large",
                offers=["--maximize"],
            )

    def _check_batch(self) -> None:
        """A batch per device or accumulation step is not that of an optimizer step."""
        batch = self.theirs("global_batch_size")
        product = product_of_batch(self.header, batch)
        if product is None:
            return
        parts = set(product.split("*")[1:]) - self.asked.columns
        others = [name for name in self.header if name in parts]
        places = [self.header.index(name) for name in others]
        with self._text() as text:
            more = any(
                cells[place].strip() not in ("", "1", "1.0") for _, cells in text.body
                for place in places
            )  # fmt: skip
        if more:
            raise TableError(
                f"{self.file}: column {batch!r} may be the batch of one device or accumulation "
                f"step, beside {listed(others)}; the batch of an optimizer step is "
                f"{option('--rename', f'{product}=global_batch_size')}, or "
                f"{option('--rename', f'{batch}*1=global_batch_size')} where it is that already"
            )


def _with_products(file: str, text: TableText, wanted: Sequence[str]) -> TableText:
    """The table with a further column for each name such as batch_size*world_size."""
    products = {
        name: [part.strip() for part in name.split("*")]
        for name in wanted
        if name not in text.header and "*" in name
    }
    if not products:
        return text
    for name, parts in products.items():
        for part in parts:
            _check_single(file, f"--rename {name}", part, text.header)
            if part not in text.header and not part.isdigit():
                raise TableError(
                    f"{file}: --rename {name}: no column {part!r}; there are {listed(text.header)}"
                )
    header = list(text.header)

    def rows() -> Iterator[tuple[int, list[str]]]:
        for number, cells in text.body:
            row = dict(zip(header, cells, strict=True))
            yield number, cells + [_product(file, number, row, p) for p in products.values()]

    return replace(text, header=header + list(products), body=rows())


def _product(file: str, number: int, row: dict[str, str], parts: Sequence[str]) -> str:
    factors: list[float] = []
    for part in parts:
        written = row.get(part, part).strip()
        if not written:
            return ""
        try:
            factors.append(float(written))
        except ValueError as error:
            raise TableError(
                f"{file}: line {number} (row {number - 1}), column {part!r}: {written!r} is not "
                "a number, and a product needs one"
            ) from error
    return f"{math.prod(factors):.15g}"


def _place(file: str, asked_by: str, column: str, names: list[str], header: list[str]) -> int:
    if column not in header and column not in names:
        raise TableError(f"{file}: {asked_by}: no column {column!r}; there are {listed(header)}")
    in_order = header if column in header else names
    _check_single(file, asked_by, column, in_order)
    return in_order.index(column)


def _check_single(file: str, asked_by: str, column: str, names: Sequence[str]) -> None:
    if names.count(column) > 1:
        raise TableError(f"{file}: {asked_by}: two columns are called {column!r}")


class KeptRows:
    """The rows that meet every condition, without repeated ones and MLflow's parent runs.

    Read once, one by one; afterwards it is known how many were left out.
    """

    def __init__(
        self, text: TableText, conditions: Sequence[Condition], parents: frozenset[str]
    ) -> None:
        self._text, self._conditions, self._parents = text, conditions, parents
        self.num_met = self.num_parents = self.num_repeated = 0

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        seen: set[bytes] = set()
        run = self._text.header.index("run_id") if self._parents else 0
        for number, cells in self._text.body:
            if not all(
                cells[place].strip() == value.strip() if as_written else _equal(cells[place], value)
                for place, value, as_written in self._conditions
            ):
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
