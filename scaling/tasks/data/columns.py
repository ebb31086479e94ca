"""Tables to rows: which columns a task reads, and what may stand in their cells.

A cell is read as the text that stands there, or refused. Nothing becomes text by Python's `str`.
"""

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scaling.spec.workloads import CausalLm, TextWorkload
from scaling.tasks.data.rows import Row, tagged
from scaling.tasks.errors import DataError

MAX_ROWS = 5_000_000
"""Of all splits together; more do not fit into the memory of a usual worker."""
MAX_CHARACTERS = 2**30
"""Of the texts of all splits together, for the same reason."""
_TOO_MUCH = (
    f"are too large; all splits together may have {MAX_ROWS:,} rows and {MAX_CHARACTERS:,} "
    "characters of text"
)
LABEL_FIELDS = ("label_column", "tags_column")
"""Fields of `data` whose empty cells are missing labels; those of all others, missing texts."""
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
    """

    name: str
    records: Iterable[Mapping[str, Any]]
    columns: tuple[str, ...] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    is_text: bool = False


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


class _UnfitRowError(ValueError):
    """A row that its task cannot use; `field` names the column at fault."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field, self.message = field, message


def fields_read(workload: TextWorkload) -> tuple[str, ...]:
    """The fields of `data` that name the columns this workload reads."""
    match workload.task:
        case "text_classification":
            return "text_column", "label_column"
        case "token_classification":
            return "tokens_column", "tags_column"
        case "question_answering":
            return "context_column", "question_column", "answers_column"
        case "seq2seq":
            return "source_column", "target_column"
        case "causal_lm":
            has_prompts = workload.data.prompt_column is not None
            return ("prompt_column", "answer_column") if has_prompts else ("text_column",)


def column_names(features: Mapping[str, Any]) -> tuple[str, ...]:
    """Columns of a table of `datasets`, and what is inside those that are mappings."""
    from datasets import Translation

    names: list[str] = list(features)
    for name, feature in features.items():
        keys: Any = feature if isinstance(feature, dict) else ()
        if isinstance(feature, Translation):
            keys = feature.languages
        names += [f"{name}.{key}" for key in keys]
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
    workload: TextWorkload, table: Table, *, most_rows: int, most_characters: int
) -> TableRows:
    """The rows of a table by the column names of the study file.

    Raises:
        DataError: If a column is missing, a cell is not what its task reads, or there are more
            rows or characters than these.
    """
    columns = {name: str(getattr(workload.data, name)) for name in fields_read(workload)}
    if table.columns:
        _require_columns(columns, table, table.columns)
    if _is_book(workload, table):
        lines = [record["text"] for record in _counted(table, most_rows)]
        return TableRows(table.name, _book(lines), {})
    reader = _RowReader(workload, columns, _class_names(workload, table, columns))
    missing: dict[str, list[int]] = {name: [] for name in columns}
    rows: list[Row] = []
    found: set[str] = set()
    known: dict[str, None] = {}
    num_blank = num_characters = 0
    for number, record in enumerate(_counted(table, most_rows), start=1):
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
        if not record or _says_nothing(workload, values):
            num_blank += 1
            continue
        if lacking := [name for name in columns if reader.is_missing(name, values[name])]:
            for name in lacking:
                missing[name].append(number)
            continue
        try:
            row = reader.row(values)
        except _UnfitRowError as error:
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


def _counted(table: Table, most_rows: int) -> Iterator[Mapping[str, Any]]:
    for number, record in enumerate(table.records, start=1):
        if number > most_rows:
            raise DataError("workload.data", f"{table.name} {_TOO_MUCH}")
        yield record


def _size(row: Row) -> int:
    return len(row.text) + len(row.prompt or "")


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
            yield from (f"{name}.{key}" for key in value)


def _is_missing(value: Any) -> bool:
    """True for no cell, null, an empty or blank text, and NaN, which is how pandas says null."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value is _ABSENT or (isinstance(value, float) and math.isnan(value))


def _says_nothing(workload: TextWorkload, values: Mapping[str, Any]) -> bool:
    """True for a blank text that stands alone, and a sentence without words: there, and empty."""
    match workload.task:
        case "causal_lm":
            text = values.get("text_column")
            return isinstance(text, str) and not text.strip()
        case "token_classification":
            return values["tokens_column"] == [] and values["tags_column"] == []
        case _:
            return False


# --- lines of a book -----------------------------------------------------------------------------


def _is_book(workload: TextWorkload, table: Table) -> bool:
    """True where the lines of a text file are joined to one text."""
    return table.is_text and isinstance(workload, CausalLm) and workload.packing


def _book(lines: Sequence[str]) -> list[Row]:
    """A document's lines in order, blank ones too, each but the last with its line break."""
    rows = [Row(text=f"{line}\n", ends_document=False) for line in lines[:-1]]
    return [*rows, *(Row(text=line) for line in lines[-1:])]


_UNSEEN = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"  # characters without a width

# --- cells ---------------------------------------------------------------------------------------


def _class_names(
    workload: TextWorkload, table: Table, columns: Mapping[str, str]
) -> tuple[str, ...] | None:
    """The names of classes that are numbers: those of the study file, else those of the table."""
    match workload.task:
        case "text_classification":
            given, name = workload.data.label_names, "label_column"
        case "token_classification":
            given, name = workload.data.tag_names, "tags_column"
        case _:
            return None
    return given or table.class_names.get(columns[name])


@dataclass
class _RowReader:
    """Makes rows of cells, and counts labels that had blanks around them."""

    workload: TextWorkload
    columns: Mapping[str, str]
    names: tuple[str, ...] | None
    num_stripped: int = 0

    def is_missing(self, field: str, value: Any) -> bool:
        """Whether a cell is empty; of numbered classes, −1 is none, as on the Hugging Face hub."""
        if field == "label_column" and self.names is not None and value in (-1, "-1"):
            return True
        return _is_missing(value)

    def row(self, values: Mapping[str, Any]) -> Row:
        """The row of these cells, none of which is missing."""
        match self.workload.task:
            case "text_classification":
                label = self._class("label_column", values["label_column"])
                return Row(text=self._text("text_column", values), label=label)
            case "token_classification":
                return self._tagged_row(values["tokens_column"], values["tags_column"])
            case "question_answering":
                return self._question_row(values)
            case "seq2seq":
                source = self._text("source_column", values)
                return Row(text=self._text("target_column", values), prompt=source)
            case "causal_lm":
                if "prompt_column" in values:
                    prompt = self._text("prompt_column", values)
                    return Row(text=self._text("answer_column", values), prompt=prompt)
                return Row(text=self._text("text_column", values))

    def _text(self, field: str, values: Mapping[str, Any]) -> str:
        return self._plain(field, values[field], "")

    def _plain(self, field: str, value: Any, place: str) -> str:
        """The one plain text form of a cell.

        Raises:
            _UnfitRowError: If it has none.
        """
        where = f"in{place} column {self.columns[field]!r}"
        match value:
            case str():
                try:
                    value.encode()
                except UnicodeEncodeError as error:
                    code = f"\\u{ord(value[error.start]):04x}"
                    raise _UnfitRowError(
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
        raise _UnfitRowError(field, f"has {kind} {where}; allowed: {_TEXT}")

    def _class(self, field: str, value: Any, place: str = "") -> str:
        """A class by its name, without blanks around it; names that look the same are the same."""
        if self.names is not None:
            return self._numbered(field, value, self.names, place)
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # a column of whole numbers with an empty cell is one of floats
        text = self._plain(field, value, place)
        name = unicodedata.normalize("NFC", text).strip().strip(_UNSEEN).strip()
        self.num_stripped += text != name
        return name

    def _numbered(self, field: str, value: Any, names: tuple[str, ...], place: str) -> str:
        number = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(names):
            given = "tag_names" if field == "tags_column" else "label_names"
            shown = f"{value!r}" if isinstance(value, str | int | float) else type(value).__name__
            raise _UnfitRowError(
                field,
                f"has {shown} in{place} column {self.columns[field]!r}; {given} (of the study file "
                f"or the data) name 0 to {len(names) - 1}",
            )
        return names[number]

    def _tagged_row(self, words: Any, tags: Any) -> Row:
        for name, value in (("tokens_column", words), ("tags_column", tags)):
            if not isinstance(value, list):
                raise _UnfitRowError(name, f"has {type(value).__name__} and not a list")
        if len(words) != len(tags):
            raise _UnfitRowError("tags_column", f"has {len(tags)} tags for {len(words)} words")
        return tagged(
            [self._plain("tokens_column", w, f" place {n} of") for n, w in enumerate(words, 1)],
            [self._class("tags_column", tag, f" place {n} of") for n, tag in enumerate(tags, 1)],
        )

    def _question_row(self, values: Mapping[str, Any]) -> Row:
        """A question with its answers where they say they are."""
        answers, context = values["answers_column"], self._text("context_column", values)
        texts, starts = (
            (answers.get("text"), answers.get("answer_start"))
            if isinstance(answers, dict)
            else (None, None)
        )
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise _UnfitRowError(
                "answers_column", "needs a mapping of text and answer_start, lists of equal length"
            )
        found = tuple(zip(starts, texts, strict=True))
        for start, text in found:
            if not isinstance(text, str) or not text or type(start) is not int or start < 0:
                raise _UnfitRowError(
                    "answers_column", f"has {text!r} at {start!r}; needs a text and a place from 0"
                )
            if context[start : start + len(text)] != text:
                raise _UnfitRowError(
                    "answers_column", f"says that {text!r} starts at {start}; there the context "
                    f"has {context[start : start + len(text)]!r}",
                )  # fmt: skip
        question = self._text("question_column", values)
        return Row(text=context, prompt=question, answers=found, group=context)
