"""Cells whose rates were searched beyond the range of the study file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scaling.analysis.learning_rate.curves import Edge, lr_curve
from scaling.analysis.trial_rows import Cell, Sweep, row_of
from scaling.records.metrics import Metric
from scaling.records.trial import TrialRecord
from scaling.spec.study import StudySpec


@dataclass(frozen=True)
class ExtendedCell:
    """A cell that was searched beyond its range; its budget is not that of the others then.

    Attributes:
        num_trials_beyond: Those beyond the range.
        num_rounds: How often the range was extended.
        peak_lr_beyond: The lowest and the highest rate tried beyond; None where rates are fixed.
    """

    cell: Cell
    num_trials: int
    num_trials_beyond: int
    num_rounds: int
    peak_lr_beyond: tuple[float, float] | None


def rate_edge(
    records: Sequence[TrialRecord], spec: StudySpec, metrics: Mapping[str, Metric]
) -> Edge | None:
    """The end of the rates tried that a cell's best one is at; None where it lies inside."""
    curve = lr_curve([row_of(record, spec, metrics) for record in records])
    return curve.edge if curve is not None else None


def extended_cells(sweep: Sweep) -> tuple[ExtendedCell, ...]:
    """The cells that were searched beyond their range."""
    found: list[ExtendedCell] = []
    for cell in sweep.cells:
        rows = sweep.rows_of(cell, "search")
        beyond = [row for row in rows if row.search_round > 0]
        rates = [row.peak_lr for row in beyond if row.peak_lr is not None]
        if beyond:
            found.append(
                ExtendedCell(
                    cell=cell,
                    num_trials=len(rows),
                    num_trials_beyond=len(beyond),
                    num_rounds=max(row.search_round for row in beyond),
                    peak_lr_beyond=(min(rates), max(rates)) if rates else None,
                )
            )
    return tuple(found)
