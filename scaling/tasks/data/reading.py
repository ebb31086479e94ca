"""All rows of a workload's source, by split, whatever kind of source it is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from scaling.files.shown_error import first_line
from scaling.spec.data import TextData
from scaling.tasks.data.columns import (
    MAX_CHARACTERS,
    MAX_ROWS,
    Labels,
    RowFormat,
    Table,
    TableRows,
    class_names,
    column_names,
    read_table,
)
from scaling.tasks.data.file_tables import MAX_BYTES, file_tables
from scaling.tasks.data.rows import SPLITS, Row, Split
from scaling.tasks.data.sources import builtin_rows
from scaling.tasks.errors import DataError

_SHOWN_ROWS = 20


@dataclass(frozen=True)
class ReadRows:
    """The rows of a source; one without splits has them all in `train`.

    Attributes:
        notes: English sentences on what was read otherwise than it stands there.
    """

    rows: Mapping[Split, list[Row]]
    notes: tuple[str, ...]


def read_rows(data: TextData, row_format: RowFormat) -> ReadRows:
    """All rows of a source, by split.

    Raises:
        DataError: If a file, column, split or hub data set is missing or empty, or a cell is not
            what its task reads.
    """
    if (name := data.builtin_name) is not None:
        return ReadRows({"train": list(builtin_rows(name))}, ())
    rows: dict[Split, list[Row]] = {}
    notes: list[str] = []
    num_stripped, rows_left, characters_left = 0, MAX_ROWS, MAX_CHARACTERS
    for split, tables in _tables(data, row_format, notes):
        parts: list[TableRows] = []
        for table in tables:
            with closing(table):
                part = read_table(
                    data.columns, row_format, table,
                    most_rows=rows_left, most_characters=characters_left,
                )  # fmt: skip
            rows_left -= len(part.rows)
            characters_left -= part.num_characters
            parts.append(part)
        num_stripped += sum(part.num_stripped for part in parts)
        notes += _left_out(data, row_format.labels, split, parts)
        found = [row for part in parts for row in part.rows]
        if found or split == "train":
            rows[split] = found
        else:
            notes.append(f"The {split} data have no usable row and count as not given.")
    if num_stripped:
        one = num_stripped == 1
        notes.append(
            f"{num_stripped:,} {'label' if one else 'labels'} had blanks around "
            f"{'it' if one else 'them'}, which were removed."
        )
    return ReadRows(rows, tuple(notes))


def _left_out(
    data: TextData, labels: Labels | None, split: Split, parts: Sequence[TableRows]
) -> Iterator[str]:
    """What was left out of a split, in words."""
    for field in parts[0].missing:
        found = [(part.name, part.missing[field]) for part in parts if part.missing[field]]
        if not found:
            continue
        if labels is not None and field in labels.columns:
            policy, rule, what = "missing_labels", labels.missing, "no label"
        else:
            policy, rule, what = "missing_texts", data.missing_texts, "no text"
        what += f" in column {data.columns[field]!r}"
        if rule == "error":
            rows = "; ".join(f"{_numbered(numbers)} of {name}" for name, numbers in found)
            have = "has" if sum(len(numbers) for _, numbers in found) == 1 else "have"
            raise DataError(
                f"workload.data.{field}",
                f"{rows} {have} {what}; fill them, or leave such rows out with {policy}: drop",
            )
        count = sum(len(numbers) for _, numbers in found)
        yield f"{_rows(count)} of the {split} data with {what} {_were(count)} left out."
    if num_blank := sum(part.num_blank for part in parts):
        yield f"{_rows(num_blank)} of the {split} data without text {_were(num_blank)} left out."


def _rows(count: int) -> str:
    return f"{count:,} {'row' if count == 1 else 'rows'}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _numbered(numbers: Sequence[int]) -> str:
    """`row 3`, or `rows 3, 7 and 9`; of very many, the first ones and how many there are."""
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    if len(numbers) <= _SHOWN_ROWS:
        return f"rows {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
    shown = ", ".join(map(str, numbers[:_SHOWN_ROWS]))
    return f"rows {shown} and {len(numbers) - _SHOWN_ROWS:,} more"


def _tables(
    data: TextData, row_format: RowFormat, notes: list[str]
) -> Iterator[tuple[Split, Sequence[Table]]]:
    """The tables of each split; adds to `notes`."""
    columns = list(data.columns.values())
    if data.files is None:
        yield from _hub_tables(data, columns)
        return
    bytes_left = MAX_BYTES
    for split in SPLITS:
        if getattr(data.files, split) is None:
            continue
        tables = file_tables(
            data.files, split, columns=columns, encoding=data.encoding, bytes_left=bytes_left,
            text_records=row_format.text_records,
        )  # fmt: skip
        bytes_left -= sum(table.num_bytes for table in tables)
        notes += [table.note for table in tables if table.note]
        yield split, tables


def _hub_tables(data: TextData, columns: Sequence[str]) -> Iterator[tuple[Split, Sequence[Table]]]:
    from datasets import load_dataset, load_dataset_builder
    from datasets.exceptions import DatasetsError
    from datasets.packaged_modules.csv.csv import CsvConfig

    name = (data.source or "").partition(":")[2]
    options: dict[str, Any] = {}
    try:
        if isinstance(load_dataset_builder(name, data.subset).config, CsvConfig):
            # Cells stay the text they are.
            options = {"converters": dict.fromkeys(columns, str), "keep_default_na": False}
        loaded: Any = load_dataset(name, data.subset, **options)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:  # Runtime: a script
        raise DataError(
            "workload.data.source", f"cannot load {name}: {first_line(error)}"
        ) from error
    wanted: dict[Split, str] = {split: data.hub_splits.get(split, split) for split in SPLITS}  # type: ignore[call-overload]  # SPLITS are its keys
    for split, theirs in wanted.items():
        if theirs not in loaded and (split == "train" or split in data.hub_splits):
            raise DataError(
                f"workload.data.hub_splits.{split}",
                f"{name} has no split {theirs!r}; it has: {', '.join(loaded)}",
            )
    for split, theirs in wanted.items():
        if theirs in loaded:
            features = loaded[theirs].features
            columns, classes = column_names(features), class_names(features)
            yield split, [Table(f"the {split} data", loaded[theirs], columns, classes)]
