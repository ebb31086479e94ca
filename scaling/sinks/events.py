"""What happens in a study, as it is told to MLflow, and its form as one line of JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from scaling.files.json_text import parse_mapping
from scaling.records.measurement import Measurement
from scaling.records.trial import TrialRecord
from scaling.sinks.base import StudyEnd


@dataclass(frozen=True)
class TrialStarted:
    """A trial begins, or goes on; times here are in milliseconds since 1970."""

    at_ms: int
    record: TrialRecord

    @property
    def trial_id(self) -> str:
        """Of the record."""
        return self.record.trial_id


@dataclass(frozen=True)
class TrialMeasured:
    """Measurements of a running trial."""

    at_ms: int
    trial_id: str
    measurements: tuple[Measurement, ...]


@dataclass(frozen=True)
class TrialEnded:
    """A trial's whole record."""

    at_ms: int
    record: TrialRecord

    @property
    def trial_id(self) -> str:
        """Of the record."""
        return self.record.trial_id


@dataclass(frozen=True)
class StudyEnded:
    """The study ended."""

    at_ms: int
    end: StudyEnd


TrialEvent = TrialStarted | TrialMeasured | TrialEnded
Event = TrialEvent | StudyEnded


def to_line(study_id: str, event: Event) -> str:
    """One line of JSON, exact for every finite float; what is not finite is left out.

    Raises:
        ValueError: If the recipe, the choices or the environment hold NaN or infinity.
    """
    match event:
        case TrialStarted(record=record):
            raw = {"event": "trial_started", "trial": _trial(replace(record, measurements=()))}
        case TrialMeasured(trial_id=trial_id, measurements=measurements):
            scalars = [m.scalars() for m in measurements]
            raw = {"event": "trial_measured", "trial_id": trial_id, "measurements": scalars}
        case TrialEnded(record=record):
            raw = {"event": "trial_ended", "trial": _trial(record)}
        case StudyEnded(end=end):
            report_dir = end.report_dir and str(end.report_dir)
            raw = {"event": "study_ended", **asdict(end), "report_dir": report_dir}
    return json.dumps({"study_id": study_id, "at_ms": event.at_ms, **raw}, allow_nan=False)


def from_line(line: str) -> tuple[str, Event]:
    """The inverse of `to_line`: study_id and event.

    Raises:
        ValueError: If the line is not one that `to_line` writes.
    """
    try:
        raw = parse_mapping(line)
        return raw["study_id"], _event(raw)
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not an event: {line[:100]!r}") from error


def _event(raw: Mapping[str, Any]) -> Event:
    at_ms = raw["at_ms"]
    match raw["event"]:
        case "trial_started":
            return TrialStarted(at_ms, _record(raw["trial"]))
        case "trial_measured":
            return TrialMeasured(at_ms, raw["trial_id"], _measurements(raw["measurements"]))
        case "trial_ended":
            return TrialEnded(at_ms, _record(raw["trial"]))
        case "study_ended":
            told = {f.name: raw[f.name] for f in fields(StudyEnd)}
            told["report_dir"] = told["report_dir"] and Path(told["report_dir"])
            return StudyEnded(at_ms, StudyEnd(**told))
        case unknown:
            raise ValueError(f"unknown event {unknown!r}")


def _trial(record: TrialRecord) -> dict[str, Any]:
    bare = asdict(replace(record, measurements=()))
    return bare | {"measurements": [m.scalars() for m in record.measurements]}


def _record(raw: Mapping[str, Any]) -> TrialRecord:
    bare = TrialRecord.from_json(json.dumps({**raw, "measurements": []}))
    return replace(bare, measurements=_measurements(raw["measurements"]))


def _measurements(raw: list[dict[str, float]]) -> tuple[Measurement, ...]:
    return tuple(Measurement.from_scalars(scalars) for scalars in raw)
