"""A queue of lines in a file: what was appended outlives the process and is read in order."""

import json
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scaling.files.own import no_follow
from scaling.records.ledger import cut_unfinished_line

_MAX_ROUND_BYTES = 1 << 20


@dataclass(frozen=True)
class Line:
    """A line of a spool.

    Attributes:
        text: Without its end.
        end: Bytes from the file's beginning to the end of the line.
        is_leftover: Whether it was there when the spool was opened.
    """

    text: str
    end: int
    is_leftover: bool


class Spool:
    """Lines that one thread appends and another one takes; the file is their only memory.

    The file holds every line until all are taken, and is empty then. So a process that dies
    loses nothing, and the next one may see again lines that were taken before. One process at a
    time may open a file.

    Args:
        path: Of the file, created where it is missing. A last line without an end, which a
            crash cut off, is removed.

    Raises:
        OSError: If it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        cut_unfinished_line(path)
        self._file = no_follow(str(path), os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._size = os.fstat(self._file).st_size
        self._leftover_size = self._size
        self._taken = 0
        self._takes_lines = True
        self._changed = threading.Condition()

    def append(self, text: str, *, durable: bool = False) -> None:
        """Append a line, which the operating system has when this returns.

        Args:
            text: Without line breaks.
            durable: Whether the disk has it, too.

        Raises:
            OSError: If it cannot be written; nothing of it is left in the file then.
            ValueError: If the spool was closed to appending.
        """
        line = f"{text}\n".encode()
        with self._changed:
            if not self._takes_lines:
                raise ValueError(f"{self.path} is closed")
            try:
                _write(self._file, line)
                if durable:
                    os.fsync(self._file)
                self._size += len(line)
            except BaseException:  # Ctrl-C may come in the middle of a line, too
                with suppress(OSError):
                    os.ftruncate(self._file, self._size)
                raise
            self._changed.notify_all()

    def close_to_appending(self) -> None:
        """Let the reader end once everything is taken."""
        with self._changed:
            self._takes_lines = False
            self._changed.notify_all()

    def wait(self) -> bool:
        """Wait for a line; False when none is left and none can come."""
        with self._changed:
            self._changed.wait_for(lambda: self._size > self._taken or not self._takes_lines)
            return self._size > self._taken

    def read(self) -> list[Line]:
        """The lines that come next, about a megabyte at most but at least one; none is taken."""
        with self._changed:
            start, size = self._taken, self._size
        data = b""
        while b"\n" not in data:
            data += _read(self._file, start + len(data), size)
        lines: list[Line] = []
        for raw in data.split(b"\n")[:-1]:
            start += len(raw) + 1
            text = raw.decode("utf-8", errors="replace")
            lines.append(Line(text, start, start <= self._leftover_size))
        return lines

    def take(self, end: int) -> None:
        """Take all lines up to `end`; the file is emptied when no other is left."""
        with self._changed:
            self._taken = end
            if end == self._size:
                os.ftruncate(self._file, 0)
                self._size = self._taken = self._leftover_size = 0

    @property
    def has_lines(self) -> bool:
        """Whether some line is not taken."""
        return self._size > self._taken

    def count(self) -> int:
        """How many lines are not taken."""
        with self._changed, self.path.open("rb") as file:
            file.seek(self._taken)
            return sum(1 for _ in file)

    def release(self) -> None:
        """Close the file; what is not taken stays in it."""
        self.close_to_appending()
        os.close(self._file)


def keep_rejected(path: Path, line: str, reason: str) -> None:
    """Append a line of a spool to the file of those that MLflow refused, with the reason.

    Raises:
        OSError: If it cannot be written.
    """
    with open(path, "a", encoding="utf-8", opener=no_follow) as file:
        file.write(json.dumps({"reason": reason, "line": line}) + "\n")


def _write(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]


def _read(file: int, start: int, size: int) -> bytes:
    data = os.pread(file, min(_MAX_ROUND_BYTES, size - start), start)
    if not data:
        raise OSError("a spool was cut off by another process")
    return data
