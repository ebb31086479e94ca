"""`trials.parquet`: one row a trial, for anyone's own analysis."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scaling.analysis.rows import TrialRow

_OWN = (
    "trial_id", "phase", "status", "rule", "seed", "global_batch_size", "peak_lr", "warmup_steps",
    "clip_norm", "objective", "validation_loss", "validation_loss_stderr", "train_loss",
    "train_loss_stderr", "test_loss", "test_loss_stderr", "steps", "examples", "seconds",
    "steps_to_target", "examples_to_target", "seconds_to_target", "grad_sq_norm",
    "grad_covariance_trace",
)  # fmt: skip


def trials_parquet(rows: Sequence[TrialRow]) -> bytes:
    """The trials as a Parquet file; `cell` and `choices` are JSON objects."""
    names = list(dict.fromkeys(name for row in rows for name in row.recipe if name not in _OWN))
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in _OWN}
    columns["cell"] = [_json(row.cell) for row in rows]
    columns["choices"] = [_json(row.choices) for row in rows]
    columns |= {name: [row.recipe.get(name) for row in rows] for name in names}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), allow_nan=False)
