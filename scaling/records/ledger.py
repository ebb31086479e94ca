"""Every trial of a study as it happens: in memory, on disk, and to whoever watches."""

import errno
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from scaling.files.own import no_follow
from scaling.files.shown_error import first_line
from scaling.files.shown_path import shown_path
from scaling.records.measurement import Measurement
from scaling.records.trial import Status, TrialRecord

TRIALS_FILE = "trials.jsonl"


class Observer(Protocol):
    """Is told of each trial's start, measurements and end."""

    def trial_started(self, record: TrialRecord) -> None:
        """A trial is about to train."""

    def trial_measured(self, trial_id: str, measurements: Sequence[Measurement]) -> None:
        """New measurements of a running trial."""

    def trial_ended(self, record: TrialRecord) -> None:
        """A trial ended; its record is complete."""


_PIECE = 1 << 20
"""Bytes that a file's end is looked for at a time."""


class Ledger:
    """The records of a study's trials.

    An ended trial is one line of `trials.jsonl`, appended and flushed to disk before anyone is
    told; on resume these lines are read back and their trials do not run again. A trial that
    failed does run again.
    """

    def __init__(self, storage: Path, observers: Sequence[Observer]) -> None:
        self._file = storage / TRIALS_FILE
        self._observers = observers
        self._started_at: dict[str, float] = {}
        cut_unfinished_line(self._file)
        self.records: dict[str, TrialRecord] = read_records(self._file)

    def start(self, record: TrialRecord) -> None:
        """A trial has a worker group. Starting again (a group died) keeps what was measured."""
        if record.trial_id in self._started_at:
            return
        self._started_at[record.trial_id] = time.monotonic()
        with open(self._file, "ab", opener=no_follow):
            pass  # from here on there is something that can be gone on with
        self.records[record.trial_id] = record
        for observer in self._observers:
            observer.trial_started(record)

    def measure(self, trial_id: str, measurements: Sequence[Measurement]) -> Sequence[Measurement]:
        """Take in a running trial's measurements; returns those that were not known before."""
        before = self.records[trial_id]
        after = self.records[trial_id] = before.extended(measurements)
        new = after.measurements[len(before.measurements) :]
        for observer in self._observers:
            observer.trial_measured(trial_id, new)
        return new

    def note(self, trial_id: str, incident: Mapping[str, Any]) -> None:
        """Keep what happened to a running trial besides training; said twice it is kept once."""
        record = self.records[trial_id]
        if record.status == "running" and incident not in record.incidents:
            self.records[trial_id] = replace(record, incidents=(*record.incidents, dict(incident)))

    def end(self, trial_id: str, status: Status, error: str | None = None) -> None:
        """A trial ended; the first end counts."""
        record = self.records[trial_id]
        if record.status != "running":
            return
        started_at = self._started_at.get(trial_id, time.monotonic())
        record = replace(
            record, status=status, error=error, wall_seconds=time.monotonic() - started_at
        )
        append_line(self._file, record.to_json())
        self.records[trial_id] = record
        for observer in self._observers:
            observer.trial_ended(record)


def read_records(file: Path) -> dict[str, TrialRecord]:
    """Records by trial_id, the last line of each; a last line cut off by a crash is left out.

    Raises:
        ValueError: If another line is not a trial's record; the message says which and why.
    """
    if not file.exists():
        return {}
    seen = file.stat()
    version = seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
    return dict(_records(file, *version))


@lru_cache(maxsize=1)
def _records(file: Path, *_version: int) -> Mapping[str, TrialRecord]:
    """Of the version read last: each check of a study that goes on asks for its many records."""
    records = [_record(line, number, file) for number, line in enumerate(whole_lines(file), 1)]
    return {record.trial_id: record for record in records}


def _record(line: bytes, number: int, file: Path) -> TrialRecord:
    try:
        # What was written is read, however long a budget in seconds has made it.
        return TrialRecord.from_json(line.decode(), max_bytes=sys.maxsize)
    except ValueError as error:
        cause = first_line(error)
    raise ValueError(
        f"line {number} of {shown_path(file)} is not a trial's record ({cause}); restore the "
        "file, or remove the line: its trial then runs again"
    )


def whole_lines(file: Path) -> list[bytes]:
    """Lines without their ends; none where there is no file, and no last one without an end."""
    return file.read_bytes().split(b"\n")[:-1] if file.exists() else []


def cut_unfinished_line(file: Path) -> None:
    """Remove a last line without an end, which a crash cut off: the next one would go on in it.

    Raises:
        OSError: Where it cannot be read or written.
    """
    if file.exists():
        with open(file, "r+b", buffering=0, opener=no_follow) as lines:
            start = size = os.fstat(lines.fileno()).st_size
            end = 0
            while start > 0 and not end:  # back from the end, as a file may be larger than memory
                start = lines.seek(max(start - _PIECE, 0))
                if (place := lines.read(_PIECE).rfind(b"\n")) >= 0:
                    end = start + place + 1
            if end < size:
                lines.truncate(end)


def append_line(file: Path, line: str) -> None:
    """Append a line and flush it to the disk; where that fails the file is as it was.

    Raises:
        OSError: Where it cannot be written.
    """
    with open(file, "ab", buffering=0, opener=no_follow) as lines:
        length = lines.tell()
        content = line.encode() + b"\n"
        try:
            if lines.write(content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file))
            os.fsync(lines.fileno())
        except OSError:
            lines.truncate(length)
            raise


def by_cell(records: Mapping[str, TrialRecord], cell: Mapping[str, object]) -> list[TrialRecord]:
    """The search trials of one cell, by trial_id."""
    return [
        record
        for _, record in sorted(records.items())
        if record.phase == "search" and dict(record.cell) == dict(cell)
    ]
