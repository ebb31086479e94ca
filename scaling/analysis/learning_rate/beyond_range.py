"""Cells whose rates were searched beyond the range of the study file."""

from collections.abc import Sequence
from typing import Any

from scaling.analysis.cells import label
from scaling.analysis.learning_rate.curves import Edge, lr_curve
from scaling.analysis.rows import Sweep, row_of
from scaling.analysis.wording import counted, rate
from scaling.records.trial import TrialRecord
from scaling.spec.study import StudySpec


def rate_edge(records: Sequence[TrialRecord], spec: StudySpec) -> Edge | None:
    """The end of the rates tried that a cell's best one is at; None where it lies inside."""
    curve = lr_curve([row_of(record, spec) for record in records])
    return curve.edge if curve is not None else None


def extended_summary(sweep: Sweep) -> list[dict[str, Any]]:
    """One entry a cell that was searched beyond its range: all its trials, and those beyond."""
    entries: list[dict[str, Any]] = []
    for cell in sweep.cells:
        rows = sweep.rows_of(cell, "search")
        beyond = [row for row in rows if row.search_round > 0]
        rates = [row.peak_lr for row in beyond if row.peak_lr is not None]
        if beyond:
            entries.append(
                {
                    "cell": dict(cell),
                    "num_trials": len(rows),
                    "num_trials_beyond": len(beyond),
                    "num_rounds": max(row.search_round for row in beyond),
                    "peak_lr_beyond": [min(rates), max(rates)] if rates else None,
                }
            )
    return entries


def extension_lines(sweep: Sweep) -> list[str]:
    """One line a cell that was searched beyond its range: budgets are not equal then."""
    lines: list[str] = []
    for entry in extended_summary(sweep):
        rates = entry["peak_lr_beyond"]
        where = f" at rates from {rate(rates[0])} to {rate(rates[1])}" if rates else ""
        lines.append(
            f"{label(entry['cell']) or 'all trials'}: searched beyond the range of the study file "
            f"with {counted(entry['num_trials_beyond'], 'trial')} more{where}, as close as "
            f"before; it has {entry['num_trials']} trials in all, more than cells that were not."
        )
    return lines
