"""Whether a sampler can go on with what it left behind, before anything does."""

import json
from pathlib import Path
from typing import Any

from scaling.files.shown_error import first_line
from scaling.files.shown_path import shown_path
from scaling.records.ledger import whole_lines


def broken_journal(file: Path) -> str | None:
    """What of Optuna's journal cannot be read, in one line with the file and the line.

    A last line that a crash cut off is no fault. Returns None where all is well.
    """
    lines = whole_lines(file)
    for number, line in enumerate(lines, 1):
        try:
            known: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            return _not_the_journal(file, number, first_line(error))
        if not isinstance(known, dict) or "op_code" not in known:
            return _not_the_journal(file, number, "it has no op_code")
    return None if not lines else _unplayable_journal(file)


def _unplayable_journal(file: Path) -> str | None:
    """What Optuna says of a journal all of whose lines look like its own."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        JournalStorage(JournalFileBackend(str(file)))
    except (LookupError, TypeError, ValueError, AssertionError) as error:
        return _not_the_journal(file, None, first_line(error) or type(error).__name__)
    return None


def _not_the_journal(file: Path, number: int | None, reason: str) -> str:
    where = f"line {number} of it" if number else "it"
    return (
        f"{shown_path(file)}: Optuna cannot read {where} ({reason}); restore the file, or "
        "delete it and the search goes on without what its sampler had learnt"
    )
