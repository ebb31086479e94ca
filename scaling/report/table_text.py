"""The cells of a table file as text: encodings, separators, comments, CSV or Parquet."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SEPARATORS = (",", ";", "\t")


class TableError(ValueError):
    """The table or what was asked of it is wrong, in one line for the user."""


@dataclass(frozen=True)
class TableText:
    """A table as it was written.

    Attributes:
        header: The columns' names, without surrounding blanks.
        body: (number of the line in the file, its cells), as many cells as columns.
        separator: What stood between the cells; a comma for Parquet.
    """

    header: list[str]
    body: list[tuple[int, list[str]]]
    separator: str


def read_text(path: Path) -> TableText:
    """The cells of a CSV (comma, semicolon or tab; plain or gzip) or Parquet file.

    UTF-8, or UTF-16 with a byte order mark. The separator is the one that the header has most of.
    Lines before the header that begin with # are comments; `sep=;` above it, as Excel writes it,
    names the separator. Blank lines and blank columns at the end are left out.

    Raises:
        TableError: With the line, if the file is not such a table.
    """
    content = _content(path)
    if content.startswith(b"PAR1"):
        return _parquet(path.name, content)
    text = _decoded(path, content)
    lines = list(io.StringIO(text, newline=""))
    start, separator = _start(lines)
    lines_of_cells = list(_cells(path, lines[start:], separator, start))
    if not lines_of_cells:
        raise TableError(f"{path}: is empty; it needs a header and at least one row")
    header = [name.strip() for name in lines_of_cells[0][1]]
    while header and not header[-1]:
        header.pop()
    body = [(number, _fitted(path.name, header, number, c)) for number, c in lines_of_cells[1:]]
    return TableText(header, body, separator)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TableError(f"{path}: is not a whole gzip file: {error}") from error
    except OSError as error:
        raise TableError(f"{path}: cannot be read: {error.strerror}") from error


def _decoded(path: Path, content: bytes) -> str:
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise TableError(
            f"{path}: is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    if wide and not any(mark in text for mark in "\r\n"):
        raise TableError(f"{path}: is not UTF-8 text, and no table in UTF-16")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise TableError(f"{path}: line {line}: holds a zero byte; save it as UTF-8")
    return text


def _start(lines: list[str]) -> tuple[int, str]:
    """Index of the header's line, and the separator."""
    index = 0
    while index < len(lines) and (lines[index].startswith("#") or not lines[index].strip()):
        index += 1
    if index == len(lines):
        return index, ","
    first = lines[index].strip()
    if first.lower().startswith("sep=") and first[4:] in (",", ";"):
        return index + 1, first[4:]
    unquoted = "".join(lines[index].split('"')[::2])
    return index, max(_SEPARATORS, key=unquoted.count)


def _cells(
    path: Path, lines: list[str], separator: str, start: int
) -> Iterator[tuple[int, list[str]]]:
    """The lines that are not blank, with their numbers in the file."""
    reader = csv.reader(lines, delimiter=separator, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num + start, cells
    except csv.Error as error:
        line = reader.line_num + start
        raise TableError(f"{path}: line {line}: is not a CSV table: {error}") from error


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


def _parquet(file: str, content: bytes) -> TableText:
    """Rows are numbered as if a header were line 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{file}: is not a whole Parquet file: {error}") from error
    columns = [[_word(value) for value in column.to_pylist()] for column in table.columns]
    rows = [list(cells) for cells in zip(*columns, strict=True)]
    return TableText(list(table.column_names), list(enumerate(rows, 2)), ",")


def _word(value: object) -> str:
    return "" if value is None else str(value)
