"""The thread that sends a spool's events to MLflow, in order, for as long as it takes."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from scaling.sinks.events import (
    Event,
    StudyEnded,
    TrialEnded,
    TrialEvent,
    TrialMeasured,
    TrialStarted,
    from_line,
)
from scaling.sinks.mlflow.runs import StudyRuns
from scaling.sinks.mlflow.store import RefusedWriteError, is_refusal, one_line, store_errors
from scaling.sinks.spool import Line, Spool, keep_rejected

_LINGER_SECONDS = 0.5
_REPORT_EVERY_SECONDS = 15.0
_LONGEST_PAUSE_WHILE_CLOSING_SECONDS = 2.0

_LOG = logging.getLogger(__name__)

_Spooled = tuple[Line, TrialEvent]


class _AbandonedError(Exception):
    """Nobody waits for the events, or nobody can take them; they stay in the spool."""


class Writer:
    """Sends a spool's events from a thread of its own, until it is closed and all are sent.

    While the store is away, the event that comes next is tried again and again. What the store
    refuses goes to `rejected` and the next event has its turn. Once the store has lost the study,
    nothing more is written. An end of the study that an earlier process left is passed over: the
    study that was opened again has not ended, and says so itself when it does.

    Args:
        runs: Where the events are written.
        spool: Released when the writer is closed.
        rejected: File for what cannot be written, created when it is needed.
        study_id: Events of another study are rejected.
        store: The store's address, fit to be shown.
        retry_seconds: First and longest pause before a failed write is tried again.
    """

    def __init__(
        self,
        runs: StudyRuns,
        spool: Spool,
        rejected: Path,
        study_id: str,
        store: str,
        retry_seconds: tuple[float, float],
    ) -> None:
        self._runs = runs
        self._spool = spool
        self._rejected = rejected
        self._study_id = study_id
        self._store = store
        self._retry_seconds = retry_seconds
        self._pause_seconds = retry_seconds[0]
        self._away_since: float | None = None
        self._is_closing = threading.Event()
        self._hurry = threading.Event()
        self._is_abandoned = False
        self._num_written = 0
        self.num_rejected = 0
        self.first_rejection: str | None = None
        self.last_failure: str | None = None  # while the store is away
        self.loss: str | None = None  # what of the study the store has no longer
        self.is_drained = False
        self._thread = threading.Thread(target=self._write_all, name="mlflow-writer", daemon=True)
        self._thread.start()

    def close(self, timeout_seconds: float, *, while_it_goes_on: bool = False) -> None:
        """Send what is left, at once, then stop trying.

        Args:
            timeout_seconds: For how long.
            while_it_goes_on: Whether the time begins again with each write, and each file of
                a model, that the store takes.
        """
        self._is_closing.set()
        self._hurry.set()
        self._spool.close_to_appending()
        since, end = time.monotonic(), time.monotonic() + timeout_seconds
        written = num_before = self._num_written
        reported = since
        while self.is_alive and time.monotonic() < end:
            self._thread.join(min(1.0, max(0.0, end - time.monotonic())))
            now = time.monotonic()
            if while_it_goes_on and self._num_written > written:
                written, end = self._num_written, now + timeout_seconds
            if self.is_alive and now - reported >= _REPORT_EVERY_SECONDS:
                reported = now
                _LOG.warning(
                    "waiting for MLflow at %s: %d writes done in %.0f s, %d events wait at most",
                    self._store, self._num_written - num_before, now - since, self._spool.count(),
                )  # fmt: skip
        self._is_abandoned = True
        self._hurry.set()
        if not self.is_alive:  # else it may still read
            self._spool.release()

    @property
    def is_sending(self) -> bool:
        """Whether what waits is on its way, as far as is known."""
        return self.is_alive and self.last_failure is None

    @property
    def is_alive(self) -> bool:
        """Whether a call to the store has not come back yet."""
        return self._thread.is_alive()

    def _write_all(self) -> None:
        try:
            while self._spool.wait():
                # A little longer, so that measurements share a call.
                self._is_closing.wait(_LINGER_SECONDS)
                lines = self._spool.read()
                self._write_round(lines)
                self._spool.take(lines[-1].end)
            self.is_drained = True
        except _AbandonedError:
            pass

    def _write_round(self, lines: Sequence[Line]) -> None:
        """Write what happened to each trial together, when it ended or the round does."""
        waiting: dict[str, list[_Spooled]] = {}
        for line in lines:
            match self._event(line):
                case None:
                    continue
                case TrialStarted() | TrialMeasured() as event:
                    waiting.setdefault(event.trial_id, []).append((line, event))
                case TrialEnded(trial_id=trial_id) as event:
                    self._write_trial([*waiting.pop(trial_id, []), (line, event)])
                case StudyEnded() as event:
                    self._write_waiting(waiting)
                    self._require_store(None)  # what was written to a deleted file is gone
                    refusal = self._try(None, partial(self._runs.finish, event, self._goes_on))
                    if refusal is not None:
                        self._reject(line, one_line(refusal))
        self._write_waiting(waiting)

    def _event(self, line: Line) -> Event | None:
        """What a line says; None where it is not for this study or not for this process."""
        try:
            study_id, event = from_line(line.text)
        except ValueError as error:
            self._reject(line, one_line(error))
            return None
        if study_id != self._study_id:
            # Left by a start that was refused and forgotten: nothing of this study is missing.
            reason = f"of study {study_id}, not of {self._study_id}"
            self._try(None, partial(keep_rejected, self._rejected, line.text, reason))
            return None
        return None if isinstance(event, StudyEnded) and line.is_leftover else event

    def _write_waiting(self, waiting: dict[str, list[_Spooled]]) -> None:
        for spooled in waiting.values():
            self._write_trial(spooled)
        waiting.clear()

    def _write_trial(self, spooled: Sequence[_Spooled]) -> None:
        """Write what happened to a trial together; one by one where that is refused."""
        line, event = spooled[0]
        events = [event for _, event in spooled]
        refusal = self._try(event.trial_id, partial(self._runs.write, events))
        if refusal is None:
            return
        if len(spooled) > 1:
            for one in spooled:
                self._write_trial([one])
            return
        # What was left of a trial for a store that is no more is sent with its end.
        is_left = line.is_leftover and isinstance(event, TrialMeasured)
        if not (is_left and isinstance(refusal, RefusedWriteError)):
            self._reject(line, one_line(refusal))

    def _reject(self, line: Line, reason: str) -> None:
        self._try(None, partial(keep_rejected, self._rejected, line.text, reason))
        self.num_rejected += 1
        if self.first_rejection is None:
            self.first_rejection = reason
            _LOG.error("MLflow at %s: a write was refused: %s", self._store, reason)

    def _try(self, trial_id: str | None, write: Callable[[], None]) -> Exception | None:
        """Write, for as long as it takes; returns the error of a write that was refused."""
        while not self._is_abandoned:
            try:
                write()
            except store_errors() as error:
                if trial_id is not None:
                    self._runs.forget(trial_id)
                self._require_store(error)
                if is_refusal(error):
                    self._note_answer()
                    return error
                self._note_failure(error)
                self._pause()
            else:
                self._note_answer()
                self._goes_on()
                return None
        raise _AbandonedError

    def _goes_on(self) -> None:
        self._num_written += 1

    def _require_store(self, error: Exception | None) -> None:
        """Write no more where the store has lost the study."""
        self.loss = self._runs.loss(error)
        if self.loss is not None:
            _LOG.warning("%s; the study goes on, and its folder has everything", self.loss)
            raise _AbandonedError

    def _note_failure(self, error: Exception) -> None:
        self.last_failure = one_line(error)
        if self._away_since is None:
            self._away_since = time.monotonic()
            _LOG.warning(
                "MLflow at %s does not answer (%s); the study goes on, and what it measures waits "
                "in %s", self._store, self.last_failure, self._spool.path,
            )  # fmt: skip

    def _note_answer(self) -> None:
        self._pause_seconds = self._retry_seconds[0]
        self.last_failure = None
        if self._away_since is not None:
            seconds = time.monotonic() - self._away_since
            self._away_since = None
            _LOG.warning("MLflow at %s answers again after %.0f s", self._store, seconds)

    def _pause(self) -> None:
        """Wait before the next try, unless closing asks for it at once."""
        longest = self._retry_seconds[1]
        if self._is_closing.is_set():
            longest = min(longest, _LONGEST_PAUSE_WHILE_CLOSING_SECONDS)
        if self._hurry.wait(min(self._pause_seconds, longest)):
            self._hurry.clear()
            self._pause_seconds = self._retry_seconds[0]
        else:
            self._pause_seconds = min(2 * self._pause_seconds, self._retry_seconds[1])
