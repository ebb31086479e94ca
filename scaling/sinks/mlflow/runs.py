"""One study's runs in one store, written synchronously and safe to write again."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from scaling.files.own import ForeignFolderError, report_files
from scaling.files.shown_error import first_line
from scaling.records.load import ENVIRONMENT_FILE, environment_json
from scaling.records.measurement import Measurement
from scaling.records.trial import TrialRecord
from scaling.sinks.base import StudyStart
from scaling.sinks.events import StudyEnded, TrialEnded, TrialEvent, TrialMeasured, TrialStarted
from scaling.sinks.mlflow import trial_run
from scaling.sinks.mlflow.dataset import dataset_input
from scaling.sinks.mlflow.kept_models import send_models
from scaling.sinks.mlflow.store import (
    DatabaseFile,
    RefusedWriteError,
    artifact_errors,
    is_refusal,
    open_experiment,
    run_url,
    search_all,
    store_errors,
)
from scaling.sinks.mlflow.study_file import spec_to_yaml

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

SPEC_FILE = "study.yaml"

_MAX_METRICS_PER_CALL = 800  # of 1,000 entries; at most 100 params and 100 tags are beside them

Point = tuple[int, Measurement]
"""When a measurement was made, in milliseconds since 1970, and the measurement."""


class StudyRuns:
    """One study's runs in one store, written synchronously.

    Every method may be called again with the same arguments, after an error or in a resumed
    study: runs are found by their tags, a step that is there is not written twice, and a trial
    that is there as it ended is not written again. After an error `forget` comes first, since a
    write may have been done although its answer was lost.

    What was deleted of the study comes back where MLflow still has it: its experiment, whose name
    nothing else can have, and its run.

    Args:
        client: Of the store.
        uri: Of the store.
        study: Whose parent run is continued where it exists.
        at_ms: Start of a new parent run, in milliseconds since 1970.
    """

    def __init__(self, client: "MlflowClient", uri: str, study: StudyStart, at_ms: int) -> None:
        self._client = client
        self._uri = uri
        self._spec, self._folder = study.spec, study.folder.absolute()
        self._file = DatabaseFile.of(uri)
        self._experiment_id = open_experiment(client, uri, study.spec.name)
        self._dataset = dataset_input(study.spec, study.environment)
        self._begun: dict[str, TrialStarted] = {}  # trials that have not ended
        self._run_ids: dict[str, str] = {}
        self._without_params: set[str] = set()
        self._results: dict[str, dict[str, float]] = {}  # what trials come to, of what is there
        self._may_have_more: set[str] = set()  # trials of which the store may have unknown runs
        self._seconds: dict[str, dict[int, float]] = {}  # by trial and step, of what is there
        self.parent_id = self._parent(study, at_ms)
        self._ended = self._ended_before()  # the record of each trial that ended, by its run
        self.url = run_url(uri, self._experiment_id, self.parent_id)

    def _describe(self, study: StudyStart, run_id: str) -> None:
        """Write the spec, the environment and the question to the parent."""
        with artifact_errors():
            self._client.log_text(run_id, spec_to_yaml(self._spec), SPEC_FILE)
            self._client.log_text(run_id, environment_json(study.environment), ENVIRONMENT_FILE)
        self._log_dataset(run_id)
        tags = {"status": "running", "folder": str(study.folder.absolute())}
        self._set_tags(run_id, {**tags, "mlflow.note.content": self._note(None)})

    def _log_dataset(self, run_id: str) -> None:
        """MLflow keeps an input that is there already once."""
        if self._dataset is not None:
            self._client.log_inputs(run_id, [self._dataset])

    def urls(self) -> dict[str, str]:
        """Where each trial's run can be read, by trial_id, of those that are known here."""
        run_ids = dict(self._run_ids)
        return {t: run_url(self._uri, self._experiment_id, r) for t, r in run_ids.items()}

    def loss(self, error: Exception | None) -> str | None:
        """What of the study is gone from the store, so that writing on is in vain, in a line.

        Args:
            error: Of a write; where it is None or says that the store is away, the store is not
                asked, and only its file is looked at.
        """
        if self._file is not None and (problem := self._file.problem(error)):
            return problem
        if error is None or not is_refusal(error):
            return None
        name = f"the MLflow experiment {self._spec.name!r}"
        try:
            if self._client.get_experiment(self._experiment_id).lifecycle_stage != "active":
                return f"{name} was deleted"
            if self._client.get_run(self.parent_id).info.lifecycle_stage != "active":
                return f"the study's run in {name} was deleted"
        except store_errors() as unanswered:
            return f"{name} is gone" if is_refusal(unanswered) else None
        return None

    def has(self, record: TrialRecord) -> bool:
        """Whether a trial is there as it ended, with what it comes to by the study's target."""
        return self._ended.get(record.trial_id) == trial_run.tags(record)["record"] and (
            self._results.get(record.trial_id) == trial_run.summary(record, self._spec)
        )

    def write(self, events: Sequence[TrialEvent]) -> None:
        """Write what happened to one trial, in as few calls as allowed.

        A trial that was cut off and trained some steps again has measured them at other times.
        Its record has the later ones, and its run is written anew.

        Args:
            events: In order; nothing follows its end.

        Raises:
            RefusedWriteError: If it was measured, and has no run and was not started.
        """
        trial_id = events[0].trial_id
        end = events[-1] if isinstance(events[-1], TrialEnded) else None
        for event in events:
            if isinstance(event, TrialStarted):
                self._begin(event)
        if end is not None:
            if self.has(end.record):
                return
            begun = self._begun.get(trial_id, end)
            if begun is end or self._is_new(trial_id):
                self._begin(TrialStarted(begun.at_ms, end.record))
            measured = {m.step: m.seconds for m in end.record.measurements}
            if not self._is_new(trial_id) and (
                self._seconds_of(trial_id).items() - measured.items()
            ):
                self._delete_copies(None, self._runs_of(trial_id))
                self.forget(trial_id)
        self._log(trial_id, [point for event in events for point in _points(event)], end)
        if end is not None:
            self._terminate(trial_id, end)

    def _begin(self, start: TrialStarted) -> None:
        record = replace(start.record, measurements=())
        self._begun[record.trial_id] = TrialStarted(start.at_ms, record)
        self._without_params.add(record.trial_id)
        self._ended.pop(record.trial_id, None)

    def _log(self, trial_id: str, points: Sequence[Point], end: TrialEnded | None) -> None:
        """Log params, the steps that are not there yet, and how it ended, together."""
        from mlflow.entities import Metric, Param, RunTag

        is_made_now = self._is_new(trial_id)  # with its tags
        run_id, logged = self._run_of(trial_id), self._seconds_of(trial_id)
        new = {m.step: (at_ms, m) for at_ms, m in reversed(points) if m.step not in logged}
        groups = [trial_run.metrics(*point) for _, point in sorted(new.items())]
        tags: list[RunTag] = []
        if end is not None:
            measurements = end.record.measurements
            step = measurements[-1].step if measurements else 0
            gone = dict.fromkeys(self._results.get(trial_id, {}), math.nan)  # none is deleted
            results = gone | trial_run.summary(end.record, self._spec)
            groups.append([Metric(n, value, end.at_ms, step) for n, value in results.items()])
            named = {} if is_made_now else trial_run.tags(end.record)
            tags = [RunTag(name, value) for name, value in named.items()]
        params: list[Param] = []
        if trial_id in self._without_params:
            named = trial_run.params(self._begun[trial_id].record, self._spec)
            params = [Param(name, value) for name, value in named.items()]
        for metrics in _batches(groups, _MAX_METRICS_PER_CALL):
            if metrics or params or tags:
                self._client.log_batch(run_id, metrics, params, tags, synchronous=True)
            logged |= {m.step: m.value for m in metrics if m.key == "seconds"}
            params, tags = [], []
        if trial_id in self._without_params:
            self._log_dataset(run_id)
            self._without_params.discard(trial_id)

    def _terminate(self, trial_id: str, end: TrialEnded) -> None:
        run_id = self._run_of(trial_id)
        if trial_id in self._may_have_more:
            self._delete_copies(run_id, self._runs_of(trial_id))
            self._may_have_more.discard(trial_id)
        status = "FAILED" if end.record.status == "failed" else "FINISHED"
        self._client.set_terminated(run_id, status=status, end_time=end.at_ms)
        self._results[trial_id] = trial_run.summary(end.record, self._spec)
        self._ended[trial_id] = trial_run.tags(end.record)["record"]
        self._seconds.pop(trial_id, None)
        self._begun.pop(trial_id, None)

    def finish(self, event: StudyEnded, goes_on: Callable[[], None]) -> None:
        """Write answer, numbers and report to the parent; leave no run marked as running.

        Args:
            event: How the study ended.
            goes_on: Called after each file of a model that was sent; they may be large.

        Raises:
            RefusedWriteError: If the report is gone, or the kept models cannot be read.
        """
        end = event.end
        running = f"{self._children} and attributes.status = 'RUNNING'"
        for run in list(search_all(self._client, self._experiment_id, running)):
            known = self._run_ids.get(run.data.tags.get("trial_id", ""), run.info.run_id)
            self._delete_copies(known, [run])
            if known == run.info.run_id:
                self._client.set_terminated(known, "KILLED", event.at_ms)
        if end.environment is not None:
            text = environment_json(end.environment)
            with artifact_errors():
                self._client.log_text(self.parent_id, text, ENVIRONMENT_FILE)
        if end.report_dir is not None:
            self._send_report(end.report_dir)
        if end.status == "done":
            self._log_numbers(end.numbers, event.at_ms)
        send_models(self._client, self.parent_id, self._folder, self._spec.storage_url, goes_on)
        note = self._note(end.answer)
        self._set_tags(self.parent_id, {"status": end.status, "mlflow.note.content": note})
        status = {"done": "FINISHED", "failed": "FAILED"}.get(end.status, "KILLED")
        self._client.set_terminated(self.parent_id, status=status, end_time=event.at_ms)
        if self._file is not None:
            self._file.count_entries()

    def _log_numbers(self, numbers: Mapping[str, float], at_ms: int) -> None:
        """Log the study's numbers that the parent does not have yet, or has otherwise.

        MLflow deletes no metric: one that is not determined any longer becomes NaN.
        """
        from mlflow.entities import Metric

        known = self._client.get_run(self.parent_id).data.metrics
        gone = {name: math.nan for name, value in known.items() if not math.isnan(value)}
        metrics = [
            Metric(name, value, at_ms, 0)
            for name, value in {**gone, **numbers}.items()
            if known.get(name) != value
        ]
        self._client.log_batch(self.parent_id, metrics=metrics, synchronous=True)

    def _send_report(self, folder: Path) -> None:
        """Write a report's own files to the parent; what a user keeps beside them stays here."""
        try:
            names = report_files(folder)
        except (ForeignFolderError, OSError) as error:
            raise RefusedWriteError(f"the report is gone: {first_line(error)}") from None
        for name in names:
            place = PurePosixPath("report", name).parent
            with artifact_errors():
                self._client.log_artifact(self.parent_id, str(folder / name), str(place))

    def discard(self) -> None:
        """Delete the study's run, which has no trials."""
        self._client.delete_run(self.parent_id)

    def forget(self, trial_id: str) -> None:
        """Look in the store again for what is there of a trial: its runs and its steps."""
        self._may_have_more.add(trial_id)
        self._run_ids.pop(trial_id, None)
        self._seconds.pop(trial_id, None)

    def _note(self, answer: str | None) -> str:
        outcome = "The study has not ended yet." if answer is None else answer
        where = "`report/report.html` under Artifacts" if answer else "written at its end"
        return f"**Question.** {self._spec.question}\n\n**Answer.** {outcome}\n\nReport: {where}."

    @property
    def _children(self) -> str:
        return f"tags.`mlflow.parentRunId` = '{self.parent_id}'"

    def _parent(self, study: StudyStart, at_ms: int) -> str:
        from mlflow.entities import ViewType

        query = f"tags.study_id = '{study.study_id}' and tags.role = 'study'"
        found = self._client.search_runs(
            [self._experiment_id], query, ViewType.ALL, max_results=1,
            order_by=["attributes.start_time DESC"],
        )  # fmt: skip
        is_there = bool(found) and found[0].info.lifecycle_stage == "active"
        if found:
            run_id = found[0].info.run_id
            if not is_there:
                self._client.restore_run(run_id)
            self._client.update_run(run_id, status="RUNNING")
        else:
            tags = {"study": self._spec.name, "study_id": study.study_id, "role": "study"}
            run_id = self._new_run(self._spec.name, at_ms, tags)
        try:
            self._describe(study, run_id)
        except BaseException:
            if not is_there:  # it would hide the studies before it
                with suppress(*store_errors()):
                    self._client.delete_run(run_id)
            raise
        return run_id

    def _ended_before(self) -> dict[str, str]:
        """The records of trials that ended, whose runs are noted; they have one run each then."""
        runs: dict[str, list[Run]] = {}
        for run in search_all(self._client, self._experiment_id, self._children):
            runs.setdefault(run.data.tags.get("trial_id", ""), []).append(run)
        ended: dict[str, str] = {}
        for trial_id, found in runs.items():
            whole = [run for run in found if run.info.status in ("FINISHED", "FAILED")]
            if len(whole) != 1:
                self._may_have_more.add(trial_id)
                continue
            (run,) = whole
            self._delete_copies(run.info.run_id, found)
            self._run_ids[trial_id] = run.info.run_id
            self._results[trial_id] = trial_run.results(run.data.metrics)
            ended[trial_id] = run.data.tags.get("record", "")
        return ended

    def _is_new(self, trial_id: str) -> bool:
        """Whether the store has no run of a trial, as far as is known."""
        return trial_id not in self._run_ids and trial_id not in self._may_have_more

    def _run_of(self, trial_id: str) -> str:
        if trial_id not in self._run_ids:
            found = None if self._is_new(trial_id) else self._continued_run(trial_id)
            self._run_ids[trial_id] = found or self._first_run(trial_id)
        return self._run_ids[trial_id]

    def _continued_run(self, trial_id: str) -> str | None:
        """The trial's run, marked as running again; None where there is none.

        MLflow changes no param: a run of other ones, as of another micro-batch, goes.
        """
        found = self._runs_of(trial_id)
        run = max(found, key=lambda run: len(run.data.metrics), default=None)
        if run is not None and trial_id in self._begun:
            params = trial_run.params(self._begun[trial_id].record, self._spec)
            if run.data.params.items() - params.items():
                run = None
        run_id = None if run is None else run.info.run_id
        self._delete_copies(run_id, found)
        if run is None or run_id is None:
            return None
        self._results[trial_id] = trial_run.results(run.data.metrics)
        self._client.update_run(run_id, status="RUNNING")
        if trial_id in self._begun:
            self._set_tags(run_id, trial_run.tags(self._begun[trial_id].record))
        return run_id

    def _first_run(self, trial_id: str) -> str:
        if trial_id not in self._begun:
            raise RefusedWriteError(f"trial {trial_id!r} has no run in MLflow")
        at_ms, record = self._begun[trial_id].at_ms, self._begun[trial_id].record
        identity = {"trial_id": trial_id, "mlflow.parentRunId": self.parent_id}
        tags = {"study": self._spec.name, **identity, **trial_run.tags(record)}
        run_id = self._new_run(trial_run.trial_name(record), at_ms, tags)
        self._seconds[trial_id], self._results[trial_id] = {}, {}
        self._without_params.add(trial_id)
        return run_id

    def _runs_of(self, trial_id: str) -> list["Run"]:
        query = f"{self._children} and tags.trial_id = '{trial_id}'"
        return list(search_all(self._client, self._experiment_id, query))

    def _delete_copies(self, run_id: str | None, found: Sequence["Run"]) -> None:
        """Delete all of a trial's runs but `run_id`.

        A server that hangs makes a run long after its answer was given up, when another one may
        have been made in its place.
        """
        for run in found:
            if run.info.run_id != run_id:
                self._client.delete_run(run.info.run_id)

    def _new_run(self, name: str, at_ms: int, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(
            self._experiment_id, start_time=at_ms, tags=dict(tags), run_name=name
        )
        return run.info.run_id

    def _seconds_of(self, trial_id: str) -> dict[int, float]:
        """`seconds` of each step in the store; every measurement has them."""
        if trial_id not in self._seconds:
            history = self._client.get_metric_history(self._run_of(trial_id), "seconds")
            self._seconds[trial_id] = {metric.step: metric.value for metric in history}
        return self._seconds[trial_id]

    def _set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        entities = [RunTag(name, value) for name, value in tags.items()]
        self._client.log_batch(run_id, tags=entities, synchronous=True)


def _points(event: TrialEvent) -> list[Point]:
    match event:
        case TrialStarted():
            return []
        case TrialMeasured(at_ms, measurements=measurements):
            return [(at_ms, measurement) for measurement in measurements]
        case TrialEnded(at_ms, record):
            return [(at_ms, measurement) for measurement in record.measurements]


def _batches(groups: Iterable[list["Metric"]], limit: int) -> list[list["Metric"]]:
    """Lists of at most `limit` metrics that keep each group, one measurement, in one call.

    There is one list at least.
    """
    batches: list[list[Metric]] = [[]]
    for group in groups:
        if batches[-1] and len(batches[-1]) + len(group) > limit:
            batches.append([])
        batches[-1] += group
    return batches
