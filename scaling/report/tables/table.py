"""A table of words, as templates and Markdown lay it out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from scaling.report.words.numbers import DASH

Rows = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Table:
    """A table of words.

    Attributes:
        links: Addresses of the first column, where there are any.
        title: What it shows, where it stands among figures.
        note: How to read it.
        remarks: What it shows, in sentences.
    """

    columns: tuple[str, ...]
    rows: Rows
    links: tuple[str | None, ...] = ()
    title: str = ""
    note: str = ""
    remarks: tuple[str, ...] = ()

    @classmethod
    def of_words(cls, rows: Iterable[Mapping[str, str]]) -> "Table":
        """Of rows by the same titles; columns that no row fills are left out."""
        columns: dict[str, list[str]] = {}
        for row in rows:
            for title, word in row.items():
                columns.setdefault(title, []).append(word)
        kept = {title: v for title, v in columns.items() if any(word != DASH for word in v)}
        return cls(tuple(kept), tuple(zip(*kept.values(), strict=True)))
