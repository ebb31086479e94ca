"""What a trial looks like in MLflow: its run's name, params, tags and metrics."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from scaling.records.measurement import MEASURED, RESERVED, RESULTS, Measurement
from scaling.records.outcome import trial_result
from scaling.records.trial import TrialRecord
from scaling.spec.fields import given_fields, is_finite
from scaling.spec.hyperparameters import Given
from scaling.spec.study import StudySpec

if TYPE_CHECKING:
    from mlflow.entities import Metric

BY_EXAMPLES = "by_examples/"

_MAX_TAG_LENGTH = 8000
_NUM_INCIDENTS = 15  # the first and the last, where a record would be too long
_CAUSE_LENGTHS = (400, 100, 20)  # of an incident's cause, where it still would be
_MAX_NAME_LENGTH = 200  # of 250: a number of a study has a word more in its name
_NOT_ALLOWED = re.compile(r"^\.+|[^\w.\- :]+")  # a slash is for a part of a name
_GIVEN = frozenset(f.name for f in fields(Given))


def cell_label(cell: Mapping[str, Any]) -> str:
    """A cell as a readable tag, as in `global_batch_size=64`; `all` without scientific axes."""
    return ", ".join(f"{name}={_text(value)}" for name, value in cell.items()) or "all"


def trial_name(record: TrialRecord) -> str:
    """The name of a trial's run, as in `search B=64 lr=1.2e-3`."""
    hparams = record.recipe.hyperparameters
    words: list[str] = [record.phase, *([record.rule] if record.rule else [])]
    others = {n: v for n, v in record.cell.items() if n not in ("global_batch_size", "peak_lr")}
    words += [f"{name}={_text(value)}" for name, value in others.items()]
    if hparams.branch_from_examples is not None:
        words += [f"at={hparams.branch_from_examples}", f"x{hparams.branch_multiple}"]
    words += [f"B={hparams.global_batch_size}", f"lr={_short(hparams.peak_lr)}"]
    return " ".join(words if record.phase == "search" else [*words, f"seed={record.recipe.seed}"])


def _short(value: float) -> str:
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _text(value: object) -> str:
    """A value as MLflow shows it: strings as they are, floats exact, None as `null`."""
    return value if isinstance(value, str) else json.dumps(value)


def params(record: TrialRecord, spec: StudySpec) -> dict[str, str]:
    """Cell, its scale, choices and seed; hyperparameters that the study sets or are not usual.

    What is off is left out, and what follows from the budget is a tag: MLflow's comparison opens
    on the params that differ.
    """
    sections = (spec.scientific, spec.nuisance, spec.fixed, *(r.fixed for r in spec.cell_recipes))
    named = {name for section in sections for name in given_fields(section)}
    hyperparameters = record.recipe.hyperparameters
    values = {
        f.name: value
        for f in fields(hyperparameters)
        if f.name in _GIVEN
        if (value := getattr(hyperparameters, f.name)) != f.default or f.name in named
    }
    values = {**record.scale, **record.cell, **record.choices, "seed": record.recipe.seed, **values}
    return {allowed_name(n): _text(value) for n, value in values.items() if value is not None}


def allowed_name(name: str) -> str:
    """A column's name, say, with what MLflow does not allow in a name as `_`."""
    return _NOT_ALLOWED.sub("_", name)[:_MAX_NAME_LENGTH]


def tags(record: TrialRecord) -> dict[str, str]:
    """What MLflow's views filter by: layout, origin, length, the record without measurements."""
    hyperparameters = record.recipe.hyperparameters
    beside = {**asdict(record.recipe.layout), **asdict(record.recipe.origin)} | {
        f.name: value
        for f in fields(hyperparameters)
        if f.name not in _GIVEN and (value := getattr(hyperparameters, f.name)) != f.default
    }
    beside |= {
        "search_round": record.search_round or None,
        "surface_round": record.surface_round,
        "rule": record.rule,
    }
    return {name: _text(value) for name, value in beside.items() if value is not None} | {
        "cell": cell_label(record.cell),
        "phase": record.phase,
        "status": record.status,
        "record": _record_tag(record),
    }


def _record_tag(record: TrialRecord) -> str:
    """All of a record but its measurements; what makes it too long for a tag is cut or left out.

    That is incidents between the first and the last, then the length of causes, then the error's.
    """
    bare = replace(record, measurements=())
    found = bare.incidents
    if len(bare.to_json()) > _MAX_TAG_LENGTH and len(found) > 2 * _NUM_INCIDENTS:
        between = {"kind": "left_out", "count": len(found) - 2 * _NUM_INCIDENTS}
        kept = (*found[:_NUM_INCIDENTS], between, *found[-_NUM_INCIDENTS:])
        bare = replace(bare, incidents=kept)
    for most in _CAUSE_LENGTHS:
        if len(bare.to_json()) > _MAX_TAG_LENGTH:
            cut = (
                {**incident, "cause": cause[:most]}
                if (cause := incident.get("cause"))
                else incident
                for incident in bare.incidents
            )
            bare = replace(bare, incidents=tuple(cut))
    excess = len(bare.to_json()) - _MAX_TAG_LENGTH
    if excess > 0 and bare.error:
        bare = replace(bare, error=bare.error[: max(0, len(bare.error) - excess)])
    return bare.to_json()


def summary(record: TrialRecord, spec: StudySpec) -> dict[str, float]:
    """The numbers that MLflow's comparison views plot; those that do not exist are left out."""
    result = asdict(trial_result(record, spec.target))
    return {name: float(value) for name, value in result.items() if is_finite(value)}


def results(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those of a run's metrics that `summary` has written and that are still known."""
    return {name: metrics[name] for name in RESULTS if is_finite(metrics.get(name))}


def metrics(at_ms: int, measurement: Measurement) -> list["Metric"]:
    """A measurement by step, and again by examples seen where its table says so."""
    from mlflow.entities import Metric

    scalars = measurement.scalars()
    by_step = [
        Metric(name, value, at_ms, measurement.step)
        for name, value in scalars.items()
        if name != "step"
    ]
    by_examples = [
        Metric(BY_EXAMPLES + name, scalars[name], at_ms, measurement.examples)
        for name, metric in MEASURED.items()
        if metric.by_examples and name in scalars
    ]
    return by_step + by_examples


def require_free_names(measurements: Iterable[Measurement]) -> None:
    """Check that no metric of a task has a name that means something else in MLflow.

    Raises:
        ValueError: If one has; says which.
    """
    for measurement in measurements:
        for name in measurement.metrics:
            if name in RESERVED or name.startswith(BY_EXAMPLES):
                raise ValueError(f"metric name {name!r} is reserved")


def is_measured(name: str) -> bool:
    """Whether a metric was measured, and not derived here from what was."""
    return name not in RESULTS and not name.startswith(BY_EXAMPLES)
