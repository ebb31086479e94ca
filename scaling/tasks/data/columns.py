"""Tables to rows: which columns a task reads, and what may stand in their cells.

A cell is read as the text that stands there, or refused. Nothing becomes text by Python's `str`.
"""

import math
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from scaling.spec.data import Policy, RareClasses
from scaling.tasks.data.rows import Row
from scaling.tasks.errors import DataError

MAX_ROWS = 5_000_000
"""Of all splits together; more do not fit into the memory of a usual worker."""
MAX_CHARACTERS = 2**30
"""Of the texts of all splits together, for the same reason."""
_TOO_MUCH = (
    f"are too large; all splits together may have {MAX_ROWS:,} rows and {MAX_CHARACTERS:,} "
    "characters of text"
)
_SHOWN_COLUMNS_FROM = 1000  # rows
_TEXT = "text, a number, true or false"


@dataclass(frozen=True)
class Table:
    """One table of a source, read as its records are.

    Attributes:
        name: As messages name it, as in `the train data`.
        records: Cells by column, a row at a time; an empty one for a row without any cell.
        columns: Their names, and those of what is inside mappings, by a dot; empty where only
            the records say.
        class_names: Names of the classes that a column keeps as numbers.
        is_text: True for lines of a text file.
        num_bytes: Of a file, unpacked.
        note: An English sentence on how it is read; empty for none.
    """

    name: str
    records: Iterable[Mapping[str, Any]]
    columns: tuple[str, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    is_text: bool = False
    num_bytes: int = 0
    note: str = ""

    def close(self) -> None:
        """Close the file of records that are read no further."""
        if isinstance(self.records, Generator):
            self.records.close()


@dataclass(frozen=True)
class TableRows:
    """The rows of one table, and what was found on the way.

    Attributes:
        missing: Numbers of rows, from 1, that lack a cell, by the field that names its column.
        num_stripped: Labels that had blanks around them.
        num_blank: Rows without any text, which are left out.
    """

    name: str
    rows: list[Row]
    missing: Mapping[str, list[int]]
    num_stripped: int = 0
    num_blank: int = 0

    @property
    def num_characters(self) -> int:
        """Characters of all texts."""
        return sum(map(_size, self.rows))


@dataclass(frozen=True)
class Labels:
    """The classes of a family's rows, or of their words.

    Attributes:
        columns: Fields of `data` that name their columns, one in most cases.
        names_field: Field of `data` that names the classes 0, 1, …
        names: What that field says.
        missing: What is done with rows that lack one.
        rare: What is done with classes of too few texts.
        may_be_blank: Whether a blank cell says that there is none, and lacks nothing.
    """

    columns: tuple[str, ...]
    names_field: str
    names: tuple[str, ...] | None
    missing: Policy
    rare: RareClasses
    may_be_blank: bool = False


TextRecords = Callable[[str, Iterator[str]], Iterator[Mapping[str, Any]]]


@dataclass(frozen=True)
class RowFormat:
    """How a family makes a row of a table's cells.

    Attributes:
        row: The row of cells by the field that names their column, none of which is missing.
        labels: Its classes; None where it has none.
        is_blank: Whether cells are there and say nothing; such rows are left out.
        joins_lines: Whether the lines of a text file are one document.
        records_of: The records inside one that holds several, as SQuAD's JSON does.
        text_records: The records of a text file, by its name and its lines; each line is one, with
            its text, where left out.
    """

    row: Callable[["CellReader", Mapping[str, Any]], Row]
    labels: Labels | None = None
    is_blank: Callable[[Mapping[str, Any]], bool] = lambda _: False
    joins_lines: bool = False
    records_of: Callable[[Mapping[str, Any]], Iterable[Mapping[str, Any]]] | None = None
    text_records: TextRecords | None = None


class UnfitRowError(ValueError):
    """A row that its task cannot use; `field` names the column at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


def column_names(features: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns of a table of `datasets`, and what is inside those that are mappings."""
    from datasets import Translation

    names: list[str] = list(features)
    for name, feature in features.items():
        inside: tuple[str, ...] = ()
        if isinstance(feature, dict):
            inside = column_names(feature)
        elif isinstance(feature, Translation):
            inside = tuple(feature.languages)
        names += [f"{name}.{key}" for key in inside]
    return tuple(names)


def class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Names of the classes that columns of a table of `datasets` keep as numbers."""
    found: dict[str, tuple[str, ...]] = {}
    for name, feature in features.items():
        names = getattr(getattr(feature, "feature", feature), "names", None)  # of a list, its items
        if names is not None:
            found[name] = tuple(names)
    return found


def read_table(
    columns: Mapping[str, str],
    row_format: RowFormat,
    table: Table,
    *,
    most_rows: int,
    most_characters: int,
) -> TableRows:
    """The rows of a table.

    Args:
        columns: The columns to read, by the fields that name them.
        row_format: How their cells are a row.
        table: What is read.
        most_rows: Rows that may still be read.
        most_characters: Characters of texts that may still be read.

    Raises:
        DataError: If a column is missing, a cell is not what its task reads, or there are more
            rows or characters than these.
    """
    if table.columns:
        _require_columns(columns, table, table.columns)
    if table.is_text and row_format.joins_lines:
        lines = [record["text"] for record in _counted(table, row_format, most_rows)]
        # A document's lines in order, blank ones too, each but the last with its line break.
        rows = [Row(text=f"{line}\n", ends_document=False) for line in lines[:-1]]
        return TableRows(table.name, [*rows, *(Row(text=line) for line in lines[-1:])], {})
    reader = CellReader.of(columns, row_format.labels, table)
    missing: dict[str, list[int]] = {name: [] for name in columns}
    rows: list[Row] = []
    found: set[str] = set()
    known: dict[str, None] = {}
    num_blank = num_characters = 0
    for number, record in enumerate(_counted(table, row_format, most_rows), start=1):
        if not isinstance(record, Mapping):
            kind = type(record).__name__
            raise DataError(
                "workload.data",
                f"row {number} of {table.name} is {kind}; must be a mapping from columns to cells",
            )
        if number <= _SHOWN_COLUMNS_FROM:
            known.update(dict.fromkeys(_names_in(record)))
        values = {name: _value(record, column) for name, column in columns.items()}
        found |= {name for name, value in values.items() if value is not _ABSENT}
        if not record or row_format.is_blank(values):
            num_blank += 1
            continue
        if lacking := [name for name in columns if reader.is_missing(name, values[name])]:
            for name in lacking:
                missing[name].append(number)
            continue
        try:
            row = row_format.row(reader, values)
        except UnfitRowError as error:
            raise DataError(
                f"workload.data.{error.field}", f"row {number} of {table.name} {error.message}"
            ) from None
        num_characters += _size(row)
        if num_characters > most_characters:
            raise DataError("workload.data", f"{table.name} {_TOO_MUCH}")
        rows.append(row)
    if known:
        _require_columns({n: c for n, c in columns.items() if n not in found}, table, tuple(known))
    return TableRows(table.name, rows, missing, reader.num_stripped, num_blank)


def _counted(table: Table, row_format: RowFormat, most_rows: int) -> Iterator[Mapping[str, Any]]:
    for number, record in enumerate(_records(table, row_format), start=1):
        if number > most_rows:
            raise DataError("workload.data", f"{table.name} {_TOO_MUCH}")
        yield record


def _records(table: Table, row_format: RowFormat) -> Iterator[Mapping[str, Any]]:
    """Those of a table, and in place of one that holds several those inside it."""
    for number, record in enumerate(table.records, start=1):
        if row_format.records_of is None or not isinstance(record, Mapping):
            yield record
            continue
        try:
            yield from row_format.records_of(record)
        except UnfitRowError as error:
            raise DataError(
                f"workload.data.{error.field}", f"row {number} of {table.name} {error.message}"
            ) from None


def _size(row: Row) -> int:
    return sum(map(len, row.texts))


def _require_columns(columns: Mapping[str, str], table: Table, known: tuple[str, ...]) -> None:
    for name, column in columns.items():
        if column not in known:
            raise DataError(
                f"workload.data.{name}",
                f"{table.name} have no column {column!r}; they have: {', '.join(known)}",
            )


_ABSENT = object()
"""The value of a cell that is not there, not even as null."""


def _value(record: Mapping[str, Any], column: str) -> Any:
    """A cell, or what is inside one that is a mapping, by a dot: translation.en."""
    if column in record:
        return record[column]
    for place, character in enumerate(column):
        inner = record.get(column[:place]) if character == "." else None
        if isinstance(inner, Mapping):
            return _value(inner, column[place + 1 :])
    return _ABSENT


def _names_in(record: Mapping[str, Any]) -> Iterator[str]:
    for name, value in record.items():
        yield name
        if isinstance(value, Mapping):
            yield from (f"{name}.{key}" for key in _names_in(value))


def is_empty(value: Any) -> bool:
    """Whether a cell has nothing: null, a blank text, and NaN, which is how pandas says null."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value is _ABSENT or (isinstance(value, float) and math.isnan(value))


def finite_number(value: Any) -> float | None:
    """A number, or the text of one; None for what is none, or is infinite."""
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):  # 1_00 is Python's
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


_MAX_NUMBER = (2 - 2**-23) * 2.0**127
"""The largest of 32 bits, which are what a model is trained on."""
_UNSEEN = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # characters without a width


def _bare(text: str) -> str:
    """A text without what does not show around it, in Unicode's NFC."""
    return unicodedata.normalize("NFC", text).strip().strip(_UNSEEN).strip()


# --- cells ---------------------------------------------------------------------------------------

_TRUTHS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


@dataclass
class CellReader:
    """Reads the cells of a table as texts and classes, and counts labels that had blanks around."""

    columns: Mapping[str, str]
    labels: Labels | None
    names: tuple[str, ...] | None
    num_stripped: int = 0

    @classmethod
    def of(cls, columns: Mapping[str, str], labels: Labels | None, table: Table) -> "CellReader":
        """The reader of a table; the study file's names of classes come before the table's own."""
        names = labels and (labels.names or table.class_names.get(columns[labels.columns[0]]))
        return cls(columns, labels, names)

    def is_missing(self, field: str, value: Any) -> bool:
        """Whether a cell is empty; of numbered classes, −1 is none, as on the Hugging Face hub."""
        labels = self.labels if self.labels and field in self.labels.columns else None
        if labels is None or not isinstance(value, str | int | float):
            return is_empty(value)
        if self.names is not None and finite_number(value) == -1:
            return True
        if isinstance(value, str):
            return not _bare(value) and not labels.may_be_blank
        return is_empty(value)

    def text(self, field: str, value: Any, place: str = "") -> str:
        """The one plain text form of a cell, or of an entry of a list at a `place`.

        Raises:
            UnfitRowError: If it has none.
        """
        where = f"in{place} column {self.columns[field]!r}"
        match value:
            case str():
                try:
                    value.encode()
                except UnicodeEncodeError as error:
                    code = f"\\u{ord(value[error.start]):04x}"
                    raise UnfitRowError(
                        field, f"has half of a surrogate pair ({code}) {where}, which is not text"
                    ) from None
                return value
            case bool():
                return "true" if value else "false"
            case int():
                return str(value)
            case float() if math.isfinite(value):
                return repr(value)
            case None:
                kind = "null"
            case float():
                kind = repr(value)
            case _:
                kind = type(value).__name__
        raise UnfitRowError(field, f"has {kind} {where}; allowed: {_TEXT}")

    def label(self, field: str, value: Any, place: str = "") -> str:
        """A class by its name, without blanks around it; names that look the same are the same.

        Raises:
            UnfitRowError: If it is none.
        """
        if self.names is not None:
            return self._numbered(field, value, self.names, place)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a column of whole numbers with an empty cell is one of floats
        text = self.text(field, value, place)
        name = _bare(text)
        if not name:
            raise UnfitRowError(
                field, f"has an empty text in{place} column {self.columns[field]!r}; allowed: "
                f"{_TEXT}",
            )  # fmt: skip
        self.num_stripped += text != name
        return name

    def number(self, field: str, value: Any) -> float:
        """A number, or the text of one.

        Raises:
            UnfitRowError: If it is none, or more than 32 bits hold.
        """
        number = finite_number(value)
        if number is None or abs(number) > _MAX_NUMBER:
            shown = f"{value!r}" if isinstance(value, str | float | bool) else type(value).__name__
            allowed = "a finite number" if number is None else f"at most {_MAX_NUMBER:.3g}"
            raise UnfitRowError(
                field, f"has {shown} in column {self.columns[field]!r}; allowed: {allowed}"
            )
        return number

    def is_true(self, field: str, value: Any) -> bool:
        """A truth value: true or false, 1 or 0, or the text of one.

        Raises:
            UnfitRowError: If it is none.
        """
        text = str(value).strip().lower() if isinstance(value, bool | int | float | str) else ""
        if text not in _TRUTHS:
            shown = f"{value!r}" if text else type(value).__name__
            raise UnfitRowError(
                field, f"has {shown} in column {self.columns[field]!r}; allowed: 0 or 1"
            )
        return _TRUTHS[text]

    def _numbered(self, field: str, value: Any, names: tuple[str, ...], place: str) -> str:
        number = finite_number(value)
        if number is None or not number.is_integer() or not 0 <= number < len(names):
            given = self.labels.names_field if self.labels is not None else ""
            shown = f"{value!r}" if isinstance(value, str | int | float) else type(value).__name__
            raise UnfitRowError(
                field,
                f"has {shown} in{place} column {self.columns[field]!r}; {given} (of the study file "
                f"or the data) name 0 to {len(names) - 1}",
            )
        return names[int(number)]
