"""One row of a table from elsewhere, by our names, and its cells as numbers."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from scaling.report.foreign_tables.table_names import MAXIMIZED, TableError
from scaling.report.foreign_tables.table_numbers import (
    Marks,
    UnclearMarkError,
    is_blank,
    seconds_in,
    seconds_of_unit,
)
from scaling.report.page.printable import printable

_SMALLEST = 1e-30

_LARGEST = 1e30
"""Sizes within which squares and products are still numbers."""

_MOST_LETTERS = 100
"""Of a value that is a word: it labels axes and legends."""

_TIMES = ("seconds", "seconds_to_target")
_MOST_KNOWN = 100_000
"""Different numbers that are remembered; a loss is hardly ever met again."""


class Dialect:
    """How a table is written, and the numbers in it that were read already."""

    def __init__(
        self, file: str, theirs: Mapping[str, str], marks: Marks, versions: Collection[str] = ()
    ) -> None:
        """`versions` are the columns in which 2.1 and 2.10 differ."""
        self.file, self.theirs, self.marks, self.versions = file, theirs, marks, versions
        self.numbers: dict[tuple[str, str], float | None] = {}
        self.units = {name: seconds_of_unit(theirs[name]) for name in _TIMES if name in theirs}
        self.has_thousands = self.has_decimal_commas = False
        self.has_units = any(unit != 1 for unit in self.units.values())
        self.has_percents: bool | None = None


@dataclass(slots=True)
class Line:
    """One data row, by our names; `number` counts the file's lines, the header being line 1."""

    table: Dialect
    number: int
    values: Mapping[str, str]

    def error(self, column: str, problem: str, *, offers: Sequence[str] = ()) -> TableError:
        """What is wrong with a cell, and where it stands."""
        value = self.values[column]
        shown = value if len(value) <= 60 else f"{value[:60]}…"
        name = self.table.theirs.get(column, column)
        where = f"{self.table.file}: line {self.number} (row {self.number - 1}), column {name!r}"
        return TableError(f"{where}: {shown!r} {problem}", offers=offers)

    def text(self, column: str) -> str:
        """The cell; empty for a blank one, or where there is no column."""
        text = self.values.get(column, "").strip()
        return "" if is_blank(text) else text

    def number_in(
        self, column: str, is_allowed: Callable[[float], bool], allowed: str
    ) -> float | None:
        """A finite number; None for a blank, NaN or infinite one, or where there is no column."""
        written = self.values.get(column)
        if written is None:
            return None
        known, key = self.table.numbers, (column, written)
        if key in known:
            return known[key]
        value = self._number(column, is_allowed, allowed)
        if len(known) < _MOST_KNOWN:
            known[key] = value
        return value

    def _number(
        self, column: str, is_allowed: Callable[[float], bool], allowed: str
    ) -> float | None:
        text = self.text(column)
        if not text:
            return None
        value = self._value(column, text)
        if value is None:
            raise self.error(column, f"is not a number; it must be {allowed}")
        if not math.isfinite(value):
            return None
        if not is_allowed(value):
            raise self.error(column, f"must be {allowed}")
        if value and not _SMALLEST <= abs(value) <= _LARGEST:
            raise self.error(column, "is out of all proportion; is the column the right one?")
        return value

    def _value(self, column: str, text: str) -> float | None:
        """None for what is no number."""
        table = self.table
        if column == MAXIMIZED:
            text = self._without_percent(text)
        try:
            if column in _TIMES and (seconds := seconds_in(text, table.marks)) is not None:
                table.has_units = True
                return seconds
            plain = table.marks.plain(column, text)
        except UnclearMarkError as unclear:
            raise self.error(
                column, f"has a {unclear} that may stand between thousands or before decimals; "
                "write the number with a point, and nothing between thousands",
            ) from unclear  # fmt: skip
        if plain != text:
            table.has_decimal_commas |= "." in plain and text.rfind(",") > text.rfind(".")
            table.has_thousands |= len(plain) < len(text)
        try:
            return None if "_" in plain else float(plain) * table.units.get(column, 1.0)
        except ValueError:
            return None

    def _without_percent(self, text: str) -> str:
        """Raises TableError where some rows have the sign and others do not."""
        has = text.endswith("%")
        if not has and not any(map(str.isdigit, text)):
            return text  # NaN has no scale
        if self.table.has_percents not in (None, has):
            has_or_not = "has a percent sign" if has else "has no percent sign"
            raise self.error(MAXIMIZED, f"{has_or_not}, unlike the rows above; use one scale")
        self.table.has_percents = has
        return text.removesuffix("%").rstrip()

    def positive(self, column: str) -> float | None:
        """A number above 0."""
        return self.number_in(column, lambda value: value > 0, "a number above 0")

    def at_least_0(self, column: str) -> float | None:
        """A number of at least 0."""
        return self.number_in(column, lambda value: value >= 0, "a number of at least 0")

    def finite(self, column: str) -> float | None:
        """Any finite number."""
        return self.number_in(column, math.isfinite, "a number")

    def count(self, column: str) -> int | None:
        """A whole number of at least 0."""
        value = self.number_in(column, _is_whole, "a whole number of at least 0")
        return None if value is None else int(value)

    def size(self, column: str) -> int | None:
        """A whole number of at least 1."""
        allowed = "a whole number of at least 1"
        value = self.number_in(column, lambda v: v >= 1 and _is_whole(v), allowed)
        return None if value is None else int(value)

    def value(self, column: str) -> float | str | None:
        """A finite number where the cell is one, else its words; None for a blank one.

        Raises:
            TableError: For words that are too long to label anything.
        """
        text = self.text(column)
        if not text:
            return None
        try:
            is_version = column in self.table.versions
            number = math.nan if is_version else float(self.table.marks.plain(column, text))
        except ValueError:  # an unclear mark is one too
            number = math.nan
        if not math.isfinite(number):
            if len(text) > _MOST_LETTERS:
                raise self.error(
                    column, f"has more than {_MOST_LETTERS} characters; give it a short name"
                )
            return printable(text)
        return int(number) if number.is_integer() and abs(number) < 1e15 else number


def _is_whole(value: float) -> bool:
    return 0 <= value < 2**53 and value == int(value)
