"""Lines that a plan prints."""

from rich.console import Console


def print_line(console: Console, line: str) -> None:
    """Print a line as it is, without markup."""
    console.print(line, markup=False, highlight=False)


def duration(seconds: float) -> str:
    """A duration in minutes or hours."""
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
