"""A study and its trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from scaling.records.metrics import Metric, from_plain
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

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """What the task said of its metrics; empty where that is not known."""
        return from_plain(self.environment.get("metrics"))


def of_best_recipes(study: StudyRecord) -> StudyRecord:
    """The study without the replicates of recipes that are no longer the best of their cell.

    A study that is extended by search trials may come to another best recipe; what was repeated of
    the one before is named in a note, and never pooled with what is repeated of the new one.
    """
    left = left_over(study.trials, study.spec, study.metrics)
    trials = tuple(trial for trial in study.trials if trial not in left)
    return replace(study, trials=trials, notes=(*study.notes, *beaten_note(left)))


def beaten_note(left: Sequence[TrialRecord]) -> tuple[str, ...]:
    """The note on trials that are left out since their recipe was beaten; empty without any."""
    if not left:
        return ()
    names = ", ".join(trial.trial_id for trial in left[:3]) + (", …" if left[3:] else "")
    return (
        f"Left out: {len(left)} trial{'s' * (len(left) > 1)} of recipes that later search trials "
        f"have beaten: {names}.",
    )
