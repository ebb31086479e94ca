"""Which of a table's columns are ours, and what to suggest where one is missing."""

import difflib
import re
from collections.abc import Mapping, Sequence

from scaling.records.trial import Status
from scaling.report.foreign_tables.table_text import TableError

COLUMNS = (
    "global_batch_size", "peak_lr", "validation_loss", "train_loss", "test_loss", "steps",
    "examples", "seconds", "steps_to_target", "examples_to_target", "seconds_to_target", "target",
    "seed", "diverged", "status", "warmup_steps", "clip_norm", "grad_sq_norm",
    "grad_covariance_trace",
)  # fmt: skip
"""What is read of a table; all other columns are left alone."""

COUNTS = frozenset(
    {
        "global_batch_size", "steps", "examples", "steps_to_target", "examples_to_target", "seed",
        "warmup_steps",
    }
)  # fmt: skip
"""Columns of whole numbers, where a comma in quotes can only stand between thousands."""

_PREFIXES = ("params.", "metrics.", "config.", "summary.", "tags.")
"""What MLflow's and W&B's exports put before a name."""

_STATUS_COLUMNS = ("tags.status", "status", "State", "state")

_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "global_batch_size": (
        "batch_size", "bs", "batch", "global_batch", "train_batch_size", "total_batch_size",
        "effective_batch_size", "batchsize",
    ),
    "peak_lr": ("lr", "learning_rate", "max_lr", "learningrate", "base_lr", "eta"),
    "validation_loss": (
        "val_loss", "valid_loss", "eval_loss", "validation", "dev_loss", "smooth_loss", "loss",
        "value",
    ),
    "steps_to_target": ("steps_to_loss", "steps_to_reach", "num_steps_to_target", "steps"),
}  # fmt: skip
"""What others call it; only ever suggested, never taken."""

_STATUSES: Mapping[str, Status] = {
    "done": "done", "finished": "done", "complete": "done", "completed": "done",
    "success": "done",
    "stopped": "stopped", "pruned": "stopped",
    "diverged": "diverged",
    "failed": "failed", "fail": "failed", "crashed": "failed", "killed": "failed",
    "preempted": "failed", "error": "failed", "canceled": "failed", "cancelled": "failed",
    "running": "running", "pending": "running", "scheduled": "running", "waiting": "running",
    "preempting": "running", "queued": "running",
}  # fmt: skip


def status_of(word: str) -> Status | None:
    """How a run ended, by MLflow's, W&B's, Optuna's or our word; None for an unknown word."""
    return _STATUSES.get(word.strip().lower())


def known_statuses() -> str:
    """The words that `status_of` knows."""
    return listed(tuple(_STATUSES))


def named(file: str, header: Sequence[str], rename: Sequence[tuple[str, str]]) -> list[str]:
    """The header by our names.

    First come the renamings, then names that are ours already, then ours behind a prefix of an
    MLflow or W&B export. `State` of W&B is our `status`, and a `tags.status` is preferred to
    MLflow's own `status`, which calls a diverged run finished.

    Raises:
        TableError: If a renaming is unknown, or two columns would have one of our names.
    """
    names = list(header)
    for theirs, ours in rename:
        if theirs not in header:
            raise TableError(f"{file}: --rename: no column {theirs!r}; there are {listed(header)}")
        if ours not in COLUMNS:
            raise TableError(f"{file}: --rename: unknown name {ours!r}; known: {listed(COLUMNS)}")
        names[header.index(theirs)] = ours
    asked = {ours for _, ours in rename}
    for ours in COLUMNS:
        if ours not in asked:
            _recognise(file, header, names, ours)
        if names.count(ours) > 1:
            raise TableError(f"{file}: line 1 (header): two columns are called {ours!r}")
    return names


def _recognise(file: str, header: Sequence[str], names: list[str], ours: str) -> None:
    """Give one of our names to the column that has it behind a prefix."""
    if ours == "status":
        found = [names.index(name) for name in _STATUS_COLUMNS if name in names][:1]
        names[:] = ["(status)" if name == "status" else name for name in names]
    elif ours in names:
        return
    else:
        found = [index for index, name in enumerate(names) if _unprefixed(name) == ours]
    if len(found) > 1:
        both = listed([header[index] for index in found])
        raise TableError(
            f"{file}: line 1 (header): {both} may all be {ours!r}; "
            f"--rename COLUMN={ours} says which"
        )
    for index in found:
        names[index] = ours


def _unprefixed(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def missing_columns(file: str, missing: Sequence[str], header: Sequence[str]) -> TableError:
    """The error for columns that a table lacks, with a renaming to try where one looks right."""
    hints = [hint for ours in missing if (hint := _suggestion(ours, header))]
    help_ = f"did you mean {' '.join(hints)}?" if hints else "--rename THEIRS=OURS names a column"
    return TableError(
        f"{file}: line 1 (header): missing column {listed(missing)}; there are {listed(header)} "
        f"({help_})"
    )


def _suggestion(ours: str, header: Sequence[str]) -> str:
    plain = {_plain(name): name for name in reversed(header)}
    for synonym in _SYNONYMS.get(ours, ()):
        if synonym in plain:
            return _option(plain[synonym], ours)
    close = difflib.get_close_matches(ours, list(plain), n=1, cutoff=0.75)
    return _option(plain[close[0]], ours) if close else ""


def _option(theirs: str, ours: str) -> str:
    argument = f"{theirs}={ours}"
    return f'--rename "{argument}"' if re.search(r"[^\w./=-]", argument) else f"--rename {argument}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", _unprefixed(name).lower()).strip("_")


def listed(names: Sequence[str]) -> str:
    """Names in quotes; of very many the first ones."""
    shown = ", ".join(repr(name) for name in names[:40])
    return shown if len(names) <= 40 else f"{shown} and {len(names) - 40} more"
