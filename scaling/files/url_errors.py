"""Errors of file systems behind URLs, each of which has its own kinds, as those of files."""

# pyright: strict

from collections.abc import Generator
from contextlib import contextmanager

from scaling.files.shown_error import first_line


@contextmanager
def as_os_error(place: str) -> Generator[None]:
    """Raise as an OSError whatever else a file system raises in the context.

    Args:
        place: Folder or URL that it was used on.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each file system has kinds of its own
        raise OSError(None, first_line(error), place) from error
