"""How measurements are written: headings, axes and values, in units that are easy to read."""

from collections.abc import Mapping
from typing import Final

from scaling.analysis.findings import Findings
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.records.measurement import MEASURED, RESULTS
from scaling.records.metrics import Metric, OverSeeds, Table, Unit, with_loss_unit
from scaling.records.objective import VALIDATION_LOSS, Objective
from scaling.report.words.numbers import with_interval

ALL: Final[Mapping[str, Metric]] = MEASURED | RESULTS

_SHOWN: Mapping[Unit, tuple[str, float]] = {
    "fraction": ("%", 100.0),
    "percent": ("%", 1.0),
    "seconds": ("s", 1.0),
    "bytes": ("GiB", 2.0**-30),
    "FLOP": ("GFLOP", 1e-9),
    "FLOP/s": ("TFLOP/s", 1e-12),
}
"""The unit that a reader sees, and how many of it one recorded unit is."""

_POOLED: Mapping[OverSeeds, str] = {
    "mean": "",
    "geometric_mean": " Over seeds: the geometric mean.",
    "max": " Over seeds: the largest.",
}


def heading(metric: Metric) -> str:
    """A column's heading, as in `validation loss (nats)`; a unit that its label has isn't added."""
    if not metric.unit or metric.unit.split("/")[0] in metric.label.split():
        return metric.label
    unit, _ = _SHOWN.get(metric.unit, (metric.unit, 1.0))
    return f"{metric.label} ({unit})"


def axis_title(name: str, loss_unit: Unit = "nats") -> str:
    """The title of a measurement's axis, as in `Validation loss (nats)`."""
    words = heading(with_loss_unit(ALL[name], loss_unit))
    return words[0].upper() + words[1:]


def objective_title(objective: Objective) -> str:
    """The title of its axis, as in `Validation loss (nats)`, `Accuracy`, `smooth loss`."""
    if objective.is_loss and objective.label == VALIDATION_LOSS.label:
        return axis_title(objective.name, objective.unit)
    return objective.label


def in_its_unit(metric: Metric, estimate: Estimate, digits: int = 3) -> str:
    """A measurement and, under it, its interval, in the unit of its heading."""
    _, scale = _SHOWN.get(metric.unit, ("", 1.0))
    value = None if estimate.value is None else estimate.value * scale
    interval = estimate.interval and (estimate.interval[0] * scale, estimate.interval[1] * scale)
    return with_interval(Estimate(value, interval, estimate.count), digits)


def of_table(table: Table, loss_unit: Unit) -> dict[str, Metric]:
    """The measurements that a table of the report may have, by name."""
    return {
        name: with_loss_unit(metric, loss_unit)
        for name, metric in ALL.items()
        if metric.table == table
    }


def measured_of_table(findings: Findings, table: Table) -> dict[str, Metric]:
    """Those of them that some cell has."""
    measured = {
        n for cell in findings.cells for n, e in cell.measured.items() if e.value is not None
    }
    columns = of_table(table, findings.sweep.loss_unit)
    return {name: metric for name, metric in columns.items() if name in measured}


def explained(findings: Findings) -> list[tuple[str, str]]:
    """(term, meaning) of every measurement that the report of these findings shows."""
    further = measured_of_table(findings, "optimization") | measured_of_table(findings, "hardware")
    cells = of_table("cells", findings.sweep.loss_unit)
    shown = {**cells, **findings.sweep.metrics, **further}
    return [term(name, metric) for name, metric in shown.items()]


def term(name: str, metric: Metric) -> tuple[str, str]:
    """Its label, and its name in the record where that's no other way to write it; its meaning."""
    better = {"maximize": "; higher is better.", "minimize": "; lower is better.", None: "."}
    is_own = "_" in name and name.replace("_", " ") != metric.label
    names = (metric.label, name) if is_own else (metric.label,)
    return ", ".join(names), (
        metric.help.rstrip(".") + better[metric.direction] + _POOLED[metric.over_seeds]
    )
