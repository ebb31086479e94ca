"""A study and its trials."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from scaling.records.outcome import left_over
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


def of_best_recipes(study: StudyRecord) -> StudyRecord:
    """The study without the replicates of recipes that are no longer the best of their cell.

    A study that is extended by search trials may come to another best recipe; what was repeated of
    the one before is named in a note, and never pooled with what is repeated of the new one.
    """
    left = [trial.trial_id for trial in left_over(study.trials, study.spec)]
    if not left:
        return study
    names = ", ".join(left[:3]) + (", …" if left[3:] else "")
    note = (
        f"Left out: {len(left)} trial{'s' * (len(left) > 1)} of recipes that later search trials "
        f"have beaten: {names}."
    )
    trials = tuple(trial for trial in study.trials if trial.trial_id not in left)
    return replace(study, trials=trials, notes=(*study.notes, note))
