"""A study and its trials, rebuilt from MLflow alone."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import yaml

from scaling.records import Measurement, StudyRecord, TrialRecord
from scaling.spec import StudySpec
from scaling.tracking.runs import ENVIRONMENT_FILE, SPEC_FILE
from scaling.tracking.store import (
    TrackingError,
    one_line,
    open_client,
    resolve_tracking_uri,
    run_url,
    search_all,
    sqlite_path,
    store_errors,
    tried_again,
)
from scaling.tracking.trial_run import is_measured

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

_NUM_READERS = 8


def load_study(
    name: str, tracking_uri: str | None = None, *, study_id: str | None = None
) -> StudyRecord:
    """Rebuild a study and its trials from MLflow alone.

    Args:
        name: Of the study.
        tracking_uri: See `resolve_tracking_uri`.
        study_id: Which one, where it was started afresh several times; the latest where None.

    Returns:
        The study as it was recorded, trials in the order in which they were started.

    Raises:
        LookupError: If there is no such study, in one line that names the ones there are.
        TrackingError: If the store cannot be read.
    """
    uri = resolve_tracking_uri(tracking_uri)
    database = sqlite_path(uri)
    if database is not None and not database.exists():
        raise LookupError(f"no study {name!r}: there is no MLflow database at {database}")
    try:
        client = tried_again(uri, lambda: open_client(uri))
        return tried_again(uri, lambda: _load(client, uri, name, study_id))
    except store_errors() as error:
        raise TrackingError(f"cannot read MLflow at {uri}: {one_line(error)}") from error


def _load(client: "MlflowClient", uri: str, name: str, study_id: str | None) -> StudyRecord:
    parent = _parent(client, uri, name, study_id)
    experiment_id, parent_id = parent.info.experiment_id, parent.info.run_id
    query = f"tags.`mlflow.parentRunId` = '{parent_id}'"
    found = search_all(client, experiment_id, query, ["attributes.start_time ASC"])
    children = [run for run in found if "record" in run.data.tags]
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        trials = tuple(readers.map(lambda run: _trial(client, run), children))
    return StudyRecord(
        spec=StudySpec.model_validate(yaml.safe_load(_artifact(client, parent_id, SPEC_FILE))),
        trials=trials,
        environment=json.loads(_artifact(client, parent_id, ENVIRONMENT_FILE)),
        trial_urls={
            trial.trial_id: run_url(uri, experiment_id, run.info.run_id)
            for trial, run in zip(trials, children, strict=True)
        },
    )


def _parent(client: "MlflowClient", uri: str, name: str, study_id: str | None) -> "Run":
    experiment = client.get_experiment_by_name(name)
    found = [] if experiment is None else _latest_parent(client, experiment, study_id)
    if not found:
        others = sorted(e.name for e in client.search_experiments() if _latest_parent(client, e))
        known = f"it has {', '.join(others)}" if others else "it has no studies"
        which = repr(name) if study_id is None else f"{name!r} with study_id {study_id!r}"
        raise LookupError(f"no study {which} in MLflow at {uri}; {known}")
    return found[0]


def _latest_parent(
    client: "MlflowClient", experiment: "Experiment", study_id: str | None = None
) -> list["Run"]:
    """The latest study recorded in an experiment, as a list of one or none."""
    query = "tags.role = 'study'" + (f" and tags.study_id = '{study_id}'" if study_id else "")
    return client.search_runs(
        [experiment.experiment_id],
        query,
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )


def _trial(client: "MlflowClient", run: "Run") -> TrialRecord:
    record = TrialRecord.from_json(run.data.tags["record"])
    return record.extended(_measurements(client, run))


def _measurements(client: "MlflowClient", run: "Run") -> list[Measurement]:
    """By rising step; of a step written twice, the first."""
    steps: dict[int, dict[str, float]] = {}
    for name in filter(is_measured, run.data.metrics):
        for metric in client.get_metric_history(run.info.run_id, name):
            steps.setdefault(metric.step, {"step": metric.step}).setdefault(name, metric.value)
    return [Measurement.from_scalars(scalars) for _, scalars in sorted(steps.items())]


def _artifact(client: "MlflowClient", run_id: str, name: str) -> str:
    with TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")
