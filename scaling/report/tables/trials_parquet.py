"""`trials.parquet`: one row a trial, for anyone's own analysis."""

import io
import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scaling.analysis.rows import TrialRow

OWN = (
    "trial_id", "phase", "status", "rule", "seed", "global_batch_size", "peak_lr", "warmup_steps",
    "clip_norm", "objective", "validation_loss", "validation_loss_stderr", "train_loss",
    "train_loss_stderr", "test_loss", "test_loss_stderr", "steps", "examples", "seconds",
    "steps_to_target", "examples_to_target", "seconds_to_target", "grad_sq_norm",
    "grad_covariance_trace",
)  # fmt: skip


def trials_parquet(rows: Sequence[TrialRow]) -> bytes:
    """The trials as a Parquet file; `cell` and `choices` are JSON objects."""
    recipes = [row.recipe.columns() if row.recipe else {} for row in rows]
    further = dict.fromkeys(name for recipe in recipes for name in recipe if name not in OWN)
    columns: dict[str, list[Any]] = {name: list(map(attrgetter(name), rows)) for name in OWN}
    columns |= {name: _as_json(list(map(attrgetter(name), rows))) for name in ("cell", "choices")}
    columns |= {name: [recipe.get(name) for recipe in recipes] for name in further}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _as_json(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each as JSON; rows of a large table share a few."""
    different = {id(value): value for value in values}
    written = {key: json.dumps(dict(v), allow_nan=False) for key, v in different.items()}
    return [written[id(value)] for value in values]
