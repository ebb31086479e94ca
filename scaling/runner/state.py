"""A study's state on disk: which study it is, and whether it may go on."""

import fcntl
import json
import os
import shutil
import uuid
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from scaling.issues import first_line
from scaling.own_files import no_follow, other_files, read_bounded, write_whole
from scaling.runner.mirror import Mirror, fetch, is_at, remove, require_ours_at
from scaling.runner.resumable import broken_state
from scaling.runner.state_folder import (
    FILES,
    FOLDERS,
    LOCK,
    MARK,
    MAX_STUDY_BYTES,
    StateError,
    mark,
    read_known,
    removal,
    require_state_folder,
)
from scaling.spec import StudySpec

__all__ = ["StateError", "StudyState", "require_startable"]


@dataclass(frozen=True)
class StudyState:
    """An opened state folder, which no other process can open meanwhile.

    Attributes:
        folder: Absolute path.
        study_id: The same when the study is resumed.
        is_new: Whether it was created here.
        lock: Held until this process ends or closes it.
        url: Where the state is kept besides `folder`, where the storage is a URL.
        made: Folders that were made for it, the innermost first.
    """

    folder: Path
    study_id: str
    is_new: bool
    lock: TextIO
    url: str | None = None
    made: tuple[Path, ...] = ()

    @classmethod
    def open(cls, spec: StudySpec, *, data_sha256: str) -> "StudyState":
        """Open a study's state folder, or create it.

        Args:
            spec: The study.
            data_sha256: Content hash of its data.

        Raises:
            StateError: If it cannot be written or holds other files, another process runs the
                study, or the data are not those it was started with.
        """
        file = _file(spec)
        shown = os.path.relpath(file.parent)
        require_state_folder(file.parent)
        made = tuple(folder for folder in file.parents if not folder.exists())
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            mark(file.parent)
            lock = _locked(file.parent / LOCK, shown)
        except OSError as error:
            raise StateError(f"storage: cannot write {shown}: {error.strerror}") from error
        try:
            if file.exists():
                known = _known(file)
                _require_same_data(known["data_sha256"], data_sha256, shown)
                return cls(file.parent, known["study_id"], False, lock, spec.storage_url)
            study_id = f"{spec.name}-{uuid.uuid4().hex[:12]}"
            content = {"study_id": study_id, "spec": _as_json(spec), "data_sha256": data_sha256}
            _write(file, content)
            return cls(file.parent, study_id, True, lock, spec.storage_url, made)
        except StateError:
            lock.close()
            raise
        except OSError as error:
            lock.close()
            raise StateError(f"storage: cannot write {shown}: {error.strerror}") from error

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

    @property
    def decided(self) -> dict[str, Any] | None:
        """What was decided for the whole study when it first ran; None before that."""
        return _known(self.folder / "study.json").get("decided")

    def decide(self, decided: dict[str, Any]) -> None:
        """Keep what was decided, for when the study is resumed."""
        file = self.folder / "study.json"
        _write(file, _known(file) | {"decided": decided})

    @property
    def has_trials(self) -> bool:
        """Whether some trial has ended, in this run or an earlier one."""
        trials = self.folder / "trials.jsonl"
        return trials.exists() and trials.stat().st_size > 0

    def discard_if_new(self) -> None:
        """Forget a study that was refused before its first trial ended.

        Raises:
            OSError: If its storage cannot be written.
        """
        if self.is_new and not self.has_trials:
            (self.folder / "study.json").unlink(missing_ok=True)
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


def require_startable(spec: StudySpec, *, resume: bool, command: str) -> None:
    """Check that a study may start or go on.

    Nothing is written, unless it goes on from a URL: then the folder is brought up to date.

    Args:
        spec: The study.
        resume: Go on with what its folder holds.
        command: The command line that started the study, for the message.

    Raises:
        StateError: If its storage or what is in it is not a study's or cannot be read, a study
            exists there and `resume` is not asked for, or it was started from another study file.
    """
    file = _file(spec)
    require_state_folder(file.parent)
    if spec.storage_url is not None:
        _bring(spec.storage_url, file.parent, resume=resume, command=command)
    if not file.exists():
        return
    if not resume:
        raise StateError(_exists_message(spec, file.parent, command))
    known = _known(file)
    _require_same(known["spec"], _as_json(spec), file.parent)
    broken = broken_state(file.parent)
    if broken is not None:
        raise StateError(broken)


def _bring(url: str, folder: Path, *, resume: bool, command: str) -> None:
    """Make the folder of a study whose storage is a URL what the URL holds."""
    try:
        require_ours_at(url)
        if resume:
            fetch(url, folder)
        if is_at(url) and not resume:
            raise StateError(
                f"a study already exists at {url}; nothing was touched.\n"
                f"  to go on with it, or to write its report again:  {command} --resume\n"
                "  to start afresh (its MLflow runs are kept):      give the study another name "
                "or storage"
            )
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise StateError(f"storage: cannot read {url}: {reason}") from error
    except ValueError as error:
        raise StateError(f"storage: {error}") from error


def _file(spec: StudySpec) -> Path:
    return Path(spec.storage_path).absolute() / "study.json"


def _locked(path: Path, shown: str) -> TextIO:
    lock = os.fdopen(no_follow(str(path), os.O_RDWR | os.O_CREAT), "r+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StateError(f"the study in {shown} is being run by another process") from None
    if not path.exists() or os.fstat(lock.fileno()).st_ino != path.stat().st_ino:
        lock.close()  # the other was refused just now, and has removed its lock
        return _locked(path, shown)
    return lock


def _known(file: Path) -> dict[str, Any]:
    """Raises StateError where it is not what a study writes."""
    try:
        return read_known(read_bounded(file, MAX_STUDY_BYTES))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise StateError(f"{os.path.relpath(file)}: {reason}") from error


def _write(file: Path, content: dict[str, Any]) -> None:
    write_whole(file, json.dumps(content, indent=2))


def _require_same_data(known: str, now: str, shown: str) -> None:
    if known != now:
        raise StateError(
            f"the data of the study in {shown} have changed since it was started (SHA-256 "
            f"{known[:12]}, now {now[:12]}); give the study another name"
        )


def _as_json(spec: StudySpec) -> dict[str, Any]:
    return json.loads(spec.model_dump_json())


def _exists_message(spec: StudySpec, folder: Path, command: str) -> str:
    trials = folder / "trials.jsonl"
    num_ended = len(trials.read_text(encoding="utf-8").splitlines()) if trials.exists() else 0
    shown = os.path.relpath(folder)
    return (
        f"study {spec.name} already exists in {shown}, with {num_ended} ended trials; "
        "nothing was touched.\n"
        f"  to go on with it, or to write its report again:  {command} --resume\n"
        "  to start afresh (its MLflow runs are kept):      give the study another name or "
        f"storage, or: {removal(folder)} && {command}"
    )


def _require_same(known: dict[str, Any], asked: dict[str, Any], folder: Path) -> None:
    before, now = _flat(known), _flat(asked)
    changed = [
        f"  {key}: was {json.dumps(before.get(key))}, is {json.dumps(now.get(key))}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if changed:
        raise StateError(
            f"the study in {os.path.relpath(folder)} was started from another study file; "
            "undo the change, or give the changed study another name:\n" + "\n".join(changed)
        )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted path; lists are leaves."""
    if not isinstance(value, dict):
        return {path: value}
    return {
        leaf: item
        for key, inner in value.items()
        for leaf, item in _flat(inner, f"{path}.{key}" if path else key).items()
    }
