"""What is said of a measurement, once: unit, label, meaning, and how runs and seeds are pooled."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

Direction = Literal["maximize", "minimize"]

Unit = Literal[
    "", "nats", "steps", "examples", "tokens", "targets", "seconds", "fraction", "percent",
    "bytes", "FLOP", "FLOP/s", "examples/s", "tokens/s", "targets/s", "bits/byte",
]  # fmt: skip
"""Empty for a pure number; `fraction` is 0 … 1 and shown in percent. Of the losses in the table of
measurements it is nats, and where a task says otherwise, what it says: see `with_loss_unit`."""

OverRun = Literal["last", "max", "mean_over_steps", "mean_over_seconds"]
"""One value of a run: its last or largest one, or their mean weighted by what each was over."""

OverSeeds = Literal["mean", "geometric_mean", "max"]

Table = Literal["cells", "optimization", "hardware"]


@dataclass(frozen=True)
class Metric:
    """Everything that is said of one measurement, whoever shows it.

    Attributes:
        label: What it is called in headings, axes and the terms, in lower case but for names.
        help: What it is, in whole sentences; the report's terms.
        unit: Of the recorded value.
        direction: Which way it should go; None where neither is better by itself.
        over_run: How the values along a run become one.
        over_seeds: How the seeds of a recipe become one; a mean gets an interval.
        is_count: Whether it is a whole number.
        is_last_only: Whether it is measured once, after the last step, and not along the run.
        by_examples: Whether MLflow gets it a second time, by examples seen.
        least: What no value is below, as 0 of a count; None where that is not known.
        most: What no value is above, as 1 of a share; None where that is not known.
        table: The table of the report that has it as a column, one row a cell; None for what only
            MLflow and trials.parquet have.
    """

    label: str
    help: str
    unit: Unit = ""
    direction: Direction | None = None
    over_run: OverRun = "last"
    over_seeds: OverSeeds = "mean"
    is_count: bool = False
    is_last_only: bool = False
    by_examples: bool = False
    least: float | None = None
    most: float | None = None
    table: Table | None = None


def metrics_of(described: type) -> dict[str, Metric]:
    """The metrics that the fields of a dataclass are annotated with, by field name."""
    hints = get_type_hints(described, include_extras=True)
    return {
        field.name: next(part for part in get_args(hint) if isinstance(part, Metric))
        for field in fields(described)
        if get_origin(hint := hints[field.name]) is Annotated
    }


def with_loss_unit(metric: Metric, unit: Unit) -> Metric:
    """A measurement of the table as a study shows it whose losses have this unit."""
    return replace(metric, unit=unit) if metric.unit == "nats" else metric


_FORM = TypeAdapter(dict[str, Metric])


def to_plain(metrics: Mapping[str, Metric]) -> dict[str, Any]:
    """Metrics as JSON holds them; `from_plain` is the inverse."""
    return {name: asdict(metric) for name, metric in metrics.items()}


def from_plain(plain: object) -> dict[str, Metric]:
    """The inverse of `to_plain`; nothing where it isn't one, as in what another version wrote."""
    try:
        return _FORM.validate_python(plain)
    except ValidationError:
        return {}


def undescribed(name: str) -> Metric:
    """A task's metric of which the record says nothing but its name."""
    return Metric(name.replace("_", " "), "A metric of the task, which did not say more of it.")
