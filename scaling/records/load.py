"""A study as its own folder has it: the trials that ended, and what they ran with."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling.files.json_text import parse_mapping
from scaling.files.own import write_whole
from scaling.records.ledger import TRIALS_FILE, read_records
from scaling.records.study import StudyRecord, of_best_recipes
from scaling.spec.study import StudySpec

ENVIRONMENT_FILE = "environment.json"


def load_folder(
    folder: Path, spec: StudySpec, trial_urls: Mapping[str, str] | None = None
) -> StudyRecord:
    """A study and the trials that have ended, by trial_id.

    Raises:
        ValueError: If a line of `trials.jsonl` is not a trial's record.
        OSError: If a file cannot be read.
    """
    trials = tuple(trial for _, trial in sorted(read_records(folder / TRIALS_FILE).items()))
    return of_best_recipes(StudyRecord(spec, trials, read_environment(folder), trial_urls or {}))


def read_environment(folder: Path) -> dict[str, Any]:
    """What the study of a folder ran with; empty where that is not known."""
    try:
        return parse_mapping((folder / ENVIRONMENT_FILE).read_bytes())
    except (OSError, ValueError):
        return {}


def write_environment(folder: Path, environment: Mapping[str, Any]) -> None:
    """Keep what the study of a folder runs with.

    Raises:
        OSError: If it cannot be written.
        ValueError: If it holds NaN or infinity.
    """
    write_whole(folder / ENVIRONMENT_FILE, environment_json(environment))


def environment_json(environment: Mapping[str, Any]) -> str:
    """An environment as its file has it, the same wherever it is kept."""
    return json.dumps(dict(environment), indent=2, sort_keys=True, allow_nan=False)
