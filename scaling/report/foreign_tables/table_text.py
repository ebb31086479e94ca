"""The cells of a table file as text: encodings, separators, comments; CSV, Parquet or JSON.

Rows come one by one, so that a file too large to hold is refused before memory grows with it.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scaling.report.foreign_tables.table_json import records_of
from scaling.report.foreign_tables.table_names import TableError

if TYPE_CHECKING:
    from pyarrow import Array
    from pyarrow.parquet import ParquetFile

MOST_ROWS = 1_000_000
"""Rows that are read."""
MOST_BYTES = 1 << 29
"""Bytes of a file after unpacking that are read."""
_MOST_LINES, _MOST_CHARACTERS = 10 * MOST_ROWS, 1 << 20
"""Blank lines are no rows, and one cell has at most 128 KiB, the limit of the csv module."""
_SEPARATORS = (",", ";", "\t")
_ROWS_AT_ONCE = 1024
_ZIP = b"PK\x03\x04"

Body = Iterator[tuple[int, list[str]]]


@dataclass(frozen=True)
class TableText:
    """A table as it was written.

    Attributes:
        header: The columns' names, without surrounding blanks.
        body: (number of the line in the file, its cells), as many cells as columns; read from
            the file as they are asked for, once, while it is open. Raises TableError.
        separator: What stands between the cells; a comma for Parquet and JSON.
    """

    header: list[str]
    body: Body
    separator: str


@contextmanager
def read_text(path: Path) -> Iterator[TableText]:
    """The cells of a table while its file is open: CSV (comma, semicolon or tab), Parquet or JSON.

    Each may be packed with gzip.

    UTF-8, or UTF-16 with a byte order mark. The separator is the one that the header has most of.
    Lines before the header that begin with # are comments; `sep=;` above it, as Excel writes it,
    names the separator. Blank lines and blank columns at the end are left out.

    Raises:
        TableError: With the line, if the file is not such a table or is above a limit.
    """
    with _readable(path):
        unpacked = _unpacked(path)
    with unpacked:
        with _readable(path):
            start = unpacked.peek(4)[:4]
            if start.startswith(_ZIP):
                raise TableError(
                    f"{path}: is a workbook or an archive; save the sheet as CSV (UTF-8)"
                )
            is_json = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")
            whole = unpacked.read() if is_json or start == b"PAR1" else None
        if whole is None:
            yield _csv(path, unpacked, start)
        else:
            yield _json(path.name, whole) if is_json else _parquet(path.name, whole)


def _csv(path: Path, unpacked: io.BufferedReader, start: bytes) -> TableText:
    wide = start.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = io.TextIOWrapper(unpacked, "utf-16" if wide else "utf-8-sig", newline="")
    rows, separator = _rows(path, _lines(path, text, wide=wide))
    first = next(rows, None)
    if first is None:
        raise TableError(f"{path}: is empty; it needs a header and at least one row")
    header = [name.strip() for name in first[1]]
    while header and not header[-1]:
        header.pop()
    body = ((number, _fitted(path.name, header, number, cells)) for number, cells in rows)
    return TableText(header, body, separator)


class _Limited(io.RawIOBase):
    """The bytes of a file, up to the limit; `count` of them were read."""

    def __init__(self, source: io.BufferedIOBase, path: Path) -> None:
        self.count = 0
        self._source, self._path = source, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._source.readinto(buffer)
        self.count += size
        if self.count > MOST_BYTES:
            raise TableError(
                f"{self._path}: holds more than {MOST_BYTES >> 20} MiB (unpacked), the most that "
                "is read; keep the columns and rows that matter"
            )
        return size

    def close(self) -> None:
        self._source.close()
        super().close()


def _unpacked(path: Path) -> io.BufferedReader:
    with path.open("rb") as file:
        is_packed = file.read(2) == b"\x1f\x8b"
    source = cast("io.BufferedIOBase", gzip.GzipFile(path)) if is_packed else path.open("rb")
    return io.BufferedReader(_Limited(source, path), 1 << 16)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Says what keeps a file from being read."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TableError(f"{path}: is not a whole gzip file: {error}") from error
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}") from error


def _lines(path: Path, text: io.TextIOWrapper, *, wide: bool) -> Iterator[str]:
    """The lines with their ends, one by one."""
    number = 0
    with _readable(path):
        try:
            while line := text.readline(_MOST_CHARACTERS):
                number += 1
                if len(line) == _MOST_CHARACTERS or number > _MOST_LINES:
                    raise TableError(
                        f"{path}: line {number}: more than {_MOST_CHARACTERS:,} characters in a "
                        f"line or {_MOST_LINES:,} lines, blank ones too, are not read"
                    )
                if "\0" in line:
                    raise TableError(f"{path}: line {number}: holds a zero byte; save it as UTF-8")
                if wide and number == 1 and not line.endswith(("\n", "\r")):
                    raise TableError(f"{path}: is not UTF-8 text, and no table in UTF-16")
                yield line
        except UnicodeDecodeError as error:
            raise TableError(
                f"{path}: line {number + 1} or one soon after is not UTF-8 text; save it as UTF-8"
            ) from error


def _rows(path: Path, lines: Iterator[str]) -> tuple[Body, str]:
    """The lines that are not blank, from the header on, and what separates their cells."""
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line.strip():
            continue
        named = line.strip()
        if named.lower().startswith("sep=") and named[4:] in (",", ";"):
            return _cells(path, lines, named[4:], number), named[4:]
        unquoted = "".join(line.split('"')[::2])
        separator = max(_SEPARATORS, key=unquoted.count)
        return _cells(path, chain([line], lines), separator, number - 1), separator
    return iter(()), ","


def _cells(path: Path, lines: Iterator[str], separator: str, start: int) -> Body:
    """`start` lines stand before the first one."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    num_rows = -1  # the header is none
    try:
        for cells in reader:
            if any(map(str.strip, cells)):
                num_rows += 1
                if num_rows > MOST_ROWS:
                    raise _too_many_rows(path.name)
                yield reader.line_num + start, cells
    except csv.Error as error:
        line = reader.line_num + start
        raise TableError(f"{path}: line {line}: is not a CSV table: {error}") from error


def _too_many_rows(file: str) -> TableError:
    return TableError(
        f"{file}: has more than {MOST_ROWS:,} rows, the most that is read; write those that "
        "matter to a file of their own"
    )


def _fitted(file: str, header: list[str], number: int, cells: list[str]) -> list[str]:
    """The cells without blank ones beyond the header."""
    while len(cells) > len(header) and not cells[-1].strip():
        cells.pop()
    if len(cells) != len(header):
        raise TableError(
            f"{file}: line {number} (row {number - 1}) has {len(cells)} columns, "
            f"the header has {len(header)}"
        )
    return cells


def _json(file: str, content: bytes) -> TableText:
    """Rows are numbered as if a header were line 1."""
    header, rows = records_of(file, content)
    if len(rows) > MOST_ROWS:
        raise _too_many_rows(file)
    return TableText(header, iter(enumerate(rows, 2)), ",")


def _parquet(file: str, content: bytes) -> TableText:
    """Rows are numbered as if a header were line 1.

    Texts stay in their dictionaries until they are asked for: a small file may repeat a long one
    a million times.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(io.BytesIO(content))
        texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_binary(f.type)]
        table = pq.ParquetFile(io.BytesIO(content), read_dictionary=texts)
        groups = [table.metadata.row_group(n) for n in range(table.metadata.num_row_groups)]
        if table.metadata.num_rows > MOST_ROWS:
            raise _too_many_rows(file)
        if sum(group.total_byte_size for group in groups) > MOST_BYTES:
            raise TableError(f"{file}: holds more than {MOST_BYTES >> 20} MiB unpacked")
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{file}: is not a whole Parquet file: {error}") from error
    return TableText(list(schema.names), _parquet_rows(file, table), ",")


def _parquet_rows(file: str, table: "ParquetFile") -> Body:
    import pyarrow as pa

    number = 2
    try:
        for batch in table.iter_batches(_ROWS_AT_ONCE):
            columns = [_words(file, column) for column in batch.columns]
            for cells in zip(*columns, strict=True):
                yield number, list(cells)
                number += 1
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, TableError):
            raise
        rows = f"rows {number - 1} to {number - 2 + _ROWS_AT_ONCE}"
        raise TableError(f"{file}: {rows} cannot be read: {error}") from error


def _words(file: str, column: "Array") -> list[str]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        longest = pc.max(pc.binary_length(column.dictionary)).as_py() or 0  # type: ignore[attr-defined]
        if longest > csv.field_size_limit():
            raise TableError(f"{file}: a cell has {longest:,} bytes, too many to be read")
    return ["" if value is None else str(value) for value in column.to_pylist()]
