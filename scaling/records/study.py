"""A study and its trials."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scaling.records.trial import TrialRecord
from scaling.spec.study import StudySpec


@dataclass(frozen=True)
class StudyRecord:
    """A study and its trials, from MLflow or from a run that just ended.

    Attributes:
        environment: Versions, hardware, commit, content hash of the data, start and end; what
            is needed to run it again, as plain strings and numbers.
        trial_urls: Where each trial's MLflow run can be read, by trial_id.
        notes: What was found with the study and left out, in sentences.
    """

    spec: StudySpec
    trials: tuple[TrialRecord, ...]
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])
    trial_urls: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()
