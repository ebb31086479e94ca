"""Whether a folder or a URL may hold a study's state: empty, absent, or a study's already."""

import json
import os
import shlex
import stat
from pathlib import Path
from typing import Any

from scaling.files.json_text import parse_mapping
from scaling.files.names import MODELS
from scaling.files.own import listed, other_files, read_bounded, write_whole
from scaling.files.shown_path import shown_path
from scaling.records.ledger import TRIALS_FILE
from scaling.records.load import ENVIRONMENT_FILE

MARK = ".scaling-state.json"
STUDY = "study.json"
LOCK = "lock"
MAX_STUDY_BYTES = 4_000_000
FILES = (
    STUDY, LOCK, ENVIRONMENT_FILE, TRIALS_FILE, "optuna.journal", "mlflow_spool.jsonl",
    "mlflow_rejected.jsonl", "ray.log", "live.html",
)  # fmt: skip
FOLDERS = ("example_losses", "checkpoints", MODELS, "ray")
_FORMAT = {"format": "scaling-state", "version": 1}


class StateError(RuntimeError):
    """The study may not start here; the message says why and what to do."""


def require_state_folder(folder: Path) -> None:
    """Check that a folder may hold a study's state, without writing anything.

    It may be absent or empty, or hold the mark that `mark` writes; what we open in it must be no
    symbolic link.

    Raises:
        StateError: If it may not, in one line.
    """
    shown = shown_path(folder)
    try:
        found = other_files(folder)
        # A start that was refused and killed leaves its lock at worst.
        if found and not _is_lock(folder, found) and not is_mark(_read(folder / MARK)):
            raise StateError(f"storage: {foreign(shown, found)}")
        for name in found:
            mode = (folder / name).lstat().st_mode
            is_file = name in (*FILES, MARK)
            if (is_file and not stat.S_ISREG(mode)) or (name in FOLDERS and not stat.S_ISDIR(mode)):
                raise StateError(
                    f"storage: {shown}/{name} is not a {'file' if is_file else 'folder'} (links "
                    "are not followed); nothing was touched. Choose another storage, or move it "
                    "away"
                )
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StateError(f"storage: cannot read {shown}: {error.strerror}") from error


def mark(folder: Path) -> None:
    """Mark a folder as a study's state.

    Raises:
        OSError: If it cannot be written.
    """
    if not (folder / MARK).exists():
        write_whole(folder / MARK, json.dumps(_FORMAT) + "\n")


def foreign(place: str, found: list[str]) -> str:
    """Why a place is refused that holds what is not a study's."""
    return (
        f"{place} holds files that are not a study's ({listed(found)}); nothing was "
        "touched. Choose a storage that is empty or new"
    )


def is_mark(content: bytes) -> bool:
    """Whether a file's content is that of a mark of this version."""
    try:
        found = parse_mapping(content)
    except ValueError:
        return False
    return {name: found.get(name) for name in _FORMAT} == _FORMAT


def read_known(content: bytes) -> dict[str, Any]:
    """What study.json says.

    Raises:
        ValueError: If it is not one that a study writes, in one line.
    """
    known = parse_mapping(content, max_bytes=MAX_STUDY_BYTES)
    needed = {"study_id": str, "spec": dict, "given": dict, "cell_places": dict, "data_sha256": str}
    for key, kind in needed.items():
        if not isinstance(known.get(key), kind):
            raise ValueError(f"is not a study's: {key} is missing")
    for key in ("files", "code", "decided"):
        if not isinstance(known.get(key, {}), dict):
            raise ValueError(f"is not a study's: {key} is not a mapping")
    if not all(type(place) is int for place in known["cell_places"].values()):
        raise ValueError("is not a study's: cell_places are not whole numbers")
    if not isinstance(known.get("history", []), list):
        raise ValueError("is not a study's: history is not a list")
    return known


def removal(folder: Path) -> str:
    """A command that removes what a study wrote into its folder, and nothing else."""
    known = [name for name in (*FILES, *FOLDERS) if os.path.lexists(folder / name)]
    shown = shown_path(folder)
    return shlex.join(["rm", "-r", *(f"{shown}/{name}" for name in known)])


def _is_lock(folder: Path, found: list[str]) -> bool:
    status = (folder / LOCK).lstat() if found == [LOCK] else None
    return status is not None and stat.S_ISREG(status.st_mode) and status.st_size == 0


def _read(file: Path) -> bytes:
    try:
        return read_bounded(file, MAX_STUDY_BYTES)
    except (FileNotFoundError, ValueError):
        return b""
