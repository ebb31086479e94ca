"""A study and its trials, rebuilt from MLflow alone."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final, TypeVar

from scaling.files.json_text import is_shallow, parse_mapping
from scaling.files.own import read_bounded
from scaling.files.shown_url import shown_url
from scaling.records.load import ENVIRONMENT_FILE
from scaling.records.measurement import Measurement
from scaling.records.study import StudyRecord, of_best_recipes
from scaling.records.trial import TrialRecord
from scaling.sinks.base import TrackingError
from scaling.sinks.mlflow.runs import SPEC_FILE
from scaling.sinks.mlflow.store import (
    artifact_errors,
    one_line,
    open_client,
    resolve_tracking_uri,
    run_url,
    search_all,
    sqlite_path,
    store_errors,
    tried_again,
)
from scaling.sinks.mlflow.trial_run import is_measured
from scaling.spec.study import StudySpec
from scaling.spec.yaml_text import parse_yaml

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
        The study as it was recorded, trials by trial_id.

    Raises:
        LookupError: If there is no such study, in one line that names the ones there are.
        TrackingError: If the store cannot be read, or what it holds of the study is not what a
            study writes.
    """
    return _read(name, tracking_uri, lambda client, uri: _load(client, uri, name, study_id))


def _read(name: str, tracking_uri: str | None, read: Callable[["MlflowClient", str], T]) -> T:
    uri = resolve_tracking_uri(tracking_uri)
    database = sqlite_path(uri)
    if database is not None and not database.exists():
        raise LookupError(f"no study {name!r}: there is no MLflow database at {database}")
    try:
        client = tried_again(uri, lambda: open_client(uri))
        return tried_again(uri, lambda: read(client, uri))
    except store_errors() as error:
        reason = one_line(error)
        raise TrackingError(f"cannot read MLflow at {shown_url(uri)}: {reason}") from None


@dataclass(frozen=True)
class Namesake:
    """A study among those of one name in one store.

    Attributes:
        folder: Of its state when it last ran; empty where that was not recorded.
        started: When it was first started, in local time.
        num_trials: Trials that MLflow knows of it.
    """

    study_id: str
    folder: str
    started: str
    num_trials: int


def namesakes(name: str, tracking_uri: str | None = None) -> list[Namesake]:
    """The studies of one name, the one that was started last first.

    Raises:
        LookupError: If there is no such study.
        TrackingError: If the store cannot be read.
    """
    return _read(name, tracking_uri, lambda client, _: _namesakes(client, name))


def _namesakes(client: "MlflowClient", name: str) -> list[Namesake]:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return []
    search = partial(search_all, client, experiment.experiment_id)
    found: list[Namesake] = []
    for run in search("tags.role = 'study'", ["attributes.start_time DESC"]):
        started = datetime.fromtimestamp(run.info.start_time / 1000)
        children = search(f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
        num_trials = sum("record" in child.data.tags for child in children)
        study_id, folder = run.data.tags["study_id"], run.data.tags.get("folder", "")
        found.append(Namesake(study_id, folder, f"{started:%Y-%m-%d %H:%M}", num_trials))
    return found


def _load(client: "MlflowClient", uri: str, name: str, study_id: str | None) -> StudyRecord:
    parent = _parent(client, uri, name, study_id)
    experiment_id, parent_id = parent.info.experiment_id, parent.info.run_id
    query = f"tags.`mlflow.parentRunId` = '{parent_id}'"
    found = list(search_all(client, experiment_id, query, ["attributes.start_time ASC"]))
    others = [run for run in found if "record" not in run.data.tags]
    children = [run for run in found if "record" in run.data.tags]
    children.sort(key=lambda run: run.data.tags.get("trial_id", ""))
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        read = list(readers.map(lambda run: _trial(client, run), children))
    trials = tuple(trial for trial, _ in read)
    environment = _environment(client, parent_id)
    if "targets_per_example" in environment and "tokens_per_example" not in environment:
        trials = tuple(map(_renamed, trials))
    study = StudyRecord(
        spec=_spec(client, parent_id),
        trials=trials,
        environment=environment,
        trial_urls={
            trial.trial_id: run_url(uri, experiment_id, run.info.run_id)
            for trial, run in zip(trials, children, strict=True)
        },
        notes=(*_other_runs(others), *_other_metrics([names for _, names in read])),
    )
    return of_best_recipes(study)


@contextmanager
def _read_of(run_id: str, otherwise: str) -> Iterator[None]:
    """What a run holds, or why it is not what a study writes, as a TrackingError."""
    try:
        yield
    except ValueError as error:
        raise TrackingError(f"MLflow run {run_id}: {otherwise}: {one_line(error)}") from None


def _spec(client: "MlflowClient", parent_id: str) -> StudySpec:
    with _read_of(parent_id, f"artifact {SPEC_FILE} is not a study file"):
        text = _artifact(client, parent_id, SPEC_FILE)
        return StudySpec.model_validate(parse_yaml(text, source=SPEC_FILE))


def _environment(client: "MlflowClient", parent_id: str) -> dict[str, Any]:
    with _read_of(parent_id, f"artifact {ENVIRONMENT_FILE} is not a JSON object"):
        environment = parse_mapping(_artifact(client, parent_id, ENVIRONMENT_FILE))
        if not is_shallow(environment):
            raise ValueError("is nested too deeply")
        return environment


def _other_runs(runs: Sequence["Run"]) -> list[str]:
    """Runs that someone put under the study, of which the study has no record."""
    if not runs:
        return []
    runs_ = "run" if len(runs) == 1 else "runs"
    names = ", ".join(str(run.info.run_name) for run in runs[:3]) + (", …" if runs[3:] else "")
    return [f"Left out: {len(runs):,} {runs_} in MLflow that the study did not make: {names}."]


def _other_metrics(names: Sequence[set[str]]) -> list[str]:
    """Metrics at steps at which the study measured nothing."""
    found = sorted(set().union(*names))
    if not found:
        return []
    shown = ", ".join(found[:3]) + (", …" if found[3:] else "")
    count = sum(map(bool, names))
    trials = "1 trial" if count == 1 else f"{count:,} trials"
    return [f"Left out: metrics of {trials} at steps that the study did not measure: {shown}."]


def _parent(client: "MlflowClient", uri: str, name: str, study_id: str | None) -> "Run":
    experiment = client.get_experiment_by_name(name)
    found = [] if experiment is None else latest_parent(client, experiment, study_id)
    if not found:
        others = sorted(e.name for e in client.search_experiments() if latest_parent(client, e))
        known = f"it has {', '.join(others)}" if others else "it has no studies"
        which = repr(name) if study_id is None else f"{name!r} with study_id {study_id!r}"
        raise LookupError(f"no study {which} in MLflow at {shown_url(uri)}; {known}")
    return found[0]


def latest_parent(
    client: "MlflowClient", experiment: "Experiment", study_id: str | None = None
) -> list["Run"]:
    """The latest study recorded in an experiment, as a list of one or none."""
    query = "tags.role = 'study'" + (f" and tags.study_id = '{study_id}'" if study_id else "")
    return client.search_runs(
        [experiment.experiment_id], query, max_results=1, order_by=["attributes.start_time DESC"]
    )


def _trial(client: "MlflowClient", run: "Run") -> tuple[TrialRecord, set[str]]:
    """The trial of a run, and the names of metrics that were left out of it."""
    with _read_of(run.info.run_id, "tag `record` is not a trial's"):
        record = TrialRecord.from_json(run.data.tags["record"])
    measurements, left_out = _measurements(client, run)
    return record.extended(measurements), left_out


def _measurements(client: "MlflowClient", run: "Run") -> tuple[list[Measurement], set[str]]:
    """By rising step; of a step written twice, the first.

    Every measurement has examples and seconds. A step without them is of something else that
    logs to the run, as MLflow's own system metrics do; so is a value that is not finite.
    """
    steps: dict[int, dict[str, float]] = {}
    for name in filter(is_measured, run.data.metrics):
        for metric in client.get_metric_history(run.info.run_id, name):
            if math.isfinite(metric.value):
                steps.setdefault(metric.step, {"step": metric.step}).setdefault(name, metric.value)
    ours = {step: s for step, s in steps.items() if s.keys() >= {"examples", "seconds"}}
    left_out = {name for step, s in steps.items() if step not in ours for name in s} - {"step"}
    return [Measurement.from_scalars(scalars) for _, scalars in sorted(ours.items())], left_out


def _renamed(trial: TrialRecord) -> TrialRecord:
    """A trial recorded when targets were called tokens and input tokens were not counted."""
    measurements = tuple(
        replace(m, tokens=None, targets=m.tokens, tokens_per_second=None,
                targets_per_second=m.tokens_per_second)
        for m in trial.measurements
    )  # fmt: skip
    return replace(trial, measurements=measurements)


def _artifact(client: "MlflowClient", run_id: str, name: str) -> str:
    """The text of a file of a run, unless it is larger than such files are."""
    with artifact_errors():
        listed = client.list_artifacts(run_id)
    if any(found.path == name and (found.file_size or 0) > _MAX_BYTES for found in listed):
        raise ValueError(f"is larger than {_MAX_BYTES:,} bytes")
    with TemporaryDirectory() as folder:
        with artifact_errors():
            path = Path(client.download_artifacts(run_id, name, folder))
        return read_bounded(path, _MAX_BYTES).decode("utf-8")
