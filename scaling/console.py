"""How commands print: texts of a user's own as they are."""

from typing import TextIO

from rich.console import Console


def plain_console(*, width: int = 110, file: TextIO | None = None) -> Console:
    """Where a command prints, without markup or highlights: a question may hold brackets."""
    is_terminal = file is None and Console().is_terminal
    return Console(width=None if is_terminal else width, file=file, markup=False, highlight=False)


def duration(seconds: float) -> str:
    """A duration in minutes or hours."""
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
