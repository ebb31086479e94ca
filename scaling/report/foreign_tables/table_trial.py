"""One trial of a table from elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scaling.analysis.trial_rows import TrialRow
from scaling.records.objective import VALIDATION_LOSS, Objective
from scaling.records.trial import Status
from scaling.report.foreign_tables.table_curves import End
from scaling.report.foreign_tables.table_line import Line
from scaling.report.foreign_tables.table_names import MAXIMIZED, known_statuses, status_of
from scaling.report.foreign_tables.table_numbers import FALSE, TRUE

_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Extras:
    """Further columns: what they are called in the report, and in a line.

    Attributes:
        scale: Those that are the numbers of a size.
        tuned_for: What recipes are compared by: the loss, or the column of --maximize.
    """

    nuisance: Mapping[str, str]
    axes: Mapping[str, str]
    scale: Mapping[str, str]
    tuned_for: Objective = VALIDATION_LOSS


def status_in(line: Line) -> Status | None:
    """How a row's run ended, where the table says so.

    Raises:
        TableError: For a word that is no status.
    """
    text = line.text("status")
    if not text:
        return None
    status = status_of(text)
    if status is None:
        raise line.error(
            "status", "is no status; --where COLUMN=VALUE reads the rows that have one value of "
            f"it; known: {known_statuses()}", offers=["--where"],
        )  # fmt: skip
    return status


def trial_of(
    line: Line,
    status: Status | None,
    extras: Extras,
    present: Sequence[tuple[str, Callable[[Line, str], Any]]],
    cells: dict[tuple[tuple[str, Any], ...], dict[str, Any]],
    end: End,
) -> TrialRow:
    """One trial.

    Args:
        line: The row.
        status: How it ended, where the table says so.
        extras: Further columns.
        present: The optional columns that the table has, and how each is read.
        cells: Those met so far, so that a million rows share a few.
        end: Of its curve, where the row was made of several.
    """
    size = line.size("global_batch_size")
    if size is None:
        raise line.error("global_batch_size", "must be a whole number of at least 1")
    rate = line.positive("peak_lr")
    if "peak_lr" in line.values and rate is None:
        raise line.error("peak_lr", "must be a finite number above 0")
    result = "validation_loss" if extras.tuned_for.is_loss else MAXIMIZED
    value = line.finite(result)
    if end.is_lost and status in (None, "done", "stopped"):
        status = "diverged"
    elif end.is_early and status in (None, "done"):
        status = "stopped"
    lost = _diverged(line, result, value, status)
    measured = {name: read(line, name) for name, read in present}
    if end.steps is not None:
        measured["steps"] = end.steps
    steps, reached = measured.get("steps"), measured.get("steps_to_target")
    if measured.get("examples") is None and steps is not None:
        measured["examples"] = steps * size
    if reached is None:
        measured["seconds_to_target"] = None
    elif measured.get("examples_to_target") is None:
        measured["examples_to_target"] = reached * size
    axes = {name: line.value(column) for name, column in extras.axes.items()}
    axes |= {name: _scale(line, column) for name, column in extras.scale.items()}
    cell = {"global_batch_size": size, **axes}
    choices = _NOTHING
    if extras.nuisance:
        choices = {"peak_lr": rate} if rate is not None else {}
        choices |= {name: line.value(column) for name, column in extras.nuisance.items()}
    name = key = f"line-{line.number}"
    if measured.get("seed") is not None:  # the same for the seeds of one recipe
        parts = (rate, measured.get("warmup_steps"), measured.get("clip_norm"))
        key = " ".join(map(str, (*cell.values(), *parts, *choices.values())))
    row = TrialRow(
        trial_id=name,
        phase="search",
        status="diverged" if lost else status or "done",
        cell=cells.setdefault(tuple(cell.items()), cell),
        global_batch_size=size,
        recipe_key=key,
        peak_lr=rate,
        objective=reached if result not in line.values else value,
        validation_loss=value,
        choices=choices,
        measured=_NOTHING,
        metrics=_NOTHING,
        tuned_for=extras.tuned_for,
        **measured,
    )
    if lost or row.status == "stopped":
        row = without_losses(row, keeps_target=not lost)
    if extras.tuned_for.is_loss or row.validation_loss is None:
        return row
    score = row.validation_loss
    return replace(
        row, objective=extras.tuned_for.oriented(score), validation_loss=None,
        metrics={extras.tuned_for.name: score},
    )  # fmt: skip


def _scale(line: Line, column: str) -> float:
    """A number of a size; a whole one where it is that."""
    value = line.positive(column)
    if value is None:
        raise line.error(column, "must be a finite number above 0, as it is the size of a run")
    return int(value) if value.is_integer() and value < 2**63 else value


def without_losses(row: TrialRow, *, keeps_target: bool) -> TrialRow:
    """A diverged trial has no final losses and no target; a stopped one has no final losses.

    An objective beside which there is no loss is the steps to the target.
    """
    row = replace(
        row, objective=row.objective if keeps_target and row.validation_loss is None else None,
        validation_loss=None, train_loss=None, test_loss=None,
    )  # fmt: skip
    if keeps_target:
        return row
    return replace(row, steps_to_target=None, examples_to_target=None, seconds_to_target=None)


def _diverged(line: Line, result: str, value: float | None, status: Status | None) -> bool:
    if is_marked_diverged(line) or status == "diverged":
        return True
    if result not in line.values or value is not None or status == "stopped":
        return False
    if not line.text(result):
        raise line.error(
            result, "is blank, and the row is not marked as diverged; mark it in a column "
            "diverged or status, or leave it out with --where", offers=["--where"],
        )  # fmt: skip
    return True


def is_marked_diverged(line: Line) -> bool:
    """Whether the column `diverged` says so."""
    text = line.text("diverged").lower()
    if text and text not in TRUE + FALSE:
        raise line.error("diverged", "must be true or false")
    return text in TRUE


OPTIONAL: Mapping[str, Callable[[Line, str], Any]] = {
    "seed": Line.count,
    "warmup_steps": Line.count,
    "clip_norm": Line.positive,
    "train_loss": Line.finite,
    "test_loss": Line.finite,
    "steps": Line.at_least_0,
    "examples": Line.at_least_0,
    "seconds": Line.at_least_0,
    "steps_to_target": Line.positive,
    "examples_to_target": Line.positive,
    "seconds_to_target": Line.positive,
    "grad_sq_norm": Line.positive,
    "grad_covariance_trace": Line.positive,
}
"""How the columns are read that a table need not have."""
