"""Whether what was run is what MLflow has."""

from collections.abc import Sequence

from scaling.records.study import StudyRecord
from scaling.records.trial import TrialRecord


def missing_from(study: StudyRecord, trials: Sequence[TrialRecord]) -> list[str]:
    """Which trials a loaded study lacks, or holds otherwise than they were.

    Args:
        study: As `load_study` returned it.
        trials: What was run, as the study's own process knows it.

    Returns:
        The trial_ids, in the order of `trials`, of those that are not in the study, or are there
        with another status or without a number that was measured. Values are not compared: of a
        trial that ran again from its beginning MLflow keeps what a step measured first.
    """
    loaded = {trial.trial_id: trial for trial in study.trials}
    return [
        trial.trial_id
        for trial in trials
        if trial.trial_id not in loaded or _content(trial) != _content(loaded[trial.trial_id])
    ]


def _content(trial: TrialRecord) -> tuple[str, dict[int, set[str]]]:
    return trial.status, {m.step: set(m.scalars()) for m in trial.measurements}
