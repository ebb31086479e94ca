"""What a state folder says of its study: which one it is, as what it ran, and what has ended."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from scaling.files.own import read_bounded, write_whole
from scaling.files.shown_path import shown_path
from scaling.records.ledger import TRIALS_FILE, read_records
from scaling.records.trial import TrialRecord
from scaling.runner.state_folder import MAX_STUDY_BYTES, STUDY, StateError, read_known
from scaling.space.cells import cell_places
from scaling.space.rounds import PREDICTED, Rounds
from scaling.spec.changes import Change, RecordedSpecError, changes, recorded_spec
from scaling.spec.study import StudySpec
from scaling.tasks.content import DATA, code_difference, what_changed

_FORMAT = 3
"""Of a study.json: a study with one of another format does not go on."""


@dataclass(frozen=True)
class RecordedStudy:
    """A study.json as it was read; nothing here is written but by `write`.

    Attributes:
        folder: Of the study's state.
        known: The file's content.
    """

    folder: Path
    known: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "RecordedStudy | None":
        """What a folder says; None where it holds no study.

        Raises:
            StateError: If its study.json is not one that a study writes, in one line.
        """
        file = folder / STUDY
        if not file.exists():
            return None
        try:
            return cls(folder, read_known(read_bounded(file, MAX_STUDY_BYTES)))
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise StateError(f"{shown_path(file)}: {reason}") from error

    @classmethod
    def new(
        cls,
        folder: Path,
        spec: StudySpec,
        study_id: str,
        content: Mapping[str, str],
        code: Mapping[str, str],
    ) -> "RecordedStudy":
        """Of a study that starts."""
        files = {name: digest for name, digest in content.items() if name != DATA}
        known = {"study_id": study_id, **_said(spec), "cell_places": cell_places(spec, {})}
        known |= {"data_sha256": content[DATA], "files": files}
        return cls(folder, known | ({"code": dict(code)} if code else {}))

    @property
    def study_id(self) -> str:
        """The same when the study is resumed, moved or extended."""
        return self.known["study_id"]

    @property
    def content(self) -> dict[str, str]:
        """What the study was started on (see `scaling.tasks.content`)."""
        return {DATA: self.known["data_sha256"], **self.known.get("files", {})}

    @property
    def code(self) -> dict[str, str]:
        """The text of each Python file of the user's own that the study was started with."""
        return self.known.get("code", {})

    @property
    def decided(self) -> dict[str, Any] | None:
        """What was decided for the whole study when it first ran; None before that."""
        return self.known.get("decided")

    def rounds(self) -> Rounds | None:
        """What a search by the surface has proposed, and what it came to.

        None before its first round, or without one.

        Raises:
            StateError: If it is not what a study writes, in one line.
        """
        try:
            rounds = TypeAdapter(Rounds | None).validate_python(self.known.get("rounds"))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise self._not_rounds(".".join(map(str, first["loc"])), first["msg"]) from None
        if rounds is not None:
            proposed = [trial.cell for trials in rounds.proposed for trial in trials]
            end = rounds.end
            recipes = [r.cell for r in (*end.recipes, *end.for_target)] if end else []
            for where, cell in [("proposed", c) for c in proposed] + [("end", c) for c in recipes]:
                if cell != PREDICTED and cell not in self.known["cell_places"]:
                    raise self._not_rounds(where, f"there is no cell {cell}")
        return rounds

    def _not_rounds(self, where: str, why: str) -> StateError:
        file = shown_path(self.folder / STUDY)
        return StateError(f"{file}: is not a study's: {f'rounds.{where}'.strip('.')}: {why}")

    def with_rounds(self, rounds: Rounds) -> "RecordedStudy":
        """The same study with what its search has proposed."""
        return RecordedStudy(self.folder, {**self.known, "rounds": to_jsonable_python(rounds)})

    def spec(self) -> StudySpec:
        """The study file that the study last ran with, in today's terms.

        Raises:
            StateError: If this version cannot go on with it, in one line.
        """
        shown = shown_path(self.folder)
        other = f"the study in {shown} was started by another version of scaling"
        last = "to run it again, give it another name"
        if self.known.get("format") != _FORMAT:
            raise StateError(
                f"{other}, which wrote study.json otherwise, so it cannot go on; for its "
                f"report: python -m scaling.report {self.known['spec'].get('name')}; {last}"
            )
        try:
            return recorded_spec(self.known["spec"], self.known["given"])
        except RecordedSpecError as error:
            raise StateError(f"{other} and cannot go on: {error}; {last}") from error

    def changes(self, spec: StudySpec) -> tuple[Change, ...]:
        """What a study file says otherwise than the study's last one did.

        Raises:
            StateError: If the study cannot go on so; one line for each field.
        """
        found = changes(self.spec(), spec)
        refused = [f"  {change}" for change in found if change.refusal]
        if refused:
            raise StateError(
                f"the study in {shown_path(self.folder)} was started from another study file; "
                "undo the change, or give the changed study another name:\n" + "\n".join(refused)
            )
        return found

    def cell_places(self, spec: StudySpec) -> dict[str, int]:
        """The place of each cell of a study file, by name; those that there were keep theirs."""
        return cell_places(spec, self.known["cell_places"])

    def gone_on(self, spec: StudySpec) -> "RecordedStudy":
        """The same study with the study file that it goes on with, and what it changed.

        Raises:
            StateError: As `changes`.
        """
        now = {**self.known, **_said(spec), "cell_places": self.cell_places(spec)}
        if found := self.changes(spec):
            paths = {c.path: {"was": c.was, "is": c.now} for c in found}
            at = datetime.now(UTC).isoformat(timespec="seconds")
            entry = {"at": at, "changes": to_jsonable_python(paths)}
            now["history"] = [*self.known.get("history", ()), entry]
        return RecordedStudy(self.folder, now)

    def write(self) -> None:
        """Write it to its folder.

        Raises:
            StateError: If it would be larger than what is read.
            OSError: If it cannot be written.
        """
        content = json.dumps(self.known, indent=2, ensure_ascii=False)
        if (size := len(content.encode(errors="backslashreplace"))) > MAX_STUDY_BYTES:
            raise StateError(
                f"{shown_path(self.folder / STUDY)} would have {size:,} bytes, and may have "
                f"{MAX_STUDY_BYTES:,}; import fewer files of your own, or list fewer values"
            )
        write_whole(self.folder / STUDY, content, durable=True)

    def records(self) -> dict[str, TrialRecord]:
        """The trials that have ended, by trial_id.

        Raises:
            StateError: If they cannot be read, in one line.
        """
        try:
            return read_records(self.folder / TRIALS_FILE)
        except ValueError as error:
            raise StateError(str(error)) from error
        except OSError as error:
            file = shown_path(self.folder / TRIALS_FILE)
            raise StateError(f"{file}: {error.strerror}") from error

    def require_same_content(self, now: Mapping[str, str], code: Mapping[str, str]) -> None:
        """Check that the study has the data, models, tokenizers and code it was started with.

        Raises:
            StateError: If it has not; changed code is shown line by line.
        """
        known, shown = self.content, shown_path(self.folder)
        if difference := code_difference(self.code, code):
            raise StateError(
                f"the code of the study in {shown} has changed since it was started; put back what "
                f"was there, or give the study another name:\n{difference}"
            )
        if known[DATA] != now[DATA]:
            raise StateError(
                f"the data of the study in {shown} have changed since it was started (SHA-256 "
                f"{known[DATA][:12]}, now {now[DATA][:12]}); put back what was there, or give the "
                "study another name"
            )
        changed = what_changed(known, now)
        if changed is not None:
            raise StateError(
                f"{changed} since the study in {shown} was started; put back what was there, or "
                "give the study another name"
            )


def _said(spec: StudySpec) -> dict[str, Any]:
    """A study file as it is recorded: all that it means, and what is not at its default."""
    return {
        "format": _FORMAT,
        "spec": spec.model_dump(mode="json"),
        "given": spec.model_dump(mode="json", exclude_defaults=True),
    }
