"""How a study is asked to start, and whether its places may take it.

Nothing here starts anything, leaves anything behind, or loads torch or Ray: a study that has ended
needs no more than this.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from scaling.files.access import why_not_writable
from scaling.files.own import ForeignFolderError, require_report_folder
from scaling.files.shown_path import shown_path
from scaling.plan.machine import num_gpus_for
from scaling.records.load import read_environment
from scaling.runner.preflight import StartError, starts_here
from scaling.runner.recorded_study import RecordedStudy
from scaling.runner.state import require_startable, require_usable_storage
from scaling.runner.state_folder import StateError
from scaling.sinks import TrackingError, require_reachable_store, resolve_tracking_uri
from scaling.sinks.mlflow.store import sqlite_path
from scaling.space.branches import BranchError
from scaling.spec.study import StudySpec
from scaling.tasks.errors import DataError

REFUSALS = (DataError, BranchError, StateError, StartError, TrackingError, ForeignFolderError)
"""What the checks raise; the text is for the user."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # a path has one slash of two


@dataclass(frozen=True)
class Start:
    """How a study is asked to start.

    Attributes:
        spec: The study.
        command: The command line, without --resume, or the call from Python; for messages.
        output: Folder of the report.
        resume: Whether it goes on with what its storage holds.
        address: Of a Ray cluster, where one is given.
        is_plan: Whether only its plan is asked for, so that nothing may be written.
    """

    spec: StudySpec
    command: str
    output: Path
    resume: bool = False
    address: str | None = None
    is_plan: bool = False

    def with_gpus(self) -> StudySpec:
        """The study on this machine's GPUs; as it is where it joins a cluster."""
        if not starts_here(self.address):
            return self.spec
        return self.spec.with_gpus(num_gpus_for(self.spec))


def require_places(start: Start) -> None:
    """Check where a study is kept: its storage, its report's folder and MLflow.

    Raises:
        StateError: If the study exists and is not resumed, or its storage cannot be written.
        StartError: If the report's folder cannot be written, or is a URL.
        ForeignFolderError: If the report's folder holds what is not a report's.
        TrackingError: If MLflow's store cannot be used.
    """
    require_usable_storage(start.spec)
    require_startable(
        start.spec, resume=start.resume, command=start.command, only_looks=start.is_plan
    )
    _require_apart(start)
    if _URL.match(str(start.output)):
        raise StartError(
            f"--output: {start.output} is a URL; name a folder on this machine: MLflow gets the "
            "report, too"
        )
    if reason := why_not_writable(start.output):
        raise StartError(f"--output: cannot write {start.output}: {reason}")
    require_report_folder(start.output)
    require_reachable_store()


def has_ended(start: Start) -> bool:
    """Whether all trials of a study that is resumed, as it is asked for, have ended well."""
    recorded = RecordedStudy.read(Path(start.spec.storage_path).absolute())
    if recorded is None or "ended" not in (environment := read_environment(recorded.folder)):
        return False
    # Another target has other recipes, of which no change but this one tells.
    for change in recorded.changes(start.spec):
        is_of_target = change.path.partition(".")[0] == "target"
        if change.may_add_trials or (is_of_target and start.spec.confirms_target):
            return False
    records = recorded.records()
    is_whole = len(records) >= environment.get("num_trials_ended", 0)
    return is_whole and all(trial.status != "failed" for trial in records.values())


def _require_apart(start: Start) -> None:
    """Check that nothing of the study lies in the report's folder, which is the report's alone."""
    output = os.path.realpath(start.output)  # its links and .. aside
    for what, place in (
        ("storage", Path(start.spec.storage_path)),
        ("MLflow's database", sqlite_path(resolve_tracking_uri())),
    ):
        if place is not None and Path(os.path.realpath(place)).is_relative_to(output):
            raise StartError(
                f"--output: {start.output} would hold the study's {what}, {shown_path(place)};"
                " name a folder for the report alone"
            )
