"""How a table writes its numbers: which mark stands before decimals, which between thousands."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from scaling.report.foreign_tables.table_names import COUNTS, plain

Decimal = Literal[".", ","]

LARGE = COUNTS | {"seconds", "seconds_to_target", "examples_to_target"}
"""Columns whose numbers are often above a thousand."""

_SPACES = re.compile("(?<=\\d)[ \u00a0\u2009\u202f'’](?=\\d{3}(?!\\d))")
_COMMA_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+")
_POINT_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(\.\d{3})+")
_COMMA_DECIMAL = re.compile(r"[+-]?(\d*|[1-9]\d{0,2}(\.\d{3})+),\d+([eE][+-]?\d+)?")
_POINT_DECIMAL = re.compile(r"[+-]?(\d*|[1-9]\d{0,2}(,\d{3})+)\.\d*([eE][+-]?\d+)?")
_TIME = re.compile(
    r"(?:(?P<days>\d+) days?,? )?(?:(?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+(?:\.\d*)?)"
)
_PARTS = re.compile(r"(\d[\d.,]*)\s*([a-z]+)\.?")
_BRACKETED = re.compile(r"[(\[]\s*([a-z]+)\s*[)\]]\s*$", re.IGNORECASE)
_VERSION = re.compile(r"\d+\.\d+")
_SECONDS = {
    "ms": 0.001, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hr": 3600.0, "hrs": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_MOST_ROWS = 2000
"""Rows that are looked at for how numbers are written."""


TRUE, FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")
"""Words for them, in lower case."""
_BLANK = frozenset({"", "-", "–", "—", "none", "null", "na", "n/a", "<na>", "#n/a"})
_LONGEST_BLANK = max(map(len, _BLANK))


class UnclearMarkError(ValueError):
    """A mark may stand between thousands or before decimals; says which one."""


@dataclass(frozen=True)
class Marks:
    """What the marks in a table's numbers mean.

    Attributes:
        decimal: The mark before decimals; None where no number decides it.
        between_commas: Whether the cells are separated by commas, so that one inside of a cell
            was put in quotes.
        is_mixed: Whether some numbers have decimals after a point and some after a comma.
    """

    decimal: Decimal | None = None
    between_commas: bool = True
    is_mixed: bool = False

    def plain(self, column: str, text: str) -> str:
        """A number as `float` reads it.

        A number that can be read in one way only is. 1,024 and 1.024 are read by the table's
        other numbers. Without those a comma is the decimal mark of a rate or loss between
        semicolons or tabs, and stands between thousands of a count between commas.

        Raises:
            UnclearMarkError: Where a mark may mean either.
        """
        text = _SPACES.sub("", text) if column in LARGE else text
        if "," in text:
            return self._with_comma(column, text)
        if _POINT_GROUPS.fullmatch(text) and not self._is_decimal_point(column, text):
            return text.replace(".", "")
        return text

    def _with_comma(self, column: str, text: str) -> str:
        if "." in text and _POINT_DECIMAL.fullmatch(text) and self.decimal != ",":
            return text.replace(",", "")
        if _COMMA_GROUPS.fullmatch(text):
            if column in LARGE:
                if self.decimal == "." or (self.decimal is None and self.between_commas):
                    return text.replace(",", "")
                if column not in COUNTS and self.decimal == ",":
                    return text.replace(",", ".")
                raise UnclearMarkError("comma")
            if not (self.decimal == "," or (self.decimal is None and not self.between_commas)):
                if self.is_mixed and not self.between_commas and text.count(",") == 1:
                    return text.replace(",", ".")
                raise UnclearMarkError("comma")
        is_odd = self.between_commas and (self.is_mixed or self.decimal == ".")
        if _COMMA_DECIMAL.fullmatch(text) and not is_odd:
            return text.replace(".", "").replace(",", ".")
        raise UnclearMarkError("comma")

    def _is_decimal_point(self, column: str, text: str) -> bool:
        """Whether the point in a number such as 1.024 stands before decimals."""
        if text.count(".") > 1:
            return False
        if self.decimal == ",":
            if column not in LARGE:
                raise UnclearMarkError("point")
            return False
        if self.decimal is None and not self.between_commas and column in LARGE:
            raise UnclearMarkError("point")
        return True


def is_blank(text: str) -> bool:
    """Whether a cell holds nothing, by a word for that too; NaN is a number that was lost."""
    text = text.strip()
    return len(text) <= _LONGEST_BLANK and text.lower() in _BLANK


def number(marks: Marks, column: str, text: str) -> float:
    """What a cell holds, percent signs left out; NaN for no number, or one with an unclear mark."""
    try:
        return float(marks.plain(column, text.strip().removesuffix("%").rstrip()))
    except ValueError:  # an unclear mark is one too
        return math.nan


def marks_of(rows: Iterable[Iterable[tuple[str, str]]], separator: str) -> Marks:
    """What the first of a table's rows say.

    Args:
        rows: (our name, cell) of each number in a row.
        separator: What stands between the table's cells.
    """
    commas = points = False
    unclear_points = False  # in a rate or a loss, which is hardly ever above a thousand
    for _, row in zip(range(_MOST_ROWS), rows, strict=False):
        for column, cell in row:
            text = _SPACES.sub("", cell.strip().removesuffix("%").rstrip())
            if "," in text:
                clear = not _COMMA_GROUPS.fullmatch(text)
                commas |= clear and _COMMA_DECIMAL.fullmatch(text) is not None
                points |= text.count(",") > 1 or (
                    "." in text and _POINT_DECIMAL.fullmatch(text) is not None
                )
            elif "." in text:
                clear = not _POINT_GROUPS.fullmatch(text)
                points |= clear and _POINT_DECIMAL.fullmatch(text) is not None
                commas |= text.count(".") > 1 and not clear
                unclear_points |= not clear and column not in LARGE
    if not commas and unclear_points:
        points = True
    is_mixed = commas and points
    decimal: Decimal | None = None if is_mixed or not (commas or points) else "," if commas else "."
    return Marks(decimal, separator == ",", is_mixed)


def seconds_in(text: str, marks: Marks) -> float | None:
    """Seconds of a time with its unit, as in 87.5 sec, 1.5min, 1h 2m 3s or 0 days 00:01:27.5.

    Raises:
        UnclearMarkError: Where a mark may stand between thousands or before decimals.
    """
    text = text.strip().lower()
    timed = text.replace(",", ".") if marks.decimal == "," else text
    if clock := _TIME.fullmatch(timed):
        days, hours, minutes, seconds = (float(part or 0) for part in clock.groups())
        return days * 86400 + hours * 3600 + minutes * 60 + seconds
    parts = _PARTS.findall(text)
    if not parts or _PARTS.sub("", text).strip(" ,") or any(u not in _SECONDS for _, u in parts):
        return None
    amounts = [marks.plain("seconds", amount) for amount, _ in parts]
    if not all(re.fullmatch(r"\d+\.?\d*", amount) for amount in amounts):
        return None
    return sum(float(a) * _SECONDS[unit] for a, (_, unit) in zip(amounts, parts, strict=True))


def seconds_of_unit(column: str) -> float:
    """Of the unit in a column's name, as in Runtime (min) or duration_hours; 1 without one.

    A product, as 60*runtime_min, is of another unit than its factors.
    """
    if "*" in column:
        return 1.0
    bracketed = _BRACKETED.search(column)
    last = plain(column).split("_")[-1]
    unit = bracketed[1].lower() if bracketed else last if len(last) > 1 or last == "h" else ""
    return _SECONDS.get(unit, 1.0)


def may_be_version(column: str) -> bool:
    """Whether 2.1 and 2.10 differ in a column of that name."""
    return not {"version", "release", "tag"}.isdisjoint(plain(column).split("_"))


def differ_in_zeros(words: Iterable[str]) -> bool:
    """Whether some differ in trailing zeros alone, as 2.1 and 2.10 do; 2 and 2.0 are one number."""
    numbers = {word.strip() for word in words if _VERSION.fullmatch(word.strip())}
    short = [word.rstrip("0") for word in numbers if not word.endswith(".0")]
    return len(set(short)) < len(short)
