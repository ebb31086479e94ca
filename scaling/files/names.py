"""One name of a file for each name that comes from elsewhere: a study's, a column's, a trial's."""

# pyright: strict

import hashlib
import re
from typing import Final

MODELS: Final = "models"
"""Folder in a study's storage with a folder for each model that is kept."""

MAX_BYTES: Final = 200
"""Of a name made here; file systems take 255, so that any ending of ours fits as well."""

_NUM_DIGITS: Final = 12
_HARMLESS: Final = re.compile(r"\w[\w.+=,-]*")
_OTHERS: Final = re.compile(r"[^\w.+=,-]+")


def file_name(name: str) -> str:
    """A file's or folder's name that says what `name` says and leads nowhere else.

    Args:
        name: Any text, from a file, a table, MLflow or the command line.

    Returns:
        `name` itself where it begins with a letter, a digit or _, has only those and `.+=,-`,
        and has at most `MAX_BYTES` bytes. Else what is harmless of it, then ~ and 12 digits
        of the SHA-256 of `name`, so that distinct names stay distinct. It is never empty, `.`,
        or `..`, and never begins with a dot or a dash.
    """
    if _HARMLESS.fullmatch(name) and len(name.encode("utf-8", "surrogatepass")) <= MAX_BYTES:
        return name
    raw = name.encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(raw).hexdigest()[:_NUM_DIGITS]
    kept = _OTHERS.sub("_", name).lstrip(".-+=,")
    start = kept.encode()[: MAX_BYTES - _NUM_DIGITS - 1].decode(errors="ignore")
    return f"{start or '_'}~{digest}"
