"""`trials.parquet`: one row a trial, for anyone's own analysis."""

import io
import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scaling.analysis.trial_rows import TrialRow, incidents_of

OWN = (
    "trial_id", "phase", "status", "rule", "seed", "global_batch_size", "peak_lr", "warmup_steps",
    "clip_norm", "objective", "validation_loss", "validation_loss_stderr", "train_loss",
    "train_loss_stderr", "test_loss", "test_loss_stderr", "steps", "examples", "seconds",
    "steps_to_target", "examples_to_target", "seconds_to_target", "grad_sq_norm",
    "grad_covariance_trace", "recipe_key", "left_to_target",
    "first_gap", "search_round", "surface_round",
)  # fmt: skip


def trials_parquet(rows: Sequence[TrialRow]) -> bytes:
    """The trials as a Parquet file.

    `cell` and `choices` are JSON objects, `incidents` are JSON lists of objects. Each measurement
    and each of the task's own metrics that some trial has is a column, null where it has none.
    """
    columns: dict[str, list[Any]] = {name: list(map(attrgetter(name), rows)) for name in OWN}
    columns |= {name: _as_json(list(map(attrgetter(name), rows))) for name in ("cell", "choices")}
    columns["incidents"] = [json.dumps(list(map(dict, incidents_of(row)))) for row in rows]
    for of_row in (attrgetter("metrics"), attrgetter("measured"), _recipe):
        values: list[Mapping[str, Any]] = list(map(of_row, rows))
        for name in dict.fromkeys(name for row in values for name in row):
            if name not in columns:
                columns[name] = [row.get(name) for row in values]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _recipe(row: TrialRow) -> Mapping[str, Any]:
    return row.recipe.columns() if row.recipe else {}


def _as_json(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each as JSON; rows of a large table share a few."""
    different = {id(value): value for value in values}
    written = {key: json.dumps(dict(v), allow_nan=False) for key, v in different.items()}
    return [written[id(value)] for value in values]
