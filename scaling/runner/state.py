"""A study's state on disk: which study it is, and whether it may go on."""

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from scaling.files.access import why_not_writable
from scaling.files.own import no_follow, other_files, read_bounded, write_whole
from scaling.records.ledger import read_records
from scaling.runner.mirror import Mirror, fetch, is_at, remove, require_ours_at, require_writable
from scaling.runner.resumable import broken_journal
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
from scaling.spec.issues import first_line
from scaling.spec.study import StudySpec
from scaling.tasks.content import DATA, what_changed

_FORMAT = 2
"""Of a study.json: from 2 on, `tokens` are input tokens; before, they were targets."""

__all__ = [
    "StateError",
    "StudyState",
    "require_same_content",
    "require_startable",
    "require_usable_storage",
]


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
    def open(
        cls, spec: StudySpec, *, data_sha256: str, files: Mapping[str, str] | None = None
    ) -> "StudyState":
        """Open a study's state folder, or create it.

        Args:
            spec: The study.
            data_sha256: Content hash of its data.
            files: SHA-256 of each file of the trained models and tokenizers that it reads.

        Raises:
            StateError: If it cannot be written or holds other files, another process runs the
                study, or the data or files are not those it was started with.
        """
        content = {DATA: data_sha256, **(files or {})}
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
                _require_same_content(_content(known), content, shown)
                read_records(file.parent / "trials.jsonl")
                return cls(file.parent, known["study_id"], False, lock, spec.storage_url)
            study_id = f"{spec.name}-{uuid.uuid4().hex[:12]}"
            started = {
                "format": _FORMAT,
                "study_id": study_id,
                "spec": _as_json(spec),
                "data_sha256": data_sha256,
            }
            _write(file, started | {"files": dict(files or {})})
            return cls(file.parent, study_id, True, lock, spec.storage_url, made)
        except (StateError, ValueError) as error:
            lock.close()
            raise StateError(str(error)) from error
        except OSError as error:
            lock.close()
            raise StateError(f"storage: cannot write {shown}: {error.strerror}") from error

    @property
    def content(self) -> dict[str, str]:
        """What the study was started on (see `scaling.tasks.content`)."""
        return _content(_known(self.folder / "study.json"))

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
    def has_begun(self) -> bool:
        """Whether some trial has started, in this run or an earlier one: see `Ledger.start`."""
        return (self.folder / "trials.jsonl").exists()

    def discard_if_new(self) -> None:
        """Forget a study that was refused before its first trial started.

        Raises:
            OSError: If its storage cannot be written.
        """
        if self.is_new and not self.has_begun:
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
            exists there and `resume` is not asked for, or it was started from another study file
            or by another version.
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
    _require_format(known.get("format"), spec, file.parent)
    _require_same(known["spec"], _as_json(spec), file.parent)
    try:
        read_records(file.parent / "trials.jsonl")
    except ValueError as error:
        raise StateError(str(error)) from error
    broken = broken_journal(file.parent / "optuna.journal")
    if broken is not None:
        raise StateError(broken)


def require_usable_storage(spec: StudySpec) -> None:
    """Check that a study's state can be written, and that no other process writes it.

    Nothing is left behind.

    Raises:
        StateError: If it cannot, or one does.
    """
    folder = _file(spec).parent
    if reason := why_not_writable(folder):
        raise StateError(f"storage: cannot write {os.path.relpath(folder)}: {reason}")
    if spec.storage_url is not None:
        try:
            require_writable(spec.storage_url)
        except OSError as error:
            raise StateError(
                f"storage: cannot write {spec.storage_url}: {error.strerror}"
            ) from error
    if (folder / "lock").is_file():
        _locked(folder / "lock", os.path.relpath(folder)).close()


def require_same_content(spec: StudySpec, data_sha256: str, files: Mapping[str, str]) -> None:
    """Check that a study that goes on has the data, models and tokenizers it was started with.

    Raises:
        StateError: If it has not.
    """
    file = _file(spec)
    if file.exists():
        now = {DATA: data_sha256, **files}
        _require_same_content(_content(_known(file)), now, os.path.relpath(file.parent))


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
    try:
        return read_known(read_bounded(file, MAX_STUDY_BYTES))
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise StateError(f"{os.path.relpath(file)}: {reason}") from error


def _write(file: Path, content: dict[str, Any]) -> None:
    write_whole(file, json.dumps(content, indent=2))


def _content(known: Mapping[str, Any]) -> dict[str, str]:
    return {DATA: known["data_sha256"], **known.get("files", {})}


def _require_same_content(known: Mapping[str, str], now: Mapping[str, str], shown: str) -> None:
    if known[DATA] != now[DATA]:
        raise StateError(
            f"the data of the study in {shown} have changed since it was started (SHA-256 "
            f"{known[DATA][:12]}, now {now[DATA][:12]}); put back what was there, or give the "
            "study another name"
        )
    changed = what_changed(known, now)
    if changed is not None:
        raise StateError(
            f"{changed} since the study in {shown} was started; put back what was there, or give "
            "the study another name"
        )


def _require_format(known: int | None, spec: StudySpec, folder: Path) -> None:
    if known != _FORMAT:
        raise StateError(
            f"the study in {os.path.relpath(folder)} was started by another version of scaling, "
            "which counted tokens in another way, so it cannot go on; for its report: "
            f"python -m scaling.report {spec.name}; to run it again, give it another name"
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
