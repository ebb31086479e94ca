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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
_TOO_MANY_CELLS = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")  # of pandas
_UNREADABLE = (
    OSError, EOFError, ValueError, NotImplementedError, RecursionError, zlib.error, csv.Error
)  # fmt: skip


@dataclass(frozen=True)
class _TextFile:
    """A text file, after a first look at its bytes: how many they are, unpacked, and what text."""

    name: str
    num_bytes: int
    encoding: str
    is_guessed: bool = False

    def open(self, *, newline: str | None) -> TextIO:
        return io.TextIOWrapper(_open(self.name), encoding=self.encoding, newline=newline)


def file_tables(
    files: Files,
    split: Split,
    *,
    columns: Sequence[str],
    encoding: str | None,
    bytes_left: int,
    text_records: TextRecords | None = None,
) -> list[Table]:
    """The tables of a split's files.

    Args:
        files: By split.
        split: Whose files are read.
        columns: See `file_table`.
        encoding: Of text files; None where each says it or is UTF-8.
        bytes_left: Bytes that the files may have, unpacked.
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
    for name in names:
        table = file_table(
            name, path=path, columns=columns, encoding=encoding, text_records=text_records,
            bytes_left=bytes_left,
        )  # fmt: skip
        bytes_left -= table.num_bytes
        if bytes_left < 0:
            raise _too_large(path, name)
        title = f"the {split} data" if len(names) == 1 else f"the {split} data in {name}"
        tables.append(replace(table, name=title))
    return tables


def file_table(
    name: str,
    *,
    path: str,
    columns: Sequence[str],
    encoding: str | None = "utf-8",
    text_records: TextRecords | None = None,
    bytes_left: int = MAX_BYTES,
) -> Table:
    """The table of a text file, or of a parquet file.

    Args:
        name: Of the file.
        path: Dotted path of the field that names it.
        columns: What has to be among its columns; by them its delimiter is known.
        encoding: Of a text file; None where it says it or is guessed.
        text_records: See `RowFormat`.
        bytes_left: Bytes that a text file may have, unpacked.

    Raises:
        DataError: If the file cannot be read, here or when its records are.
    """
    with _readable(name, path):
        if file_suffix(name) == ".parquet":
            table = _parquet_table(name)
        else:
            file = _text_file(name, encoding, path, bytes_left)
            table = _text_table(file, path, columns, text_records)
    return replace(table, records=_read(table.records, name, path))


def widest_header(name: str, *, path: str) -> tuple[str, ...]:
    """The first line of a csv or tsv file, cut by the delimiter that makes most of it.

    Raises:
        DataError: If the file cannot be read.
    """
    with _readable(name, path):
        file = _text_file(name, None, path, MAX_BYTES)
        return max((_header(file, mark) for mark in reversed(_DELIMITERS)), key=len)


@contextmanager
def _readable(name: str, path: str) -> Iterator[None]:
    """What cannot be read inside is said of the file."""
    try:
        yield
    except DataError:
        raise
    except json.JSONDecodeError as error:  # its count of characters is not that of the file
        where = f"{error.msg}: line {error.lineno} column {error.colno}"
        raise DataError(path, f"cannot read {name}: {where}") from error
    except _UNREADABLE as error:
        raise DataError(path, f"cannot read {name}: {first_line(error)}") from error


def _read(records: Iterable[Any], name: str, path: str) -> Iterator[Any]:
    with _readable(name, path):
        yield from records


def _too_large(path: str, name: str) -> DataError:
    most = f"{MAX_BYTES / 2**30:g} GiB"
    return DataError(path, f"{name} is too large; all data files may have {most} unpacked")


# --- bytes and text ------------------------------------------------------------------------------


def _open(name: str) -> BinaryIO:
    if is_gzip(name):
        return cast("BinaryIO", gzip.open(name, "rb"))
    return Path(name).open("rb")


def _text_file(name: str, given: str | None, path: str, bytes_left: int) -> _TextFile:
    """Look at all bytes of a file, of which no more than a piece is kept if they are UTF-8."""
    size, start, has_zeros, is_utf8 = 0, b"", False, True
    decoder = codecs.getincrementaldecoder("utf-8")()
    with _open(name) as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(chunk)
            if size > bytes_left:
                raise _too_large(path, name)
            start = start or chunk
            has_zeros = has_zeros or 0 in chunk
            is_utf8 = is_utf8 and _goes_on(decoder, chunk)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return _TextFile(name, size, encoding)
    if given is not None:
        return _TextFile(name, size, given)
    if has_zeros:
        raise _unknown_encoding(path, name, "has bytes that are 0")
    if is_utf8 and _goes_on(decoder, b"", final=True):
        return _TextFile(name, size, "utf-8")
    with _open(name) as file:
        content = file.read()
    first_broken = len(content)
    try:
        content.decode()
    except UnicodeDecodeError as error:
        first_broken = error.start
    text = content.decode(errors="replace")
    num_broken = text.count("\ufffd")
    num_wide = len(text) - len(text.encode("ascii", "ignore")) - num_broken
    num_high = len(content.translate(None, bytes(range(128))))
    if num_wide > num_broken or num_high > _MOST_WESTERN_RATIO * size:
        raise _unknown_encoding(path, name, f"is not UTF-8 at byte {first_broken:,}")
    return _TextFile(name, size, _WESTERN, is_guessed=True)


def _goes_on(decoder: codecs.IncrementalDecoder, chunk: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(chunk, final)
    except UnicodeDecodeError:
        return False
    return True


def _unknown_encoding(path: str, name: str, what: str) -> DataError:
    return DataError(
        path, f"{name} {what}; give workload.data.encoding, as in latin-1, utf-16-le or cp1251"
    )


# --- kinds of files ------------------------------------------------------------------------------


def _text_table(
    file: _TextFile, path: str, columns: Sequence[str], text_records: TextRecords | None
) -> Table:
    note = (
        f"{file.name} is not UTF-8 and is read as Latin-1 ({_WESTERN}); if it is not, give "
        "workload.data.encoding."
    )
    table = Table(file.name, (), num_bytes=file.num_bytes, note=note if file.is_guessed else "")
    match file_suffix(file.name):
        case ".csv" | ".tsv" as suffix:
            delimiter, header = _delimiter(file, suffix, columns)
            for column in columns:
                if header.count(column) > 1:
                    raise DataError(
                        path, f"{file.name} has {header.count(column)} columns named {column!r}"
                    )
            return replace(table, records=_delimited(file, delimiter), columns=header)
        case ".txt" | ".conll" | ".conllu" if text_records is not None:
            return replace(table, records=text_records(file.name, _lines(file)))
        case ".txt":
            records = ({"text": line} for line in _lines(file))
            return replace(table, records=records, columns=("text",), is_text=True)
        case _:
            return replace(table, records=_json_values(file))


def _delimiter(file: _TextFile, suffix: str, columns: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """What cuts the first line so that the columns read are there, and that line.

    Where nothing does, it is what the file's name says.
    """
    usual = "\t" if suffix == ".tsv" else ","
    headers: dict[str, tuple[str, ...]] = {}
    for delimiter in (usual, *_DELIMITERS):
        headers[delimiter] = _header(file, delimiter)
        if set(columns) <= set(headers[delimiter]):
            return delimiter, headers[delimiter]
    return usual, headers[usual]


def _header(file: _TextFile, delimiter: str) -> tuple[str, ...]:
    with file.open(newline="") as lines:
        return tuple(next((row for row in csv.reader(lines, delimiter=delimiter) if row), ()))


def _delimited(file: _TextFile, delimiter: str) -> Iterator[dict[str, str]]:
    """Rows as pandas reads them, every cell as its text; {} for one whose cells are all empty."""
    import pandas as pd

    is_plain = delimiter == "\t" and _has_stray_quotes(file)
    quoting = csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL
    with file.open(newline="") as lines:
        reader = pd.read_csv(
            lines, sep=delimiter, dtype=str, keep_default_na=False, chunksize=_CHUNK_ROWS,
            quoting=quoting,
        )  # fmt: skip
        for chunk in _with_plain_words(reader):
            if not isinstance(chunk.index, pd.RangeIndex):  # a column without a name
                raise ValueError("row 1 has more cells than the first line names columns")
            names = list(map(str, chunk.columns))
            for cells in chunk.itertuples(index=False, name=None):
                yield dict(zip(names, cells, strict=True)) if any(cells) else {}


def _with_plain_words(chunks: Iterable[Any]) -> Iterator[Any]:
    """Chunks of a table; a row that does not fit is said as its line has it."""
    import pandas as pd

    try:
        yield from chunks
    except pd.errors.ParserError as error:
        if (found := _TOO_MANY_CELLS.search(str(error))) is None:
            raise
        expected, line, seen = found.groups()
        raise ValueError(
            f"line {line} has {seen} cells, and the first line names {expected} columns"
        ) from error


def _has_stray_quotes(file: _TextFile) -> bool:
    """Whether quotation marks of a table with tabs are text: every line is a row without them."""
    with file.open(newline="") as lines:
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
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


def _lines(file: _TextFile) -> Iterator[str]:
    with file.open(newline=None) as lines:
        for line in lines:
            yield line.removesuffix("\n")


def _json_values(file: _TextFile) -> Iterator[Any]:
    """The entries of a list, or else all values one after another; JSON lines line by line."""
    with file.open(newline=None) as lines:
        is_first = True
        for number, line in enumerate(lines):
            if line.isspace():
                continue
            if is_first and line.lstrip().startswith("["):
                yield from json.loads("\n" * number + line + lines.read())
                return
            try:
                value = json.loads(line)
            except ValueError:
                yield from _several_values("\n" * number + line + lines.read())
                return
            yield value
            is_first = False


def _several_values(text: str) -> Iterator[Any]:
    """All values of a text in which some go on over lines."""
    decoder, start, place = json.JSONDecoder(), re.compile(r"\S"), 0
    while found := start.search(text, place):
        value, place = decoder.raw_decode(text, found.start())
        yield value


def _parquet_table(name: str) -> Table:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(name)
    features = _features(file.schema_arrow)
    metadata = file.metadata
    size = sum(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
    batches = file.iter_batches(batch_size=_PARQUET_ROWS)
    records = (row for batch in batches for row in batch.to_pylist())
    return Table(name, records, column_names(features), class_names(features), num_bytes=size)


def _features(schema: Any) -> dict[str, Any]:
    """What `datasets` says of each column; None of a type that it lacks."""
    import pyarrow as pa
    from datasets import Features

    features: dict[str, Any] = {}
    for field in schema:
        try:
            of_field = Features.from_arrow_schema(pa.schema([field], metadata=schema.metadata))
        except ValueError:
            features[field.name] = None
        else:
            features[field.name] = of_field[field.name]
    return features
