"""`trials.parquet`: one row a trial, for anyone's own analysis."""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.json import read_json

from scaling.analysis.rows import TrialRow

OWN = (
    "trial_id", "phase", "status", "rule", "seed", "global_batch_size", "peak_lr", "warmup_steps",
    "clip_norm", "objective", "validation_loss", "validation_loss_stderr", "train_loss",
    "train_loss_stderr", "test_loss", "test_loss_stderr", "steps", "examples", "seconds",
    "steps_to_target", "examples_to_target", "seconds_to_target", "grad_sq_norm",
    "grad_covariance_trace",
)  # fmt: skip


def trials_parquet(rows: Sequence[TrialRow]) -> bytes:
    """The trials as a Parquet file; `cell` and `choices` are JSON objects.

    Arrow reads the rows as lines of JSON, since building columns from Python lists would import
    pandas for nothing.
    """
    if not rows:
        return _parquet(pa.table({name: pa.nulls(0) for name in (*OWN, "cell", "choices")}))
    lines = "\n".join(_json(_record(row)) for row in rows)
    return _parquet(read_json(io.BytesIO(lines.encode())))


def _record(row: TrialRow) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in OWN}
    others = {name: value for name, value in row.recipe.items() if name not in own}
    return own | {"cell": _json(row.cell), "choices": _json(row.choices)} | others


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), allow_nan=False)
