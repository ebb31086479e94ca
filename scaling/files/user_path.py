"""Paths that a user writes, on the command line or in Python."""

import os
from pathlib import Path


def user_path(text: str | Path) -> Path:
    """A path with a leading ~ or ~USER as the home folder it stands for; as it is without one."""
    return Path(os.path.expanduser(text))  # noqa: PTH111  # which raises where there is no such ~USER
