"""Local files as tables: comma- or tab-separated, JSON (lines), parquet and text, also in gzip.

What a text file's lines are is its family's to say: see `RowFormat.text_records`.

Cells are read as the text that stands in the file: no type is guessed, no word means nothing.
"""

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from scaling.files.shown_error import first_line
from scaling.spec.checks.data import file_suffix, is_gzip, named_files
from scaling.spec.data import Files
from scaling.tasks.data.columns import Table, TextRecords, class_names, column_names
from scaling.tasks.data.rows import Split
from scaling.tasks.errors import DataError

MAX_BYTES = 2**30
"""Of all data files together, unpacked; as text, rows and tokens they take many times more."""
_CHUNK_BYTES = 2**20
_CHUNK_ROWS = 10_000
_PARQUET_ROWS = 1_000
_DELIMITERS = (",", ";", "\t", "|")
_MARKS: Mapping[bytes, str] = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16's does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_WESTERN = "cp1252"  # Latin-1 and what Windows adds to it
_MOST_WESTERN_RATIO = 0.25
"""Bytes above 127 in a text of a Western language; other alphabets have more."""
_UNREADABLE = (
    OSError, EOFError, ValueError, NotImplementedError, RecursionError, zlib.error, csv.Error
)  # fmt: skip


@dataclass(frozen=True)
class _Content:
    """What a first pass over a file finds: its bytes, unpacked, and how they are text."""

    num_bytes: int
    encoding: str
    is_guessed: bool


def file_tables(
    files: Files,
    split: Split,
    *,
    columns: Sequence[str],
    encoding: str | None,
    bytes_left: int,
    text_records: TextRecords | None = None,
) -> tuple[list[Table], int, tuple[str, ...]]:
    """The tables of a split's files, the bytes they have unpacked, and what to say of them.

    Args:
        files: By split.
        split: Whose files are read.
        columns: What has to be among a table's columns; by them its delimiter is known.
        encoding: Of text files; None where each says it or is UTF-8.
        bytes_left: Bytes that the files may have.
        text_records: See `RowFormat`.

    Raises:
        DataError: If a file cannot be read, here or when its records are.
    """
    path = f"workload.data.files.{split}"
    given = getattr(files, split)
    names = named_files(given)
    if not names:
        raise DataError(path, f"no file matches {given.glob!r}")
    tables: list[Table] = []
    notes: list[str] = []
    num_bytes = 0
    for name in names:
        title = f"the {split} data" if len(names) == 1 else f"the {split} data in {name}"
        table, size, said = _table(
            name, title, path, encoding, columns, bytes_left - num_bytes, text_records
        )
        notes += said
        num_bytes += size
        if num_bytes > bytes_left:
            raise _too_large(path, name)
        tables.append(table)
    return tables, num_bytes, tuple(notes)


def file_table(
    name: str,
    *,
    path: str,
    columns: Sequence[str],
    encoding: str | None = "utf-8",
    text_records: TextRecords | None = None,
) -> Table:
    """The table of a text file, or of a parquet file.

    Args:
        name: Of the file.
        path: Dotted path of the field that names it.
        columns: What has to be among its columns; by them its delimiter is known.
        encoding: Of a text file; None where it says it or is guessed.
        text_records: See `RowFormat`.

    Raises:
        DataError: If the file cannot be read, here or when its records are.
    """
    return _table(name, name, path, encoding, columns, MAX_BYTES, text_records)[0]


def widest_header(name: str, *, path: str) -> tuple[str, ...]:
    """The first line of a csv or tsv file, cut by the delimiter that makes most of it.

    Raises:
        DataError: If the file cannot be read.
    """
    try:
        content = _content(name, None, path, MAX_BYTES)
        return max((_header(name, content, mark) for mark in reversed(_DELIMITERS)), key=len)
    except _UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable(path, name, error) from error


def _table(
    name: str,
    title: str,
    path: str,
    encoding: str | None,
    columns: Sequence[str],
    bytes_left: int,
    text_records: TextRecords | None = None,
) -> tuple[Table, int, tuple[str, ...]]:
    """A file's table, its bytes, unpacked, and what to say of it."""
    try:
        if file_suffix(name) == ".parquet":
            return *_parquet_table(name, title, path), ()
        content = _content(name, encoding, path, bytes_left)
        table = _text_table(name, title, path, content, columns, text_records)
    except _UNREADABLE as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable(path, name, error) from error
    note = (
        f"{name} is not UTF-8 and is read as Latin-1 ({_WESTERN}); if it is not, give "
        "workload.data.encoding."
    )
    return table, content.num_bytes, (note,) if content.is_guessed else ()


def _unreadable(path: str, name: str, error: BaseException) -> DataError:
    return DataError(path, f"cannot read {name}: {first_line(error)}")


def _too_large(path: str, name: str) -> DataError:
    most = f"{MAX_BYTES / 2**30:g} GiB"
    return DataError(path, f"{name} is too large; all data files may have {most} unpacked")


# --- bytes and text ------------------------------------------------------------------------------


def _open(name: str) -> BinaryIO:
    if is_gzip(name):
        return cast("BinaryIO", gzip.open(name, "rb"))
    return Path(name).open("rb")


def _content(name: str, given: str | None, path: str, bytes_left: int) -> _Content:
    """Go over a file once, a little at a time, before anything is kept of it."""
    num_bytes = num_high = num_wide = num_broken = 0
    first_broken: int | None = None
    has_nul = False
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    start = b""
    with _open(name) as file:
        while chunk := file.read(_CHUNK_BYTES):
            start = start or chunk[:4]
            pending = decoder.getstate()[0]
            try:
                text = decoder.decode(chunk)
            except UnicodeDecodeError as error:
                first_broken = num_bytes - len(pending) + error.start
                decoder = codecs.getincrementaldecoder("utf-8")("replace")
                text = decoder.decode(pending + chunk)
            num_bytes += len(chunk)
            if num_bytes > bytes_left:
                raise _too_large(path, name)
            has_nul = has_nul or 0 in chunk
            if not text.isascii():
                num_high += len(chunk.translate(None, bytes(range(128))))
                broken = text.count("\ufffd") if first_broken is not None else 0
                num_broken += broken
                num_wide += len(text) - len(text.encode("ascii", "ignore")) - broken
    if first_broken is None and (cut := decoder.getstate()[0]):
        first_broken, num_broken = num_bytes - len(cut), num_broken + 1
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return _Content(num_bytes, encoding, is_guessed=False)
    if given is not None:
        return _Content(num_bytes, given, is_guessed=False)
    if has_nul:
        raise _unknown_encoding(path, name, "has bytes that are 0")
    if first_broken is None:
        return _Content(num_bytes, "utf-8", is_guessed=False)
    if num_wide > num_broken or num_high > _MOST_WESTERN_RATIO * num_bytes:
        raise _unknown_encoding(path, name, f"is not UTF-8 at byte {first_broken:,}")
    return _Content(num_bytes, _WESTERN, is_guessed=True)


def _unknown_encoding(path: str, name: str, what: str) -> DataError:
    return DataError(
        path, f"{name} {what}; give workload.data.encoding, as in latin-1, utf-16-le or cp1251"
    )


def _open_text(name: str, content: _Content, *, newline: str | None) -> TextIO:
    return io.TextIOWrapper(_open(name), encoding=content.encoding, newline=newline)


# --- kinds of files ------------------------------------------------------------------------------


def _text_table(
    name: str,
    title: str,
    path: str,
    content: _Content,
    columns: Sequence[str],
    text_records: TextRecords | None,
) -> Table:
    match file_suffix(name):
        case ".csv" | ".tsv" as suffix:
            delimiter, header = _delimiter(name, content, suffix, columns)
            for column in columns:
                if header.count(column) > 1:
                    raise DataError(
                        path, f"{name} has {header.count(column)} columns named {column!r}"
                    )
            records = _delimited(name, content, delimiter)
            return Table(title, _said(records, path, name), header)
        case ".txt" | ".conll" | ".conllu" if text_records is not None:
            records = text_records(name, _lines(name, content))
            return Table(title, _said(records, path, name))
        case ".txt":
            lines = ({"text": line} for line in _lines(name, content))
            return Table(title, _said(lines, path, name), ("text",), is_text=True)
        case _:
            return Table(title, _said(_json_values(name, content), path, name))


def _said(records: Iterator[Any], path: str, name: str) -> Iterator[Any]:
    """Records; what cannot be read on the way is said of the file."""
    try:
        yield from records
    except DataError:
        raise
    except _UNREADABLE as error:
        raise _unreadable(path, name, error) from error


def _delimiter(
    name: str, content: _Content, suffix: str, columns: Sequence[str]
) -> tuple[str, tuple[str, ...]]:
    """What stands between the cells of a table, and its first line.

    That is what cuts the first line so that the columns read are there; where nothing does, what
    the file's name says.
    """
    usual = "\t" if suffix == ".tsv" else ","
    headers: dict[str, tuple[str, ...]] = {}
    for delimiter in (usual, *_DELIMITERS):
        headers[delimiter] = _header(name, content, delimiter)
        if set(columns) <= set(headers[delimiter]):
            return delimiter, headers[delimiter]
    return usual, headers[usual]


def _header(name: str, content: _Content, delimiter: str) -> tuple[str, ...]:
    with _open_text(name, content, newline="") as file:
        return tuple(next((row for row in csv.reader(file, delimiter=delimiter) if row), ()))


def _delimited(name: str, content: _Content, delimiter: str) -> Iterator[dict[str, str]]:
    """Rows as pandas reads them, every cell as its text; {} for one whose cells are all empty."""
    import pandas as pd

    is_plain = delimiter == "\t" and _has_stray_quotes(name, content)
    quoting = csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL
    with _open_text(name, content, newline="") as file:
        reader = pd.read_csv(
            file, sep=delimiter, dtype=str, keep_default_na=False, chunksize=_CHUNK_ROWS,
            quoting=quoting,
        )  # fmt: skip
        for chunk in reader:
            if not isinstance(chunk.index, pd.RangeIndex):  # a column without a name
                raise ValueError("row 1 has more cells than the first line names columns")
            names = list(map(str, chunk.columns))
            for cells in chunk.itertuples(index=False, name=None):
                yield dict(zip(names, cells, strict=True)) if any(cells) else {}


def _has_stray_quotes(name: str, content: _Content) -> bool:
    """Whether quotation marks of a table with tabs are text: every line is a row without them."""
    with _open_text(name, content, newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            num_cells, is_stray = len(next(rows, [])), False
            for cells in filter(None, rows):
                if len(cells) != num_cells:
                    return False
                is_stray = is_stray or any(
                    cell.startswith('"') and (len(cell) == 1 or not cell.endswith('"'))
                    for cell in cells
                )
        except csv.Error:  # a cell of more characters than this reader takes
            return False
    return is_stray


def _lines(name: str, content: _Content) -> Iterator[str]:
    with _open_text(name, content, newline=None) as file:
        for line in file:
            yield line.removesuffix("\n")


_BLANKS = re.compile(r"\s*")


def _json_values(name: str, content: _Content) -> Iterator[Any]:
    """The entries of a list, or else all values one after another, as in JSON lines."""
    with _open_text(name, content, newline=None) as file:
        text = file.read()
    decoder = json.JSONDecoder()
    place = _after_blanks(text, 0)
    is_list = text.startswith("[", place)
    if is_list:
        place = _after_blanks(text, place + 1)
    has_more = not text.startswith("]", place) if is_list else place < len(text)
    while has_more:
        value, place = decoder.raw_decode(text, place)
        yield value
        place = _after_blanks(text, place)
        has_more = text.startswith(",", place) if is_list else place < len(text)
        if is_list and has_more:
            place = _after_blanks(text, place + 1)
    if is_list and not text.startswith("]", place):
        raise json.JSONDecodeError("Expecting ',' or ']'", text, place)
    if is_list and _after_blanks(text, place + 1) < len(text):
        raise json.JSONDecodeError("More follows after the end of the list", text, place + 1)


def _after_blanks(text: str, place: int) -> int:
    found = _BLANKS.match(text, place)
    assert found is not None
    return found.end()


def _parquet_table(name: str, title: str, path: str) -> tuple[Table, int]:
    import pyarrow.parquet as pq
    from datasets import Features

    file = pq.ParquetFile(name)
    features: Any = Features.from_arrow_schema(file.schema_arrow)
    metadata = file.metadata
    size = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
    batches = file.iter_batches(batch_size=_PARQUET_ROWS)
    records = _said((row for batch in batches for row in batch.to_pylist()), path, name)
    return Table(title, records, column_names(features), class_names(features)), size
