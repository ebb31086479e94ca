"""Tables that are JSON: a list of records, one record a line, or columns."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from scaling.report.foreign_tables.table_names import TableError

_ONE_RUN = (
    "is the log of one run. A sweep has one row per run: write a CSV with global_batch_size "
    "(per_device_train_batch_size × gradient_accumulation_steps × devices), peak_lr (the "
    "arguments' learning_rate) and validation_loss (the last eval_loss)"
)
_DEEPEST = 8
"""Levels of records inside records that become columns."""


def records_of(file: str, content: bytes) -> tuple[list[str], list[list[str]]]:
    """The columns and rows of a JSON file; what lies deeper has names with points.

    Raises:
        TableError: If it is no JSON, or no table.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(f"{file}: is not UTF-8 text; save it as UTF-8") from error
    rows = [dict(_pairs(record, "", 0)) for record in _records(file, _parsed(file, text))]
    header = list(dict.fromkeys(name for row in rows for name in row))
    return header, [[row.get(name, "") for name in header] for row in rows]


def _parsed(file: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if len(lines) < 2 or not lines[0].lstrip().startswith("{"):
            raise TableError(f"{file}: is not JSON: {error}") from error
    records: list[Any] = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise TableError(f"{file}: line {number}: is not JSON: {error}") from error
    return records


def _records(file: str, parsed: Any) -> Sequence[Mapping[str, Any]]:
    if isinstance(parsed, list):
        rows = cast("list[Any]", parsed)
        if rows and all(isinstance(row, dict) for row in rows):
            return rows
        raise TableError(f"{file}: a JSON table is a list of records, {{column: value}}")
    if not isinstance(parsed, dict):
        raise TableError(f"{file}: is JSON, but no table")
    table = cast("dict[str, Any]", parsed)
    if "log_history" in table:
        raise TableError(f"{file}: {_ONE_RUN}")
    if {"columns", "data"} <= table.keys():  # pandas, orient="split"
        return [dict(zip(table["columns"], row, strict=False)) for row in table["data"]]
    columns = {name: _column(value) for name, value in table.items()}
    lengths = {len(column) for column in columns.values() if column is not None}
    if None in columns.values() or len(lengths) != 1:
        raise TableError(
            f"{file}: is one JSON record; a table is a list of records, one per run, with "
            "global_batch_size, peak_lr and validation_loss"
        )
    values = [column for column in columns.values() if column is not None]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _column(value: Any) -> list[Any] | None:
    """The values of one column, where pandas wrote it so; else None."""
    if isinstance(value, list):
        return cast("list[Any]", value)
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        if entries and all(key.isdigit() for key in entries):
            return list(entries.values())
    return None


def _pairs(record: Mapping[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        if isinstance(value, dict) and value and depth < _DEEPEST:
            yield from _pairs(cast("dict[str, Any]", value), f"{prefix}{name}.", depth + 1)
        else:
            yield f"{prefix}{name}", _word(value)


def _word(value: Any) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case bool() | int() | float():
            return str(value)
        case _:
            return json.dumps(value)
