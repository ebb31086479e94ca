"""A study's way to MLflow: told what happens, never waiting for the store."""

import time
from collections.abc import Sequence
from dataclasses import replace

from scaling.files.shown_url import shown_url
from scaling.records.measurement import Measurement
from scaling.records.trial import TrialRecord
from scaling.sinks.base import StudyEnd, StudyStart, TrackingError, UnsentError
from scaling.sinks.events import Event, StudyEnded, TrialEnded, TrialMeasured, TrialStarted, to_line
from scaling.sinks.mlflow.runs import StudyRuns
from scaling.sinks.mlflow.store import (
    one_line,
    open_client,
    resolve_tracking_uri,
    store_errors,
    tried_again,
)
from scaling.sinks.mlflow.trial_run import require_free_names
from scaling.sinks.mlflow.writer import Writer
from scaling.sinks.spool import Spool

SPOOL_FILE = "mlflow_spool.jsonl"
REJECTED_FILE = "mlflow_rejected.jsonl"
# How long the store is waited for; what it has not taken by then waits on disk.
_IDLE_SECONDS, _INTERRUPTED_SECONDS, _REFUSED_SECONDS = 120.0, 10.0, 5.0


class MlflowSink:
    """Writes one study to MLflow by way of a file; no caller waits for the store.

    Opening is synchronous, so that a study that could not be recorded does not start. From then
    on the store may go away: what happens is in the file when a method returns, and is sent when
    the store is back, if need be by a later process on the same folder. A study opened again with
    the same `study_id` continues its runs, and runs (in MLflow, too) until its end is recorded
    anew. Its methods are for one thread at a time.

    Args:
        start: The study; its name is the MLflow experiment's. What waits is in
            `mlflow_spool.jsonl` in its folder, what MLflow refused in `mlflow_rejected.jsonl`.
        tracking_uri: See `resolve_tracking_uri`.
        retry_seconds: First and longest pause before a failed write is tried again.

    Raises:
        TrackingError: If the store or the file cannot be opened.
    """

    def __init__(
        self,
        start: StudyStart,
        tracking_uri: str | None = None,
        *,
        retry_seconds: tuple[float, float] = (0.5, 30.0),
    ) -> None:
        self.tracking_uri = resolve_tracking_uri(tracking_uri)
        self._study_id = start.study_id
        self._rejected = start.folder.absolute() / REJECTED_FILE
        self._last_ms = 0
        self._started: set[str] = set()
        self._runs = runs = self._open_runs(start)
        path = start.folder.absolute() / SPOOL_FILE
        try:
            self._spool = Spool(path)
        except OSError as error:
            raise TrackingError(f"cannot open the spool {path}: {error.strerror}") from error
        self._writer = Writer(
            runs, self._spool, self._rejected, start.study_id, shown_url(self.tracking_uri),
            retry_seconds,
        )  # fmt: skip

    def trial_started(self, record: TrialRecord) -> None:
        """Record that a trial begins, or goes on in a resumed study.

        Raises:
            OSError: If the spool cannot be written, here and below.
        """
        self._append(TrialStarted(self._now_ms(), record))
        self._started.add(record.trial_id)

    def trial_measured(self, trial_id: str, measurements: Sequence[Measurement]) -> None:
        """Record measurements of a trial that was started.

        Raises:
            ValueError: If the trial is not running, or a metric's name is reserved.
        """
        if trial_id not in self._started:
            raise ValueError(f"trial {trial_id!r} was measured while it was not running")
        require_free_names(measurements)
        self._append(TrialMeasured(self._now_ms(), trial_id, tuple(measurements)))

    def trial_ended(self, record: TrialRecord) -> None:
        """Record a whole trial: what was not recorded of it yet, and how it ended.

        Where the disk loses it with the machine, a resumed study tells it again.

        Raises:
            ValueError: If a metric's name is reserved.
        """
        require_free_names(record.measurements)
        self._started.discard(record.trial_id)
        if not self._runs.has(record):
            self._append(TrialEnded(self._now_ms(), record))

    def trial_urls(self, timeout_seconds: float = 30.0) -> dict[str, str]:
        """Where each trial's run can be read, by trial_id, of those that MLflow has.

        Waits until the store has what was told so far, unless it is away.
        """
        end = time.monotonic() + timeout_seconds
        while self._spool.has_lines and self._writer.is_sending and time.monotonic() < end:
            time.sleep(0.05)
        return self._runs.urls()

    def study_ended(self, end: StudyEnd) -> None:
        """Record how the study ended, and wait until MLflow has everything.

        The files of the report become the parent's artifacts under `report`, the numbers its
        metrics. A study that was refused leaves no run.

        Raises:
            UnsentError: If something was refused, or waits in the spool when the store has taken
                nothing for two minutes (after ten seconds where the study was interrupted, or is
                while it waits).
            TrackingError: If the store does not answer, and the run of a refused study stays.
        """
        if end.status == "refused":
            return self._discard()
        end = replace(end, report_dir=end.report_dir and end.report_dir.absolute())
        self._append(StudyEnded(self._now_ms(), end), durable=True)
        try:
            self._give_up() if end.status == "interrupted" else self.close()
        except KeyboardInterrupt:
            self._give_up()
            raise

    def close(self, idle_seconds: float = _IDLE_SECONDS) -> None:
        """Wait until everything is in MLflow; nothing can be recorded after.

        Args:
            idle_seconds: How long the store may take nothing before it is waited for no longer.

        Raises:
            UnsentError: If something was refused, or waits in the spool after that time.
        """
        self._writer.close(idle_seconds, while_it_goes_on=True)
        self._require_all(f"took nothing for {idle_seconds:g} s")

    def _give_up(self) -> None:
        self._writer.close(_INTERRUPTED_SECONDS)
        self._require_all(f"did not take everything in {_INTERRUPTED_SECONDS:g} s")

    def _require_all(self, otherwise: str) -> None:
        if not self._writer.is_drained:
            raise UnsentError(self._waiting_message(otherwise))
        if self._writer.num_rejected:
            raise UnsentError(
                f"{self._writer.num_rejected} writes to MLflow at "
                f"{shown_url(self.tracking_uri)} failed, kept in {self._rejected}; the first: "
                f"{self._writer.first_rejection}"
            )

    def _discard(self) -> None:
        self._writer.close(_REFUSED_SECONDS)
        try:
            self._runs.discard()
        except store_errors() as error:
            raise TrackingError(f"the run {self._runs.url} stays: {one_line(error)}") from error

    def _waiting_message(self, otherwise: str) -> str:
        writer, why = self._writer, otherwise
        if writer.loss is not None:
            return f"{writer.loss}; the study's folder has everything: --resume writes it again"
        if writer.last_failure is not None:
            why = f"does not answer ({writer.last_failure})"
        elif not writer.is_alive:
            why = "is not written any longer: its thread died"
        return (
            f"MLflow at {shown_url(self.tracking_uri)} {why}; {self._spool.count()} events wait in "
            f"{self._spool.path}: the study command with --resume sends them"
        )

    def _open_runs(self, start: StudyStart) -> StudyRuns:
        uri = self.tracking_uri
        try:
            return tried_again(uri, lambda: StudyRuns(open_client(uri), uri, start, self._now_ms()))
        except store_errors() as error:
            reason = one_line(error)
            raise TrackingError(f"cannot open MLflow at {shown_url(uri)}: {reason}") from None

    def _append(self, event: Event, *, durable: bool = False) -> None:
        self._spool.append(to_line(self._study_id, event), durable=durable)

    def _now_ms(self) -> int:
        """Milliseconds since 1970, rising with each call: MLflow orders runs by them."""
        self._last_ms = max(time.time_ns() // 1_000_000, self._last_ms + 1)
        return self._last_ms
