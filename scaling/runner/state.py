"""A study's state on disk: which study it is, and whether it may go on."""

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TextIO

from scaling.files.access import why_not_writable
from scaling.files.own import no_follow, other_files, remove_unfinished
from scaling.files.shown_error import first_line
from scaling.files.shown_path import shown_path
from scaling.records.ledger import TRIALS_FILE
from scaling.runner.mirror import Mirror, fetch, is_at, remove, require_ours_at, require_writable
from scaling.runner.recorded_study import RecordedStudy
from scaling.runner.resumable import broken_journal
from scaling.runner.state_folder import (
    FILES,
    FOLDERS,
    LOCK,
    MARK,
    STUDY,
    StateError,
    mark,
    removal,
    require_state_folder,
)
from scaling.space.rounds import Rounds
from scaling.spec.study import StudySpec


@dataclass
class StudyState:
    """An opened state folder, which no other process can open meanwhile.

    Attributes:
        recorded: What its study.json says.
        is_new: Whether it was created here.
        lock: Held until this process ends or closes it.
        url: Where the state is kept besides `folder`, where the storage is a URL.
        made: Folders that were made for it, the innermost first.
    """

    recorded: RecordedStudy
    is_new: bool
    lock: TextIO
    url: str | None = None
    made: tuple[Path, ...] = ()

    @classmethod
    def open(
        cls, spec: StudySpec, content: Mapping[str, str], code: Mapping[str, str]
    ) -> "StudyState":
        """Open a study's state folder, or create it.

        Args:
            spec: The study.
            content: SHA-256 of its data, and of each file that it reads: see `content_of`.
            code: The text of each Python file of the user's own that it imports.

        Raises:
            StateError: If it cannot be written or holds other files, another process runs the
                study, or it cannot go on with this study file, data or files.
        """
        folder = _folder(spec)
        shown = shown_path(folder)
        require_state_folder(folder)
        with _written(shown):
            made, lock = _entered(folder, shown)
            try:
                mark(folder)  # now: another start that was refused may just have removed it
                for place in (folder, *(folder / name for name in FOLDERS)):
                    remove_unfinished(place)
                recorded = RecordedStudy.read(folder)
                if recorded is not None:
                    recorded.require_same_content(content, code)
                    _require_goes_on(spec, recorded)
                    return cls(recorded, False, lock, spec.storage_url)
                study_id = f"{spec.name}-{uuid.uuid4().hex[:12]}"
                recorded = RecordedStudy.new(folder, spec, study_id, content, code)
                recorded.write()
                return cls(recorded, True, lock, spec.storage_url, made)
            except BaseException:
                lock.close()
                raise

    @classmethod
    def reopen(cls, spec: StudySpec) -> "StudyState":
        """Open the folder of a study that has ended, whatever its data are by now; see `open`."""
        recorded = RecordedStudy.read(_folder(spec))
        if recorded is None:
            raise StateError(f"there is no study in {shown_path(_folder(spec))}")
        state = cls.open(spec, recorded.content, recorded.code)
        state.go_on(spec)
        return state

    @property
    def folder(self) -> Path:
        """Absolute path."""
        return self.recorded.folder

    @property
    def study_id(self) -> str:
        """The same when the study is resumed."""
        return self.recorded.study_id

    def go_on(self, spec: StudySpec) -> None:
        """Record that the study has trials of this study file from here on.

        Raises:
            OSError: If it cannot be written.
        """
        self._write(self.recorded.gone_on(spec))

    @property
    def checkpoints(self) -> str:
        """Folder or URL with a folder of checkpoints for each trial."""
        return f"{self.url or self.folder}/checkpoints"

    def mirrored(self) -> AbstractContextManager[object]:
        """Keeps the storage URL, where there is one, up to date with the folder.

        Raises:
            OSError: At the end of the context, if the URL cannot be written.
        """
        return nullcontext() if self.url is None else Mirror(self.folder, self.url)

    def decide(self, decided: dict[str, Any]) -> None:
        """Keep what was decided for the whole study, for when it is resumed."""
        known = {**self.recorded.known, "decided": decided}
        self._write(RecordedStudy(self.folder, known))

    def keep_rounds(self, rounds: Rounds) -> None:
        """Keep what a search by the surface has proposed, for when it is resumed.

        Raises:
            OSError: If it cannot be written.
        """
        self._write(self.recorded.with_rounds(rounds))

    def _write(self, recorded: RecordedStudy) -> None:
        if recorded != self.recorded:
            recorded.write()
            self.recorded = recorded

    @property
    def has_begun(self) -> bool:
        """Whether some trial has started, in this run or an earlier one: see `Ledger.start`."""
        return (self.folder / TRIALS_FILE).exists()

    def discard_if_new(self) -> None:
        """Forget a study that was refused before its first trial started.

        Raises:
            OSError: If its storage cannot be written.
        """
        if self.is_new and not self.has_begun:
            (self.folder / STUDY).unlink(missing_ok=True)
            if self.url is not None:
                remove(self.url)
            for name in FOLDERS:
                shutil.rmtree(self.folder / name, ignore_errors=True)
            for name in FILES:
                if name != LOCK:
                    (self.folder / name).unlink(missing_ok=True)
            if set(other_files(self.folder)) <= {MARK, LOCK}:  # else it says whose the rest is
                (self.folder / MARK).unlink(missing_ok=True)
            (self.folder / LOCK).unlink(missing_ok=True)  # last: another may start now
            with suppress(OSError):  # something else is in it by now
                for folder in self.made:
                    folder.rmdir()


def resuming(command: str) -> str:
    """The command line, or the call from Python, that goes on with what one started."""
    if not command.endswith(")"):  # in a shell's words a ) stands within quotes
        return f"{command} --resume"
    return f"{command[:-1]}{'' if command.endswith('()') else ', '}resume=True)"


def require_startable(
    spec: StudySpec, *, resume: bool, command: str, only_looks: bool = False
) -> None:
    """Check that a study may start or go on.

    Nothing is written, unless it goes on from a URL: then the folder is brought up to date.

    Args:
        spec: The study.
        resume: Go on with what its folder holds.
        command: The command line, or the call from Python, that starts it; for the message.
        only_looks: Nothing is written in any case.

    Raises:
        StateError: If its storage or what is in it is not a study's or cannot be read, a study
            exists there and `resume` is not asked for, or it cannot go on with this study file or
            version.
    """
    folder = _folder(spec)
    require_state_folder(folder)
    if resume and only_looks:
        with looked_at(spec) as recorded:
            _require_goes_on(spec, recorded)
        return
    if spec.storage_url is not None:
        _bring(spec.storage_url, folder, resume=resume, command=command)
    recorded = RecordedStudy.read(folder)
    if recorded is not None and not resume:
        raise StateError(_exists_message(spec, recorded, command))
    _require_goes_on(spec, recorded)


@contextmanager
def looked_at(spec: StudySpec) -> Iterator[RecordedStudy | None]:
    """What is recorded of a study, for as long as the context lasts; None where there is none.

    Nothing is written: where the storage is a URL, what it holds is brought to a folder that is
    removed at the end.

    Raises:
        StateError: If it cannot be read, in one line.
    """
    if spec.storage_url is None:
        yield RecordedStudy.read(_folder(spec))
        return
    with TemporaryDirectory() as copied, _named_as(shown_path(_folder(spec)), shown_path(copied)):
        for name in (STUDY, TRIALS_FILE):
            if (_folder(spec) / name).exists():
                shutil.copy(_folder(spec) / name, copied)
        _bring(spec.storage_url, Path(copied), resume=True, command="")
        yield RecordedStudy.read(Path(copied))


@contextmanager
def _named_as(shown: str, copied: str) -> Iterator[None]:
    """Let errors name a folder in the place of its copy, which will be gone."""
    try:
        yield
    except StateError as error:
        raise StateError(str(error).replace(copied, shown)) from error


def _require_goes_on(spec: StudySpec, recorded: RecordedStudy | None) -> None:
    if recorded is None:
        return
    recorded.changes(spec)
    recorded.records()
    recorded.rounds()
    broken = broken_journal(recorded.folder / "optuna.journal")
    if broken is not None:
        raise StateError(broken)


def require_usable_storage(spec: StudySpec) -> None:
    """Check that a study's state can be written, and that no other process writes it.

    Nothing is left behind.

    Raises:
        StateError: If it cannot, or one does, or its folder holds what is not a study's.
    """
    folder = _folder(spec)
    if reason := why_not_writable(folder):
        raise StateError(f"storage: cannot write {shown_path(folder)}: {reason}")
    if spec.storage_url is not None:
        with _written(spec.storage_url):
            require_writable(spec.storage_url)
    require_state_folder(folder)
    if (folder / LOCK).is_file():
        with _written(shown_path(folder)):
            _locked(folder / LOCK, shown_path(folder)).close()


def require_same_content(
    spec: StudySpec, content: Mapping[str, str], code: Mapping[str, str]
) -> None:
    """Check that a study that goes on has the data, models and code it was started with.

    Raises:
        StateError: If it has not.
    """
    with looked_at(spec) as recorded:
        if recorded is not None:
            recorded.require_same_content(content, code)


def _bring(url: str, folder: Path, *, resume: bool, command: str) -> None:
    """Make the folder of a study whose storage is a URL what the URL holds."""
    try:
        require_ours_at(url)
        if resume:
            fetch(url, folder)
        elif is_at(url):
            raise StateError(
                f"a study already exists at {url}; nothing was touched.\n"
                f"  to go on with it, or to write its report again:  {resuming(command)}\n"
                "  to start afresh (its MLflow runs are kept):      give the study another name "
                "or storage"
            )
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise StateError(f"storage: cannot read {url}: {reason}") from error
    except ValueError as error:
        raise StateError(f"storage: {error}") from error


def _folder(spec: StudySpec) -> Path:
    return Path(spec.storage_path).absolute()


@contextmanager
def _written(shown: str) -> Iterator[None]:
    """Say of an error in the context that a folder or URL cannot be written."""
    try:
        yield
    except OSError as error:
        raise StateError(f"storage: cannot write {shown}: {error.strerror}") from error


def _entered(folder: Path, shown: str, *, tries: int = 2) -> tuple[tuple[Path, ...], TextIO]:
    """The folders that had to be made, the innermost first, and the lock."""
    made = tuple(path for path in (folder, *folder.parents) if not path.exists())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return made, _locked(folder / LOCK, shown)
    except FileNotFoundError:  # another start that was refused has removed the folder
        if tries == 1:
            raise
        return _entered(folder, shown, tries=tries - 1)


def _locked(path: Path, shown: str, *, tries: int = 2) -> TextIO:
    lock = os.fdopen(no_follow(str(path), os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        if tries > 1:  # `scaling status` holds a shared lock for a moment
            time.sleep(0.1)
            return _locked(path, shown, tries=tries - 1)
        raise StateError(f"the study in {shown} is being run by another process") from None
    if not path.exists() or os.fstat(lock.fileno()).st_ino != path.stat().st_ino:
        lock.close()  # the other was refused just now, and has removed its lock
        return _locked(path, shown)
    return lock


def _exists_message(spec: StudySpec, recorded: RecordedStudy, command: str) -> str:
    folder = recorded.folder
    try:
        trials = f"{len(recorded.records())} ended trials"
    except StateError:
        trials = f"a {TRIALS_FILE} that cannot be read"
    return (
        f"study {spec.name} already exists in {shown_path(folder)}, with {trials}; "
        "nothing was touched.\n"
        f"  to go on with it, or to write its report again:  {resuming(command)}\n"
        "  to start afresh (its MLflow runs are kept):      give the study another name or "
        f"storage, or: {removal(folder)} && {command}"
    )
