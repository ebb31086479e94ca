"""A path as messages and study files show it."""

import os
from pathlib import Path


def shown_path(path: Path | str) -> str:
    """From the working directory where it lies in there, else the whole path, never `../..`."""
    relative = os.path.relpath(path)
    outside = relative.partition(os.sep)[0] == os.pardir
    return os.path.normpath(Path(path).absolute()) if outside else relative
