"""What a place that is told of a study's runs is told, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from scaling.records.ledger import Observer
from scaling.spec.study import StudySpec

StudyStatus = Literal["done", "failed", "interrupted", "refused"]
"""How a study ended; `refused` before its first trial, as if it had never been started."""


class TrackingError(RuntimeError):
    """A place could not be opened, or something could not be written to it."""


class UnsentError(TrackingError):
    """What happened is on disk, and the place has not, or not all of it."""


@dataclass(frozen=True)
class StudyStart:
    """The study that starts or goes on.

    Attributes:
        study_id: The same when the study is resumed, another when it is started afresh.
        folder: Of the study's state, which exists.
        environment: Versions, hardware, commit and the like: plain strings and numbers.
    """

    spec: StudySpec
    study_id: str
    folder: Path
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class StudyEnd:
    """How a study ended.

    Attributes:
        status: Of the study as a whole.
        answer: The report's first paragraph.
        report_dir: Folder of the report, where there is one.
        environment: Replaces the one given at the start.
        numbers: What the study found, by name, with `_low` and `_high` for 90% intervals.
    """

    status: StudyStatus
    answer: str = ""
    report_dir: Path | None = None
    environment: Mapping[str, Any] | None = None
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])


class Sink(Observer, Protocol):
    """A place that is told of a study's runs: of each trial's start, measurements and end.

    It is opened with a `StudyStart`, and raises TrackingError where it cannot take a study. A
    study that goes on tells it the end of every trial again that had ended before: what is there
    already must not be there twice. No method may wait for a network, the last one excepted.
    """

    def study_ended(self, end: StudyEnd) -> None:
        """The study ended; nothing is told after it.

        Raises:
            UnsentError: If the place has not taken everything.
        """
