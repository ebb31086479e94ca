"""A study's state on disk: which study it is, and whether it may go on."""

import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling.spec import StudySpec


class StateError(RuntimeError):
    """The study may not start here; the message says why and what to do."""


@dataclass(frozen=True)
class StudyState:
    """An opened state folder.

    Attributes:
        folder: Absolute path.
        study_id: The same when the study is resumed.
    """

    folder: Path
    study_id: str

    @classmethod
    def open(cls, spec: StudySpec) -> "StudyState":
        """Open a study's state folder, or create it.

        Raises:
            StateError: If it cannot be written.
        """
        file = _file(spec)
        if file.exists():
            return cls(file.parent, json.loads(file.read_text(encoding="utf-8"))["study_id"])
        state = cls(file.parent, f"{spec.name}-{uuid.uuid4().hex[:12]}")
        content = {"study_id": state.study_id, "spec": _as_json(spec)}
        try:
            state.folder.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".part")
            partial.write_text(json.dumps(content, indent=2), encoding="utf-8")
            partial.replace(file)
        except OSError as error:
            shown = os.path.relpath(state.folder)
            raise StateError(f"storage: cannot write {shown}: {error.strerror}") from error
        return state


def require_startable(spec: StudySpec, *, resume: bool, command: str) -> None:
    """Check that a study may start or go on; nothing is written.

    Args:
        spec: The study.
        resume: Go on with what its folder holds.
        command: The command line that started the study, for the message.

    Raises:
        StateError: If the folder holds a study and `resume` is not asked for, or it was started
            from another study file.
    """
    file = _file(spec)
    if not file.exists():
        return
    if not resume:
        raise StateError(_exists_message(spec, file.parent, command))
    known = json.loads(file.read_text(encoding="utf-8"))
    _require_same(known["spec"], _as_json(spec), file.parent)


def _file(spec: StudySpec) -> Path:
    return Path(spec.storage_path).absolute() / "study.json"


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
        f"  to start afresh (its MLflow runs are kept):      rm -r {shown} && {command}"
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
