"""MLflow, written by one thread and read back whole: what is not in MLflow did not happen.

A study is one parent run, a trial is one child run. The child's params, tags and metrics are for
people and for MLflow's own views; its tag `record` and its metric histories hold the same
`TrialRecord` exactly, and the parent's artifacts hold the spec and the environment, so that
`load_study` needs nothing but the store. This is the only module that imports mlflow (2-4 s, so
inside the functions that use it).
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import yaml

from scaling.records import Measurement, StudyRecord, TrialRecord, crossing
from scaling.spec import StudySpec

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Metric, Run

StudyStatus = Literal["done", "failed", "interrupted"]

BY_EXAMPLES = "by_examples/"
LOSSES = ("train_loss", "validation_loss", "test_loss")
SUMMARY_METRICS = (
    "best_validation_loss",
    "generalization_gap",
    "steps_to_target",
    "examples_to_target",
    "seconds_to_target",
)

_SPEC_FILE = "study.yaml"
_ENVIRONMENT_FILE = "environment.json"
_MAX_METRICS_PER_CALL = 1000
_MAX_TAG_LENGTH = 8000
_LINGER_SECONDS = 0.5
_NUM_READERS = 8

_LOG = logging.getLogger(__name__)


class TrackingError(RuntimeError):
    """MLflow could not be opened, or something could not be written to it."""


# --- where --------------------------------------------------------------------------------------


def resolve_tracking_uri(tracking_uri: str | None = None) -> str:
    """Where MLflow keeps its runs, valid from every working directory.

    Args:
        tracking_uri: An MLflow tracking URI; where None, `MLFLOW_TRACKING_URI`, and where that
            is unset, `sqlite:///mlflow.db` in the working directory.

    Returns:
        The URI, a sqlite path made absolute.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = _sqlite_path(uri)
    return uri if database is None else f"sqlite:///{database}"


def _sqlite_path(uri: str) -> Path | None:
    """The absolute path of a sqlite store's file; None for every other store."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)).absolute() if uri.startswith(prefix) else None


def _run_url(uri: str, experiment_id: str, run_id: str) -> str:
    """Address of a run: whole for a server, else what follows the address of `mlflow ui`."""
    server = uri.rstrip("/") + "/" if uri.startswith(("http://", "https://")) else ""
    return f"{server}#/experiments/{experiment_id}/runs/{run_id}"


def _open_client(uri: str) -> "MlflowClient":
    """A client whose logs and progress bars are quiet below warnings; creates the schema.

    A server that cannot be reached is given up after about 15 s, not MLflow's four minutes.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(uri)


def _store_errors() -> tuple[type[Exception], ...]:
    """What a store raises when it cannot be reached, read or written."""
    from mlflow.exceptions import MlflowException

    return (MlflowException, OSError)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500]


# --- what a trial looks like in MLflow ------------------------------------------------------------


def cell_label(cell: Mapping[str, Any]) -> str:
    """A cell as a readable tag, as in `global_batch_size=64`; `all` without scientific axes."""
    return ", ".join(f"{name}={_text(value)}" for name, value in cell.items()) or "all"


def trial_name(record: TrialRecord) -> str:
    """The name of a trial's run, as in `search B=64 lr=1.2e-3`."""
    recipe = record.recipe
    words: list[str] = [record.phase, *([record.rule] if record.rule else [])]
    others = {n: v for n, v in record.cell.items() if n not in ("global_batch_size", "peak_lr")}
    words += [f"{name}={_text(value)}" for name, value in others.items()]
    words += [f"B={recipe.global_batch_size}", f"lr={_short(recipe.peak_lr)}"]
    return " ".join(words if record.phase == "search" else [*words, f"seed={recipe.seed}"])


def _short(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _text(value: object) -> str:
    """A value as MLflow shows it: strings as they are, floats exact, None as `null`."""
    return value if isinstance(value, str) else json.dumps(value)


def _params(record: TrialRecord) -> dict[str, str]:
    """The recipe, and cell and choices under their vocabulary names."""
    values = {**record.cell, **record.choices, **asdict(record.recipe)}
    return {name: _text(value) for name, value in values.items()}


def _tags(record: TrialRecord) -> dict[str, str]:
    tags = {
        "cell": cell_label(record.cell),
        "phase": record.phase,
        "status": record.status,
        "record": _record_tag(record),
    }
    return tags if record.rule is None else {**tags, "rule": record.rule}


def _record_tag(record: TrialRecord) -> str:
    """All of a record but its measurements; a very long error is cut to what a tag holds."""
    bare = replace(record, measurements=())
    excess = len(bare.to_json()) - _MAX_TAG_LENGTH
    if excess > 0 and bare.error:
        bare = replace(bare, error=bare.error[: max(0, len(bare.error) - excess)])
    return bare.to_json()


def _summary(record: TrialRecord, spec: StudySpec) -> dict[str, float]:
    """The numbers that MLflow's comparison views plot; those that do not exist are left out."""
    values = {
        "best_validation_loss": record.best_validation_loss,
        "generalization_gap": _generalization_gap(record),
    }
    reached = crossing(record.measurements, spec.target) if spec.target else None
    if reached is not None:
        values |= {f"{name}_to_target": value for name, value in asdict(reached).items()}
    return {name: float(value) for name, value in values.items() if value is not None}


def _generalization_gap(record: TrialRecord) -> float | None:
    """Held-out loss minus train loss at the end: on test in confirm, on validation elsewhere."""
    final = record.final
    if final is None or final.train_loss is None:
        return None
    held_out = final.test_loss if record.phase == "confirm" else final.validation_loss
    return None if held_out is None else held_out - final.train_loss


def _metrics(at_ms: int, measurement: Measurement) -> list["Metric"]:
    """A measurement by step, and its losses again by examples seen."""
    from mlflow.entities import Metric

    scalars = measurement.scalars()
    by_step = [
        Metric(name, value, at_ms, measurement.step)
        for name, value in scalars.items()
        if name != "step"
    ]
    by_examples = [
        Metric(BY_EXAMPLES + name, scalars[name], at_ms, measurement.examples)
        for name in LOSSES
        if name in scalars
    ]
    return by_step + by_examples


def _require_free_names(measurements: Iterable[Measurement]) -> None:
    for measurement in measurements:
        taken = [n for n in measurement.metrics if not _is_measured(n)]
        if taken:
            raise ValueError(f"metric name {taken[0]!r} is reserved for what MLflow derives")


def _is_measured(name: str) -> bool:
    return name not in SUMMARY_METRICS and not name.startswith(BY_EXAMPLES)


# --- writing ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Point:
    """A measurement and when it was made, in milliseconds since 1970."""

    at_ms: int
    measurement: Measurement


class _StudyRuns:
    """One study's runs in one store, written synchronously.

    Every method may be called again with the same arguments, after an error or in a resumed
    study: runs are found by their tags, and a step that is there is not written twice.
    """

    def __init__(
        self, client: "MlflowClient", uri: str, spec: StudySpec, study_id: str, at_ms: int
    ) -> None:
        self._client = client
        self._spec = spec
        self._experiment_id = _experiment_id(client, uri, spec.name)
        self._begun: dict[str, tuple[int, TrialRecord]] = {}
        self._run_ids: dict[str, str] = {}  # of the trials that have not ended
        self._logged_steps: dict[str, set[int]] = {}
        tags = {"study": spec.name, "study_id": study_id, "role": "study"}
        self.parent_id = self._continued_run({"study_id": study_id, "role": "study"}) or (
            self._new_run(spec.name, at_ms, tags)
        )
        self.url = _run_url(uri, self._experiment_id, self.parent_id)

    def describe(self, environment: Mapping[str, Any]) -> None:
        """Write the spec, the environment and the question to the parent."""
        run_id = self.parent_id
        self._client.log_text(run_id, spec_to_yaml(self._spec), _SPEC_FILE)
        self._client.log_text(run_id, _to_json(environment), _ENVIRONMENT_FILE)
        self._set_tags(run_id, {"status": "running", "mlflow.note.content": self._note(None)})

    def start(self, at_ms: int, record: TrialRecord) -> None:
        """Create or continue a trial's run, with its tags and params."""
        self._begun[record.trial_id] = (at_ms, record)
        self._set_params(self._run_of(record.trial_id), _params(record))

    def measure(self, trial_id: str, points: Sequence[_Point]) -> None:
        """Log the measurements whose steps are not there yet, in as few calls as allowed."""
        run_id = self._run_of(trial_id)
        logged = self._steps_of(trial_id)
        new = {p.measurement.step: p for p in reversed(points) if p.measurement.step not in logged}
        metrics = [_metrics(p.at_ms, p.measurement) for _, p in sorted(new.items())]
        for batch in _batches(metrics, _MAX_METRICS_PER_CALL):
            self._client.log_batch(run_id, metrics=batch, synchronous=True)
            logged |= {m.step for m in batch if m.key == "examples"}

    def end(self, at_ms: int, record: TrialRecord) -> None:
        """Write what is missing of a trial, its summary and how it ended."""
        from mlflow.entities import Metric, RunTag

        if record.trial_id not in self._run_ids:
            self.start(at_ms, record)
        self.measure(record.trial_id, [_Point(at_ms, m) for m in record.measurements])
        run_id = self._run_of(record.trial_id)
        step = record.measurements[-1].step if record.measurements else 0
        summary = _summary(record, self._spec).items()
        self._client.log_batch(
            run_id,
            metrics=[Metric(name, value, at_ms, step) for name, value in summary],
            tags=[RunTag(name, value) for name, value in _tags(record).items()],
            synchronous=True,
        )
        status = "FAILED" if record.status == "failed" else "FINISHED"
        self._client.set_terminated(run_id, status=status, end_time=at_ms)
        del self._run_ids[record.trial_id]

    def finish(self, end: "_StudyEnded") -> None:
        """Write the answer and the report to the parent and leave no run marked as running."""
        for trial_id in list(self._run_ids):
            self._client.set_terminated(self._run_ids[trial_id], "KILLED", end.at_ms)
            del self._run_ids[trial_id]
        if end.environment is not None:
            self._client.log_text(self.parent_id, _to_json(end.environment), _ENVIRONMENT_FILE)
        if end.report_dir is not None:
            self._client.log_artifacts(self.parent_id, str(end.report_dir), "report")
        note = self._note(end.answer)
        self._set_tags(self.parent_id, {"status": end.status, "mlflow.note.content": note})
        status = {"done": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}[end.status]
        self._client.set_terminated(self.parent_id, status=status, end_time=end.at_ms)

    def _note(self, answer: str | None) -> str:
        outcome = "The study has not ended yet." if answer is None else answer
        where = "`report/report.html` under Artifacts" if answer else "written at its end"
        return f"**Question.** {self._spec.question}\n\n**Answer.** {outcome}\n\nReport: {where}."

    def _run_of(self, trial_id: str) -> str:
        if trial_id not in self._run_ids:
            at_ms, record = self._begun[trial_id]
            identity = {"trial_id": trial_id, "mlflow.parentRunId": self.parent_id}
            run_id = self._continued_run(identity)
            if run_id is None:
                tags = {"study": self._spec.name, **identity, **_tags(record)}
                run_id = self._new_run(trial_name(record), at_ms, tags)
                self._logged_steps[trial_id] = set()
            else:
                self._set_tags(run_id, _tags(record))
            self._run_ids[trial_id] = run_id
        return self._run_ids[trial_id]

    def _continued_run(self, tags: Mapping[str, str]) -> str | None:
        """The run with these tags, marked as running again; None where there is none."""
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self._client.search_runs([self._experiment_id], query, max_results=1)
        if not found:
            return None
        run_id = found[0].info.run_id
        self._client.update_run(run_id, status="RUNNING")
        return run_id

    def _new_run(self, name: str, at_ms: int, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(
            self._experiment_id,
            start_time=at_ms,
            tags=dict(tags),
            run_name=name,
        )
        return run.info.run_id

    def _steps_of(self, trial_id: str) -> set[int]:
        """Steps in the store; every measurement has `examples`, so its history lists them."""
        if trial_id not in self._logged_steps:
            history = self._client.get_metric_history(self._run_of(trial_id), "examples")
            self._logged_steps[trial_id] = {metric.step for metric in history}
        return self._logged_steps[trial_id]

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(name, value) for name, value in tags.items()]
        self._client.log_batch(run_id, tags=entities, synchronous=True)

    def _set_params(self, run_id: str, params: Mapping[str, str]) -> None:
        """Params cannot be changed in MLflow: one that a resumed trial would change is an error."""
        from mlflow.entities import Param

        entities = [Param(name, value) for name, value in params.items()]
        self._client.log_batch(run_id, params=entities, synchronous=True)


def _experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return client.create_experiment(name, artifact_location=_artifact_location(uri, name))
    if experiment.lifecycle_stage != "active":
        restore = f"mlflow experiments restore -x {experiment.experiment_id}"
        raise TrackingError(
            f"the MLflow experiment {name!r} was deleted: `{restore}`, or rename the study"
        )
    return experiment.experiment_id


def _artifact_location(uri: str, name: str) -> str | None:
    """Beside a sqlite database, whatever the working directory; a server chooses its own."""
    database = _sqlite_path(uri)
    return None if database is None else (database.parent / "mlartifacts" / name).as_uri()


def _batches(groups: Iterable[list["Metric"]], limit: int) -> Iterator[list["Metric"]]:
    """Lists of at most `limit` metrics that keep each group, one measurement, in one call."""
    batch: list[Metric] = []
    for group in groups:
        if batch and len(batch) + len(group) > limit:
            yield batch
            batch = []
        batch = batch + group
    if batch:
        yield batch


def _to_json(environment: Mapping[str, Any]) -> str:
    return json.dumps(dict(environment), indent=2, sort_keys=True, allow_nan=False)


def spec_to_yaml(spec: StudySpec) -> str:
    """The spec as a study file: what the file named, nulls included, and nothing else."""
    given = spec.model_dump(mode="json", exclude_unset=True)
    return yaml.safe_dump(given, sort_keys=False, allow_unicode=True, width=100)


@dataclass(frozen=True)
class _TrialStarted:
    at_ms: int
    record: TrialRecord


@dataclass(frozen=True)
class _TrialMeasured:
    trial_id: str
    points: tuple[_Point, ...]


@dataclass(frozen=True)
class _TrialEnded:
    at_ms: int
    record: TrialRecord


@dataclass(frozen=True)
class _StudyEnded:
    at_ms: int
    answer: str
    report_dir: Path | None
    status: StudyStatus
    environment: Mapping[str, Any] | None


_Event = _TrialStarted | _TrialMeasured | _TrialEnded | _StudyEnded


class StudyTracker:
    """Writes one study to MLflow from a thread of its own; no caller waits for a write.

    Opening is synchronous, so that a study that could not be recorded does not start. A study
    opened again with the same `study_id` continues its runs. Writes that fail are tried again,
    and what could not be written is said by `close`. Its methods are for one thread at a time.

    Args:
        spec: The study; its name is the MLflow experiment's.
        environment: Versions, hardware, commit and the like: plain strings and numbers.
        tracking_uri: See `resolve_tracking_uri`.
        study_id: The same when a study is resumed, another when it is started afresh.
        retry_seconds: Pauses before a failed write is tried again.

    Raises:
        TrackingError: If the store cannot be opened.
    """

    def __init__(
        self,
        spec: StudySpec,
        environment: Mapping[str, Any],
        tracking_uri: str | None = None,
        *,
        study_id: str,
        retry_seconds: Sequence[float] = (0.5, 2.0, 8.0),
    ) -> None:
        self.tracking_uri = resolve_tracking_uri(tracking_uri)
        self._last_ms = 0
        self._retry_seconds = tuple(retry_seconds)
        self._first_error: Exception | None = None
        self._num_failed = 0
        self._started: set[str] = set()
        self._events: queue.SimpleQueue[_Event | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._drained = threading.Event()
        self._runs = self._open(spec, environment, study_id)
        self._thread = threading.Thread(target=self._write_all, name="mlflow-writer", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the study's run can be read; relative to `mlflow ui` unless on a server."""
        return self._runs.url

    def trial_started(self, record: TrialRecord) -> None:
        """Record that a trial begins, or goes on in a resumed study."""
        self._started.add(record.trial_id)
        self._events.put(_TrialStarted(self._now_ms(), record))

    def trial_measured(self, trial_id: str, measurements: Sequence[Measurement]) -> None:
        """Record measurements of a trial that was started; a step recorded before is kept.

        Raises:
            ValueError: If the trial is not running, or a metric's name is reserved.
        """
        if trial_id not in self._started:
            raise ValueError(f"trial {trial_id!r} was measured while it was not running")
        _require_free_names(measurements)
        now = self._now_ms()
        points = tuple(_Point(now, measurement) for measurement in measurements)
        self._events.put(_TrialMeasured(trial_id, points))

    def trial_ended(self, record: TrialRecord) -> None:
        """Record a whole trial: what was not recorded of it yet, and how it ended.

        Raises:
            ValueError: If a metric's name is reserved.
        """
        _require_free_names(record.measurements)
        self._started.discard(record.trial_id)
        self._events.put(_TrialEnded(self._now_ms(), record))

    def study_ended(
        self,
        summary_answer: str,
        report_dir: Path | None,
        status: StudyStatus,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        """Record the study's answer, the files of its report, and how it ended.

        Args:
            summary_answer: The report's first paragraph.
            report_dir: Folder whose files become the parent's artifacts under `report`; they
                are read before `close` returns. None where there is no report.
            status: Of the study as a whole.
            environment: Replaces the one given at the start.
        """
        at_ms = self._now_ms()
        self._events.put(_StudyEnded(at_ms, summary_answer, report_dir, status, environment))

    def close(self, timeout_seconds: float = 120.0) -> None:
        """Wait until everything is written.

        Raises:
            TrackingError: If a write failed for good, or writes are left after the timeout.
        """
        self._closing.set()
        self._events.put(None)
        self._thread.join(timeout_seconds)
        if self._first_error is not None:
            raise TrackingError(
                f"{self._num_failed} writes to MLflow at {self.tracking_uri} failed; the first: "
                f"{_one_line(self._first_error)}"
            ) from self._first_error
        if not self._drained.is_set():
            raise TrackingError(
                f"writing to MLflow at {self.tracking_uri} did not end in {timeout_seconds:g} s"
                if self._thread.is_alive()
                else f"the thread that writes to MLflow at {self.tracking_uri} died"
            )

    def _open(self, spec: StudySpec, environment: Mapping[str, Any], study_id: str) -> _StudyRuns:
        try:
            client = _open_client(self.tracking_uri)
            runs = _StudyRuns(client, self.tracking_uri, spec, study_id, self._now_ms())
            runs.describe(environment)
        except _store_errors() as error:
            raise TrackingError(
                f"cannot open MLflow at {self.tracking_uri}: {_one_line(error)}"
            ) from error
        return runs

    def _now_ms(self) -> int:
        """Milliseconds since 1970, rising with each call: MLflow orders runs by them."""
        self._last_ms = max(time.time_ns() // 1_000_000, self._last_ms + 1)
        return self._last_ms

    def _write_all(self) -> None:
        while not self._drained.is_set():
            events = self._next_events()
            waiting: dict[str, list[_Point]] = {}
            for event in events:
                match event:
                    case None:
                        self._flush(waiting)
                        self._drained.set()
                    case _TrialMeasured(trial_id, points):
                        waiting.setdefault(trial_id, []).extend(points)
                    case _TrialStarted(at_ms, record):
                        self._write(lambda a=at_ms, r=record: self._runs.start(a, r))
                    case _TrialEnded(at_ms, record):
                        self._write_end(at_ms, record, waiting.pop(record.trial_id, []))
                    case _StudyEnded():
                        self._flush(waiting)
                        self._write(lambda e=event: self._runs.finish(e))
            self._flush(waiting)

    def _next_events(self) -> list[_Event | None]:
        """Wait for an event, then a little longer, so that measurements share a call."""
        events = [self._events.get()]
        self._closing.wait(_LINGER_SECONDS)
        while True:
            try:
                events.append(self._events.get_nowait())
            except queue.Empty:
                return events

    def _flush(self, waiting: dict[str, list[_Point]]) -> None:
        while waiting:
            trial_id, points = waiting.popitem()
            self._write(lambda t=trial_id, p=points: self._runs.measure(t, p))

    def _write_end(self, at_ms: int, record: TrialRecord, points: list[_Point]) -> None:
        if points:
            self._flush({record.trial_id: points})
        self._write(lambda: self._runs.end(at_ms, record))

    def _write(self, write: Callable[[], None]) -> None:
        """Try a write a few times; after a failure for good, the later ones only once."""
        pauses = self._retry_seconds if self._first_error is None else ()
        for pause in (*pauses, None):
            try:
                write()
            except _store_errors() as error:
                if pause is None:
                    self._keep(error)
                else:
                    _LOG.warning("MLflow: %s; again in %g s", _one_line(error), pause)
                    time.sleep(pause)
            else:
                return

    def _keep(self, error: Exception) -> None:
        self._num_failed += 1
        if self._first_error is None:
            self._first_error = error
            _LOG.error("MLflow at %s: a write failed: %s", self.tracking_uri, _one_line(error))


# --- reading ------------------------------------------------------------------------------------


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
    database = _sqlite_path(uri)
    if database is not None and not database.exists():
        raise LookupError(f"no study {name!r}: there is no MLflow database at {database}")
    try:
        return _load(_open_client(uri), uri, name, study_id)
    except _store_errors() as error:
        raise TrackingError(f"cannot read MLflow at {uri}: {_one_line(error)}") from error


def _load(client: "MlflowClient", uri: str, name: str, study_id: str | None) -> StudyRecord:
    parent = _parent(client, uri, name, study_id)
    experiment_id, parent_id = parent.info.experiment_id, parent.info.run_id
    children = [r for r in _children(client, experiment_id, parent_id) if "record" in r.data.tags]
    with ThreadPoolExecutor(_NUM_READERS) as readers:
        trials = tuple(readers.map(lambda run: _trial(client, run), children))
    return StudyRecord(
        spec=StudySpec.model_validate(yaml.safe_load(_artifact(client, parent_id, _SPEC_FILE))),
        trials=trials,
        environment=json.loads(_artifact(client, parent_id, _ENVIRONMENT_FILE)),
        trial_urls={
            trial.trial_id: _run_url(uri, experiment_id, run.info.run_id)
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


def _children(client: "MlflowClient", experiment_id: str, parent_id: str) -> Iterator["Run"]:
    query = f"tags.`mlflow.parentRunId` = '{parent_id}'"
    order = ["attributes.start_time ASC"]
    page = client.search_runs([experiment_id], query, order_by=order)
    yield from page
    while page.token:
        page = client.search_runs([experiment_id], query, order_by=order, page_token=page.token)
        yield from page


def _trial(client: "MlflowClient", run: "Run") -> TrialRecord:
    record = TrialRecord.from_json(run.data.tags["record"])
    return record.extended(_measurements(client, run))


def _measurements(client: "MlflowClient", run: "Run") -> list[Measurement]:
    """By rising step; of a step written twice, the first."""
    steps: dict[int, dict[str, float]] = {}
    for name in filter(_is_measured, run.data.metrics):
        for metric in client.get_metric_history(run.info.run_id, name):
            steps.setdefault(metric.step, {"step": metric.step}).setdefault(name, metric.value)
    return [Measurement.from_scalars(scalars) for _, scalars in sorted(steps.items())]


def _artifact(client: "MlflowClient", run_id: str, name: str) -> str:
    with TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run_id, name, folder)).read_text(encoding="utf-8")
