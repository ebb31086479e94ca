"""Where the trials of a report come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from scaling.records.study import StudyRecord
from scaling.report.words.numbers import counted

_MLFLOW_UI = "http://127.0.0.1:5000/"  # where `mlflow ui` answers unless it is told otherwise


@dataclass(frozen=True)
class Setting:
    """Where the trials come from.

    Attributes:
        study_file: The study as YAML; empty for a table from elsewhere.
        environment: Versions, hardware, commit and the like.
        urls: Where each trial can be read, by trial_id.
        notes: What else a reader must know.
    """

    study_file: str = ""
    environment: Mapping[str, Any] | None = None
    urls: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


def setting_of(study: StudyRecord) -> Setting:
    """The setting of a recorded study."""
    given = study.spec.model_dump(mode="json", exclude_unset=True)
    text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True, default_flow_style=None)
    unfinished = sum(trial.status == "running" for trial in study.trials)
    waived: list[str] = study.environment.get("exactness_waived", [])
    notes = (*study.notes, *study.environment.get("training_notes", ()))
    notes += tuple(f"Exactness is waived: {reason}." for reason in waived)
    if unfinished:
        notes += (f"Left out: {counted(unfinished, 'trial')} that had not ended.",)
    urls = {
        trial: _MLFLOW_UI + url if url.startswith("#") else url
        for trial, url in study.trial_urls.items()
    }
    if urls != study.trial_urls:
        notes += (f"Links to runs need `mlflow ui` with the study's store, at {_MLFLOW_UI}.",)
    environment = {n: v for n, v in study.environment.items() if n != "metrics"}  # they're terms
    return Setting(text, environment, urls, notes)
