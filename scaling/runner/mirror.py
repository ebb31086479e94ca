"""A copy of a study's state where it outlives this machine: the study's storage URL."""

import itertools
import logging
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from scaling.files.own import UNFINISHED, write_whole
from scaling.files.shown_error import first_line
from scaling.files.shown_path import shown_path
from scaling.files.url_errors import as_os_error
from scaling.records.ledger import TRIALS_FILE, whole_lines
from scaling.records.load import ENVIRONMENT_FILE
from scaling.runner.state_folder import MARK, MAX_STUDY_BYTES, STUDY, foreign, is_mark, read_known

# A trial that is in the journal of trials counts as ended, and so does a study whose environment
# says so: these are written last, and read before the others, which then have all they speak of.
_ENDS = (TRIALS_FILE, ENVIRONMENT_FILE)
_FILES = (
    MARK, STUDY, "optuna.journal", "mlflow_spool.jsonl", "mlflow_rejected.jsonl",
    "example_losses/*.parquet", *_ENDS,
)  # fmt: skip
_GROWING = (".jsonl", ".journal")  # their last line may be half written
EVERY_SECONDS = 5.0
_LOG = logging.getLogger(__name__)


class Mirror:
    """Copies what changes in a study's folder to a URL, from a thread of its own.

    While the URL cannot be written the study goes on, and the copy is tried again. A context
    manager: at its end everything is there.

    Args:
        folder: Of the study's state.
        url: Any that fsspec can write.
        every_seconds: Between two looks at what has changed.

    Raises:
        OSError: At the end of the context, if something could not be copied.
    """

    def __init__(self, folder: Path, url: str, *, every_seconds: float = EVERY_SECONDS) -> None:
        self._folder, self._url, self._every_seconds = folder, url, every_seconds
        self._fs, self._root = _at(url)
        self._copied: dict[str, tuple[int, int]] = {}
        self._ends = threading.Event()
        self._is_away = False
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def __enter__(self) -> "Mirror":
        self._thread.start()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._ends.set()
        self._thread.join()
        try:
            self.copy()
        except OSError as unwritten:
            if error is None:
                raise
            _LOG.error("the state in %s is not whole: %s", self._url, unwritten)

    def copy(self) -> None:
        """Copy what has changed since it was last copied.

        Raises:
            OSError: If the URL cannot be written.
        """
        ends = list(self._changed(reversed(_ENDS)))
        others = self._changed(pattern for pattern in _FILES if pattern not in _ENDS)
        for name, version, content in itertools.chain(others, reversed(ends)):
            self._write(name, content)
            self._copied[name] = version

    def _changed(self, patterns: Iterable[str]) -> Iterator[tuple[str, tuple[int, int], bytes]]:
        """Name, version and content of what is not copied yet, each read when it is asked for."""
        for path in (path for pattern in patterns for path in sorted(self._folder.glob(pattern))):
            name = path.relative_to(self._folder).as_posix()
            seen = path.stat()
            version = (seen.st_size, seen.st_mtime_ns)
            if self._copied.get(name) != version:
                yield name, version, _whole_lines(path)

    def _write(self, name: str, content: bytes) -> None:
        path = f"{self._root}/{name}"
        try:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            # A store of objects shows an object whole or not at all; of others this holds for mv.
            self._fs.pipe_file(f"{path}.part", content)
            self._fs.mv(f"{path}.part", path)
        except Exception as error:  # each file system has errors of its own
            raise OSError(None, first_line(error), f"{self._url}/{name}") from error

    def _run(self) -> None:
        while not self._ends.wait(self._every_seconds):
            try:
                self.copy()
            except OSError as error:
                if not self._is_away:
                    _LOG.warning("cannot write %s (%s); the study goes on", self._url, error)
                self._is_away = True
            else:
                self._is_away = False


def fetch(url: str, folder: Path) -> None:
    """Bring a study's folder up to date with its URL, where another machine went on with it.

    Raises:
        OSError: If the URL cannot be read.
        ValueError: If both have ended trials that the other has not, or are different studies.
    """
    fs, root = _at(url)
    study = _read(fs, f"{root}/{STUDY}")
    if not study:
        return
    there, here = _read(fs, f"{root}/{TRIALS_FILE}"), folder / TRIALS_FILE
    known = _whole_lines(here)  # a crash may have cut the last one off
    if (folder / STUDY).exists():
        is_same = _study_id(study) == _study_id((folder / STUDY).read_bytes())
        if not is_same or not (known.startswith(there) or there.startswith(known)):
            raise ValueError(
                f"{url} and {shown_path(folder)} hold different trials; remove one of them"
            )
        if known.startswith(there):
            return
    with as_os_error(url):
        paths: list[str] = [p for pattern in _FILES for p in fs.glob(f"{root}/{pattern}")]
    for path in paths:
        target = PurePosixPath(path.removeprefix(root).lstrip("/"))
        if target.is_absolute() or ".." in target.parts:
            raise ValueError(f"{url} holds a file called {path!a}")
        write_whole(folder / target, _read(fs, path))


def remove(url: str) -> None:
    """Remove what `Mirror` wrote to a URL.

    Raises:
        OSError: If it cannot be removed.
    """
    fs, root = _at(url)
    try:
        for path in [path for pattern in _FILES for path in fs.glob(f"{root}/{pattern}")]:
            if not path.endswith(MARK):
                fs.rm_file(path)
        if _names(fs, root) == [MARK]:  # else it says whose the rest is
            fs.rm_file(f"{root}/{MARK}")
    except Exception as error:  # each file system has errors of its own
        raise OSError(None, first_line(error), url) from error


def require_writable(url: str) -> None:
    """Write a small file to a URL and remove it, with the folders that were made for it.

    Raises:
        OSError: If that cannot be done.
    """
    try:
        fs, root = _at(url)
        made: list[str] = []
        folder = root
        while folder and not fs.exists(folder):
            made.append(folder)
            folder = folder.rpartition("/")[0]
        fs.makedirs(root, exist_ok=True)
        probe = f"{root}/{UNFINISHED}{uuid.uuid4().hex}"
        fs.pipe_file(probe, b"probe")
        fs.rm_file(probe)
        for folder in made:
            with suppress(OSError):  # a store of objects has no folders
                fs.rmdir(folder)
    except Exception as error:  # each file system has errors of its own
        raise OSError(None, first_line(error), url) from error


def require_ours_at(url: str) -> None:
    """Check that a URL may hold a study's state: nothing is there, or a study's state is.

    Raises:
        OSError: If the URL cannot be read.
        ValueError: If something else is there, in one line.
    """
    fs, root = _at(url)
    found = _names(fs, root)
    if not found:
        return
    if not is_mark(_read(fs, f"{root}/{MARK}", MAX_STUDY_BYTES)):
        raise ValueError(foreign(url, found))


def _at(url: str) -> tuple[Any, str]:
    """The file system that a URL is in, and the path there."""
    import fsspec  # here, since most studies have no URL

    return fsspec.core.url_to_fs(url)


def _names(fs: Any, root: str) -> list[str]:
    """What is directly at a URL; nothing where there is nothing."""
    try:
        with as_os_error(root):
            paths: list[str] = fs.ls(root, detail=False, refresh=True)
    except FileNotFoundError:
        return []
    folder = root.strip("/")
    names = [path.strip("/") for path in paths]
    found = (name.rsplit("/", 1)[-1] for name in names if name != folder)
    return sorted(name for name in found if not name.startswith(UNFINISHED))


def is_at(url: str) -> bool:
    """Whether a URL holds a study's state.

    Raises:
        OSError: If the URL cannot be read.
    """
    fs, root = _at(url)
    return bool(_read(fs, f"{root}/{STUDY}"))


def _read(fs: Any, path: str, max_bytes: int | None = None) -> bytes:
    try:
        with as_os_error(path):
            return fs.cat_file(path, start=0, end=max_bytes) if max_bytes else fs.cat_file(path)
    except FileNotFoundError:
        return b""


def _study_id(study: bytes) -> str:
    return read_known(study)["study_id"]


def _whole_lines(path: Path) -> bytes:
    if path.suffix in _GROWING:
        return b"".join(line + b"\n" for line in whole_lines(path))
    return path.read_bytes()
