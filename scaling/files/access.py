"""Whether files can be written somewhere, seen without leaving anything there."""

import os
import tempfile
from pathlib import Path

from scaling.files.shown_path import shown_path


def why_not_writable(folder: Path) -> str | None:
    """What keeps a folder from being made, or a file in it from being written; None for nothing.

    A file without a name is written in the nearest folder that exists.
    """
    try:
        nearest = folder.absolute()
        missing: list[str] = []
        while not os.path.lexists(nearest):
            missing.append(nearest.name)
            nearest = nearest.parent
        if not nearest.is_dir():
            return f"{shown_path(nearest)} is not a folder"
        longest = max((len(os.fsencode(name)) for name in missing), default=0)
        if longest > os.pathconf(nearest, "PC_NAME_MAX"):
            return "File name too long"
        with tempfile.TemporaryFile(dir=nearest, buffering=0) as probe:
            probe.write(bytes(4096))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return getattr(error, "strerror", None) or str(error)
    return None
