"""A study and its trials, rebuilt from MLflow alone."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from scaling.issues import dotted, first_line
from scaling.json_text import is_shallow, parse_mapping
from scaling.own_files import read_bounded
from scaling.records import Measurement, StudyRecord, TrialRecord
from scaling.shown_url import shown_url
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
from scaling.yaml_text import parse_yaml

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

T = TypeVar("T")

_NUM_READERS = 8
_MAX_BYTES: Final = 2_000_000
"""Of a study file or a description of the environment: far above what a study writes."""


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
        reason = one_line(error)
        raise TrackingError(f"cannot read MLflow at {shown_url(uri)}: {reason}") from None


def _load(client: "MlflowClient", uri: str, name: str, study_id: str | None) -> StudyRecord:
    parent = _parent(client, uri, name, study_id)
    experiment_id, parent_id = parent.info.experiment_id, parent.info.run_id
    query = f"tags.`mlflow.parentRunId` = '{parent_id}'"
    found = search_all(client, experiment_id, query, ["attributes.start_time ASC"])
    children = [run for run in found if "record" in run.data.tags]
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        trials = tuple(readers.map(lambda run: _trial(client, run), children))
    return StudyRecord(
        spec=_artifact(client, parent_id, SPEC_FILE, _spec),
        trials=trials,
        environment=_artifact(client, parent_id, ENVIRONMENT_FILE, _environment),
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
        raise LookupError(f"no study {which} in MLflow at {shown_url(uri)}; {known}")
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
    try:
        record = TrialRecord.from_json(run.data.tags["record"])
        return record.extended(_measurements(client, run))
    except (ValueError, LookupError, TypeError, OverflowError) as error:
        reason = f"lacks {error}" if isinstance(error, LookupError) else first_line(error)
        raise TrackingError(f"MLflow's run {run.info.run_id}: its record {reason}") from None


def _measurements(client: "MlflowClient", run: "Run") -> list[Measurement]:
    """By rising step; of a step written twice, the first."""
    steps: dict[int, dict[str, float]] = {}
    for name in filter(is_measured, run.data.metrics):
        for metric in client.get_metric_history(run.info.run_id, name):
            steps.setdefault(metric.step, {"step": metric.step}).setdefault(name, metric.value)
    return [Measurement.from_scalars(scalars) for _, scalars in sorted(steps.items())]


def _artifact(client: "MlflowClient", run_id: str, name: str, read: Callable[[bytes], T]) -> T:
    """What a file of a run says.

    Raises:
        TrackingError: If it is larger than such files are, or not what a study writes.
    """
    where = f"MLflow's run {run_id}: {name}"
    for found in client.list_artifacts(run_id):
        if found.path == name and (found.file_size or 0) > _MAX_BYTES:
            raise TrackingError(f"{where} is larger than {_MAX_BYTES:,} bytes")
    with TemporaryDirectory() as folder:
        path = Path(client.download_artifacts(run_id, name, folder))
        try:
            return read(read_bounded(path, _MAX_BYTES))
        except (ValueError, TypeError) as error:
            raise TrackingError(f"{where}: {first_line(error)}") from None


def _spec(content: bytes) -> StudySpec:
    raw = parse_yaml(content.decode("utf-8"), source=SPEC_FILE)
    try:
        return StudySpec.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = dotted(first["loc"])
        raise ValueError(f"is not a study file of this version: {place}: {first['msg']}") from None


def _environment(content: bytes) -> dict[str, Any]:
    environment = parse_mapping(content)
    if not is_shallow(environment):
        raise ValueError("is nested too deeply")
    return environment
