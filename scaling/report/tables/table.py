"""A table of words, as templates and Markdown lay it out."""

from dataclasses import dataclass

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
