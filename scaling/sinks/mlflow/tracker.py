"""A study's way to MLflow: told what happens, never waiting for the store."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling.files.shown_url import shown_url
from scaling.records.measurement import Measurement
from scaling.records.trial import TrialRecord
from scaling.sinks.events import (
    Event,
    StudyEnded,
    StudyStatus,
    TrialEnded,
    TrialMeasured,
    TrialStarted,
    to_line,
)
from scaling.sinks.mlflow.runs import StudyRuns
from scaling.sinks.mlflow.store import (
    TrackingError,
    UnsentError,
    one_line,
    open_client,
    resolve_tracking_uri,
    store_errors,
    tried_again,
)
from scaling.sinks.mlflow.trial_run import require_free_names
from scaling.sinks.mlflow.writer import Writer
from scaling.sinks.spool import Spool
from scaling.spec.study import StudySpec

SPOOL_FILE = "mlflow_spool.jsonl"
REJECTED_FILE = "mlflow_rejected.jsonl"
_DISCARD_SECONDS = 5.0


class StudyTracker:
    """Writes one study to MLflow by way of a file; no caller waits for the store.

    Opening is synchronous, so that a study that could not be recorded does not start. From then
    on the store may go away: what happens is in the file when a method returns, and is sent when
    the store is back, if need be by the tracker of a later process on the same folder. A study
    opened again with the same `study_id` continues its runs, and runs (in MLflow, too) until its
    end is recorded anew. Its methods are for one thread at a time.

    Args:
        spec: The study; its name is the MLflow experiment's.
        environment: Versions, hardware, commit and the like: plain strings and numbers.
        tracking_uri: See `resolve_tracking_uri`.
        study_id: The same when a study is resumed, another when it is started afresh.
        spool: The study's own folder, which exists. What waits is in `mlflow_spool.jsonl`, what
            MLflow refused in `mlflow_rejected.jsonl`.
        retry_seconds: First and longest pause before a failed write is tried again.

    Raises:
        TrackingError: If the store or the file cannot be opened.
    """

    def __init__(
        self,
        spec: StudySpec,
        environment: Mapping[str, Any],
        tracking_uri: str | None = None,
        *,
        study_id: str,
        spool: Path,
        retry_seconds: tuple[float, float] = (0.5, 30.0),
    ) -> None:
        self.tracking_uri = resolve_tracking_uri(tracking_uri)
        self._study_id = study_id
        self._rejected = spool.absolute() / REJECTED_FILE
        self._last_ms = 0
        self._started: set[str] = set()
        self._runs = runs = self._open_runs(spec, environment)
        self.url = runs.url  # of the study's run; relative to `mlflow ui` unless on a server
        self._spool = _open_spool(spool.absolute() / SPOOL_FILE)
        self._writer = Writer(
            runs, self._spool, self._rejected, study_id, shown_url(self.tracking_uri), retry_seconds
        )

    def trial_started(self, record: TrialRecord) -> None:
        """Record that a trial begins, or goes on in a resumed study.

        Raises:
            OSError: If the spool cannot be written, here and below.
        """
        self._append(TrialStarted(self._now_ms(), record))
        self._started.add(record.trial_id)

    def trial_measured(self, trial_id: str, measurements: Sequence[Measurement]) -> None:
        """Record measurements of a trial that was started; a step recorded before is kept.

        Raises:
            ValueError: If the trial is not running, or a metric's name is reserved.
        """
        if trial_id not in self._started:
            raise ValueError(f"trial {trial_id!r} was measured while it was not running")
        require_free_names(measurements)
        self._append(TrialMeasured(self._now_ms(), trial_id, tuple(measurements)))

    def trial_ended(self, record: TrialRecord) -> None:
        """Record a whole trial: what was not recorded of it yet, and how it ended.

        Raises:
            ValueError: If a metric's name is reserved.
        """
        require_free_names(record.measurements)
        self._append(TrialEnded(self._now_ms(), record), durable=True)
        self._started.discard(record.trial_id)

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
        folder = None if report_dir is None else report_dir.absolute()
        end = StudyEnded(self._now_ms(), summary_answer, folder, status, environment)
        self._append(end, durable=True)

    def close(self, timeout_seconds: float = 120.0) -> None:
        """Wait until everything is in MLflow; nothing can be recorded after.

        Raises:
            UnsentError: If something was refused, or waits in the spool after the timeout.
        """
        self._writer.close(timeout_seconds)
        if not self._writer.is_drained:
            raise UnsentError(self._waiting_message(timeout_seconds))
        if self._writer.num_rejected:
            raise UnsentError(
                f"{self._writer.num_rejected} writes to MLflow at "
                f"{shown_url(self.tracking_uri)} failed, kept in {self._rejected}; the first: "
                f"{self._writer.first_rejection}"
            )

    def discard(self) -> None:
        """Delete the study's run, of a study that was refused; nothing can be recorded after.

        Raises:
            TrackingError: If the store does not answer.
        """
        self._writer.close(_DISCARD_SECONDS)
        try:
            self._runs.discard()
        except store_errors() as error:
            raise TrackingError(f"the run {self.url} stays: {one_line(error)}") from error

    def _waiting_message(self, timeout_seconds: float) -> str:
        failure = self._writer.last_failure
        why = (
            f"is away ({failure})"
            if failure is not None
            else f"did not take everything in {timeout_seconds:g} s"
            if self._writer.is_alive
            else "is not written any longer: its thread died"
        )
        return (
            f"MLflow at {shown_url(self.tracking_uri)} {why}; {self._spool.count()} events wait in "
            f"{self._spool.path}: the study command with --resume sends them"
        )

    def _open_runs(self, spec: StudySpec, environment: Mapping[str, Any]) -> StudyRuns:
        uri = self.tracking_uri
        try:

            def open_once() -> StudyRuns:
                client = open_client(uri)
                runs = StudyRuns(client, uri, spec, self._study_id, self._now_ms())
                runs.describe(environment)
                return runs

            return tried_again(uri, open_once)
        except store_errors() as error:
            reason = one_line(error)
            raise TrackingError(f"cannot open MLflow at {shown_url(uri)}: {reason}") from None

    def _append(self, event: Event, *, durable: bool = False) -> None:
        self._spool.append(to_line(self._study_id, event), durable=durable)

    def _now_ms(self) -> int:
        """Milliseconds since 1970, rising with each call: MLflow orders runs by them."""
        self._last_ms = max(time.time_ns() // 1_000_000, self._last_ms + 1)
        return self._last_ms


def require_store(name: str, tracking_uri: str | None = None) -> None:
    """Check that a store can be read; a sqlite database is made where there is none.

    Args:
        name: Of a study, which need not be in it.
        tracking_uri: See `resolve_tracking_uri`.

    Raises:
        TrackingError: If it cannot be opened or does not answer.
    """
    uri = resolve_tracking_uri(tracking_uri)
    try:
        tried_again(uri, lambda: open_client(uri).get_experiment_by_name(name))
    except store_errors() as error:
        reason = one_line(error)
        raise TrackingError(f"cannot open MLflow at {shown_url(uri)}: {reason}") from None


def _open_spool(path: Path) -> Spool:
    try:
        return Spool(path)
    except OSError as error:
        raise TrackingError(f"cannot open the spool {path}: {error.strerror}") from error
