"""Tables of what was measured beside the losses, and of what happened to trials."""

import json
from collections.abc import Mapping
from typing import Any

from scaling.analysis.findings import Findings
from scaling.analysis.statistics.uncertainty import ABSENT
from scaling.analysis.trial_rows import incidents_of
from scaling.records.metrics import Metric
from scaling.records.metrics import Table as TableName
from scaling.report.tables.table import Table
from scaling.report.words.measurements import heading, in_its_unit, measured_of_table
from scaling.report.words.numbers import cell_name, counted

_MOST_LISTED = 1000
"""Incidents that the page lists."""


def task_metrics_table(findings: Findings) -> Table | None:
    """The task's own metrics, one row a cell; None where it has none."""
    measured = {
        name: metric
        for name, metric in findings.sweep.metrics.items()
        if any(cell.metrics[name].value is not None for cell in findings.cells)
    }
    remarks = [
        f"{words} is better: {', '.join(named)}."
        for direction, words in (("maximize", "Higher"), ("minimize", "Lower"))
        if (named := [m.label for m in measured.values() if m.direction == direction])
    ]
    return _by_cell(findings, measured, "metrics", tuple(remarks))


def measured_table(findings: Findings, name: TableName) -> Table | None:
    """The measurements that name this table, one row a cell; None where there are none."""
    return _by_cell(findings, measured_of_table(findings, name), "measured")


def _by_cell(
    findings: Findings, columns: Mapping[str, Metric], field: str, remarks: tuple[str, ...] = ()
) -> Table | None:
    if not columns:
        return None
    of_cells = [(cell_name(cell), getattr(cell, field)) for cell in findings.cells]
    rows = tuple(
        (name, *(in_its_unit(m, found.get(n, ABSENT)) for n, m in columns.items()))
        for name, found in of_cells
    )
    return Table(("cell", *map(heading, columns.values())), rows, remarks=remarks)


def incidents_table(findings: Findings, urls: Mapping[str, str]) -> Table | None:
    """What happened to trials besides training, by trial; None where nothing did."""
    found = [(row, incident) for row in findings.sweep.rows for incident in incidents_of(row)]
    if not found:
        return None
    listed = found[:_MOST_LISTED]
    rows = tuple(
        (r.trial_id, r.phase, f"{r.global_batch_size:,}", r.status, incident_words(incident))
        for r, incident in listed
    )
    affected = counted(len({row.trial_id for row, _ in found}), "trial")
    which = f"{counted(len(found), 'incident')} in {affected}"
    if len(listed) < len(found):
        which = f"The first {len(listed):,} of {which}"
    return Table(
        ("trial", "phase", "global_batch_size", "ended as", "what happened"),
        rows, tuple(urls.get(row.trial_id) for row, _ in listed),
        note=f"{which}. A restarted trial goes on from its last checkpoint.",
    )  # fmt: skip


def incident_words(incident: Mapping[str, Any]) -> str:
    """One incident in words."""
    step, cause = incident.get("step"), incident.get("cause")
    at_step = "" if step is None else f" at step {step:,}"
    match incident.get("kind"):
        case "restarted":
            attempt = incident.get("attempt")
            return f"restarted{'' if attempt is None else f' (attempt {attempt})'}: {cause}"
        case "resumed":
            return f"resumed from the checkpoint{at_step}"
        case "out_of_memory":
            smaller = incident.get("micro_batch_size")
            return f"memory ran out{at_step}; went on with a micro-batch of {smaller}"
        case "checkpoint_failed":
            return f"a checkpoint could not be written: {cause}"
        case "checkpoint_passed_over":
            return f"the checkpoint{at_step} was passed over: {cause}"
        case "model_not_kept":
            return f"the model could not be kept: {cause}"
        case "no_top_eigenvalue":
            return f"the largest eigenvalue of the Hessian could not be measured: {cause}"
        case "left_out":
            return f"{incident.get('count')} incidents that MLflow's record of it has no room for"
        case "failed":
            return f"failed: {cause}"
        case _:
            return json.dumps(dict(incident))
