"""Which of a table's columns are ours."""

import re
from collections.abc import Mapping, Sequence

from scaling.records.trial import Status
from scaling.report.page.printable import printable

COLUMNS = (
    "global_batch_size", "peak_lr", "validation_loss", "train_loss", "test_loss", "steps",
    "examples", "seconds", "steps_to_target", "examples_to_target", "seconds_to_target", "target",
    "seed", "diverged", "status", "warmup_steps", "clip_norm", "grad_sq_norm",
    "grad_covariance_trace",
)  # fmt: skip
"""What is read of a table; all other columns are left alone."""

MAXIMIZED = "(maximized)"
"""The column that --maximize names, which takes the place of `validation_loss`."""

COUNTS = frozenset(
    {
        "global_batch_size", "steps", "examples", "steps_to_target", "examples_to_target", "seed",
        "warmup_steps",
    }
)  # fmt: skip
"""Columns of whole numbers, where a comma in quotes can only stand between thousands."""

_PREFIXES = (
    "params.", "metrics.", "config.", "config/", "summary.", "tags.", "params_", "user_attrs_",
)  # fmt: skip
"""What the exports of MLflow, W&B, Ray Tune and Optuna put before a name."""
CONFIG_PREFIXES = ("config.", "config/", "params.", "params_")
"""What they put before a setting's name."""

_STATUS_COLUMNS = (
    "status", "state", "run_status", "run_state", "trial_status", "trial_state",
)  # fmt: skip

_STATUSES: Mapping[str, Status] = {
    "done": "done", "finished": "done", "complete": "done", "completed": "done",
    "success": "done", "succeeded": "done", "terminated": "done", "ok": "done", "ended": "done",
    "stopped": "stopped", "pruned": "stopped", "early_stopped": "stopped",
    "diverged": "diverged", "nan": "diverged",
    "failed": "failed", "fail": "failed", "crashed": "failed", "killed": "failed",
    "preempted": "failed", "error": "failed", "canceled": "failed", "cancelled": "failed",
    "errored": "failed", "aborted": "failed", "interrupted": "failed", "timeout": "failed",
    "out_of_memory": "failed", "oom": "failed", "node_fail": "failed",
    "running": "running", "pending": "running", "scheduled": "running", "waiting": "running",
    "preempting": "running", "queued": "running", "paused": "running", "created": "running",
}  # fmt: skip

_NEVER_STOPPED = frozenset({"done", "complete"})
"""What we and Optuna call a run, who have another word for one that a search stopped.

Schedulers call any run completed that ended without an error."""


class TableError(ValueError):
    """The table or what was asked of it is wrong, in one line for the user.

    Attributes:
        offers: Options other than --rename that it names as a way on.
    """

    def __init__(self, message: str, *, offers: Sequence[str] = ()) -> None:
        super().__init__(printable(message).replace("\n", "\\n"))
        self.offers = tuple(offers)


def status_of(word: str) -> Status | None:
    """How a run ended, by MLflow's, W&B's, Optuna's or our word; None for an unknown word."""
    return _STATUSES.get(word.strip().lower())


def tells_stopped(word: str) -> bool:
    """Whether a column that has this word says itself which runs a search stopped."""
    return status_of(word) == "stopped" or word.strip().lower() in _NEVER_STOPPED


def known_statuses() -> str:
    """The words that `status_of` knows."""
    return listed(tuple(_STATUSES))


def named(file: str, header: Sequence[str], rename: Sequence[tuple[str, str]]) -> list[str]:
    """The header by our names.

    First come the renamings, then names that are ours already, then ours behind a prefix of an
    MLflow, W&B or Ray export. `State` of W&B and `Status` of MLflow are our `status`; a
    `tags.status` is preferred to them, which call a diverged run finished.

    Raises:
        TableError: If a renaming is to no name of ours, or two columns would have one of our names.
    """
    names = list(header)
    for theirs, ours in rename:
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
        found = _status_column(names)
        names[:] = ["(status)" if name == "status" else name for name in names]
    elif ours in names:
        return
    else:
        found = [index for index, name in enumerate(names) if unprefixed(name) == ours]
    if len(found) > 1:
        both = listed([header[index] for index in found])
        raise TableError(
            f"{file}: line 1 (header): {both} may all be {ours!r}; "
            f"--rename COLUMN={ours} says which"
        )
    for index in found:
        names[index] = ours


def _status_column(names: Sequence[str]) -> list[int]:
    """Where the column stands that says how a run ended; ours before the tracker's own."""
    if "tags.status" in names:
        return [names.index("tags.status")]
    for status in _STATUS_COLUMNS:
        for index, name in enumerate(names):
            if plain(name) == status:
                return [index]
    return []


def place_of_result(names: Sequence[str]) -> int | None:
    """Where the loss stands, or what is maximized in its place; None where there is neither."""
    result = MAXIMIZED if MAXIMIZED in names else "validation_loss"
    return names.index(result) if result in names else None


def unprefixed(name: str) -> str:
    """A column's name without what an export put before it."""
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def plain(name: str) -> str:
    """A name in small letters and underscores, without an export's prefix."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "_", unprefixed(name))
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def listed(names: Sequence[str]) -> str:
    """Names in quotes; of very many the first ones."""
    shown = ", ".join(repr(name) for name in names[:40])
    return shown if len(names) <= 40 else f"{shown} and {len(names) - 40} more"
