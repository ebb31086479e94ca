"""Errors of file systems behind URLs, each of which has its own kinds, as those of files."""

# pyright: strict

from collections.abc import Generator
from contextlib import contextmanager


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
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or repr(error)
        raise OSError(None, reason, place) from error
