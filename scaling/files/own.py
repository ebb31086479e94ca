"""Files of our own: marked folders, links that are never followed, files replaced whole.

A report's folder is ours when its mark says so: `.scaling-report.json`, with the list of the
files that we wrote. Only those are replaced or deleted; whatever else is there stays.
"""

# pyright: strict

import json
import os
import secrets
import stat
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, Final, cast

from scaling.files.json_text import parse_mapping

REPORT_MARK: Final = ".scaling-report.json"
REPORT_FILES: Final = ("report.html", "report.md", "summary.json", "trials.parquet")
FIGURES: Final = "figures"

_FORMAT: Final = "scaling-report"
_VERSION: Final = 1
UNFINISHED: Final = ".scaling-unfinished-"
_MAX_MARK_BYTES: Final = 4_000_000
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY


class ForeignFolderError(RuntimeError):
    """A folder holds what we did not write; one line that says what, and the way on."""


def no_follow(path: str, flags: int) -> int:
    """An `opener` for `open` that refuses a symbolic link as the last part of the path."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def write_whole(path: Path, content: str | bytes, *, durable: bool = False) -> None:
    """Write a file whole or not at all; a symbolic link of its name is replaced, not followed.

    Args:
        path: Of the file.
        content: All of it.
        durable: Return only when the disk has it, in case the machine stops.

    Raises:
        OSError: If it cannot be written.
    """
    with _errors_name(path), _opened(path.parent, create=True) as folder:
        _write(folder, path.name, content, durable=durable)


def remove_unfinished(folder: Path) -> None:
    """Remove what writes that were cut off have left in a folder that nobody else writes into."""
    for path in folder.glob(f"{UNFINISHED}*.part"):
        with suppress(OSError):
            path.unlink()


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """A regular file's content.

    Raises:
        OSError: If it cannot be read, or is a symbolic link.
        ValueError: If it is no regular file, or larger than `max_bytes`.
    """
    with os.fdopen(os.open(path, _READ), "rb") as file:
        return _bounded(file.fileno(), max_bytes)


def require_report_folder(folder: Path) -> None:
    """Check that a report may be written into a folder: absent, empty, or marked as ours.

    Raises:
        ForeignFolderError: If it may not, or cannot be read.
    """
    try:
        with _opened(folder) as root:
            _files_of_ours(root, folder, REPORT_FILES)
    except FileNotFoundError:
        return
    except ForeignFolderError as error:
        raise ForeignFolderError(f"--output: {error}") from None
    except OSError as error:
        raise ForeignFolderError(f"--output: {folder}: {error.strerror}") from error


def write_report_files(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Replace the files of the report in a folder by others.

    All are written before the first one takes its place. The mark comes first, and lists old and
    new files until all have theirs: a report that was cut off is written anew by the next one.

    Args:
        folder: Absent, empty, or marked as ours.
        contents: By name relative to the folder, at most one folder deep.

    Raises:
        ForeignFolderError: If the folder, or a file of a name in `contents`, is not ours.
        OSError: If it cannot be written; it names the folder.
    """
    with _errors_name(folder), _opened(folder, create=True) as root:
        known = _files_of_ours(root, folder, contents)
        _write(root, REPORT_MARK, _mark(known | contents.keys()))
        with ExitStack() as stack:
            places: list[tuple[int, str, str]] = []
            for name, content in contents.items():
                inner, last = stack.enter_context(_folder_of(root, name, create=True))
                unfinished = _write_unfinished(inner, content)
                stack.callback(_discard, inner, unfinished)
                places.append((inner, unfinished, last))
            for inner, unfinished, last in places:
                os.replace(unfinished, last, src_dir_fd=inner, dst_dir_fd=inner)
        for name in known - contents.keys():
            with (
                suppress(FileNotFoundError, IsADirectoryError),
                _folder_of(root, name) as (inner, last),
            ):
                os.unlink(last, dir_fd=inner)
        _write(root, REPORT_MARK, _mark(contents))


def report_files(folder: Path) -> list[str]:
    """Names of a report's files, its mark included, as its mark lists them; those that exist.

    Raises:
        ForeignFolderError: If the folder holds no report of ours.
        OSError: If it cannot be read.
    """
    with _opened(folder) as root:
        known = _read_mark(root, folder)
        if known is None:
            raise ForeignFolderError(f"{folder} holds no report")
        return [n for n in (REPORT_MARK, *sorted(known)) if _is_file(root, n)]


def _files_of_ours(root: int, folder: Path, names: Iterable[str]) -> set[str]:
    """The files that the mark lists; none of `names` is another's."""
    known = _read_mark(root, folder)
    if known is None:
        if found := other_files(root):
            raise ForeignFolderError(
                f"{folder} holds files that are not a report's ({listed(found)}); nothing was "
                "touched. Name another folder, or move them away"
            )
        known = set[str]()
    figures = _lstat(root, FIGURES)
    if figures is not None and not stat.S_ISDIR(figures.st_mode):
        raise ForeignFolderError(
            f"{folder / FIGURES} is not a folder (links are not followed); nothing was touched. "
            "Name another folder, or move it away"
        )
    for name in sorted(set(names) - known):
        if _lstat(root, name) is not None:
            raise ForeignFolderError(
                f"{folder / name} is not a report's; nothing was touched. Name another folder, "
                "or move it away"
            )
    return known


def other_files(folder: int | Path) -> list[str]:
    """What is in a folder besides what a write that was cut off has left."""
    names = os.listdir(folder)  # noqa: PTH208 -- may be an open folder
    return sorted(name for name in names if not name.startswith(UNFINISHED))


def listed(names: Collection[str]) -> str:
    """The first names of a folder, to be shown."""
    shown = ", ".join(ascii(name)[1:-1] for name in sorted(names)[:3])
    return f"{shown} …" if len(names) > 3 else shown


def _mark(names: Iterable[str]) -> str:
    content = {"format": _FORMAT, "version": _VERSION, "files": sorted(names)}
    return json.dumps(content, indent=1) + "\n"


def _read_mark(root: int, folder: Path) -> set[str] | None:
    """What the mark lists; None where there is none."""
    if _lstat(root, REPORT_MARK) is None:
        return None
    try:
        file = os.open(REPORT_MARK, _READ, dir_fd=root)
        with os.fdopen(file, "rb"):
            return _listed(parse_mapping(_bounded(file, _MAX_MARK_BYTES)))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ForeignFolderError(
            f"{folder / REPORT_MARK} is not a report's mark ({reason}); nothing was touched. "
            "Name another folder"
        ) from error


def _listed(mark: Mapping[str, Any]) -> set[str]:
    if mark.get("format") != _FORMAT or mark.get("version") != _VERSION:
        raise ValueError(f"must be of format {_FORMAT}, version {_VERSION}")
    files = mark.get("files")
    if not isinstance(files, list):
        raise ValueError("files must be a list")
    names = cast("list[object]", files)
    for name in names:
        if not isinstance(name, str) or not _is_inside(name):
            raise ValueError(f"{ascii(name)[:80]} is not the name of a report's file")
    return cast("set[str]", set(names))


def _is_inside(name: str) -> bool:
    """Whether a name is that of a file in the folder or in its folder of figures."""
    parts = PurePosixPath(name).parts
    if "\0" in name or "/".join(parts) != name or not parts:
        return False
    if parts[-1] in (".", "..", REPORT_MARK):
        return False
    return len(parts) == 1 or (len(parts) == 2 and parts[0] == FIGURES)


@contextmanager
def _errors_name(path: Path) -> Generator[None]:
    """Let an OSError name what is written, instead of an unfinished file that is gone."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def _opened(folder: Path, *, create: bool = False) -> Generator[int]:
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    opened = os.open(folder, _FOLDER)
    try:
        yield opened
    finally:
        os.close(opened)


@contextmanager
def _folder_of(root: int, name: str, *, create: bool = False) -> Generator[tuple[int, str]]:
    """The open folder that a file is in, which is not behind a link, and the file's last name."""
    first, slash, last = name.partition("/")
    if not slash:
        yield root, name
        return
    if create:
        with suppress(FileExistsError):
            os.mkdir(first, dir_fd=root)
    inner = os.open(first, _FOLDER | os.O_NOFOLLOW, dir_fd=root)
    try:
        yield inner, last
    finally:
        os.close(inner)


def _write(folder: int, name: str, content: str | bytes, *, durable: bool = False) -> None:
    unfinished = _write_unfinished(folder, content, durable=durable)
    try:
        os.replace(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _discard(folder, unfinished)
        raise
    if durable:
        with suppress(OSError):  # some network file systems cannot, for folders
            os.fsync(folder)


def _write_unfinished(folder: int, content: str | bytes, *, durable: bool = False) -> str:
    """Write a file under a name that is nobody's; returns the name."""
    unfinished = f"{UNFINISHED}{secrets.token_hex(8)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    file = os.open(unfinished, flags, 0o666, dir_fd=folder)
    try:
        with os.fdopen(file, "wb") as opened:
            # Lone surrogates, which a table may hold, have no bytes of their own.
            is_text = isinstance(content, str)
            opened.write(content.encode(errors="backslashreplace") if is_text else content)
            if durable:
                opened.flush()
                os.fsync(file)
    except BaseException:
        _discard(folder, unfinished)
        raise
    return unfinished


def _discard(folder: int, name: str) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _bounded(file: int, max_bytes: int) -> bytes:
    if not stat.S_ISREG(os.fstat(file).st_mode):
        raise ValueError("is not a regular file")
    chunks: list[bytes] = []
    size = 0
    while chunk := os.read(file, 1 << 20):
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise ValueError(f"is larger than {max_bytes:,} bytes")
    return b"".join(chunks)


def _lstat(root: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=root, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_file(root: int, name: str) -> bool:
    with suppress(OSError), _folder_of(root, name) as (inner, last):
        found = _lstat(inner, last)
        return found is not None and stat.S_ISREG(found.st_mode)
    return False
