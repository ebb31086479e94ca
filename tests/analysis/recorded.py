"""Real trials among the tests' data, as the analysis sees them."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd

from scaling.analysis.trial_rows import Sweep, TrialRow

DATA = Path(__file__).parents[1] / "data"
_NUMBERS = (
    "peak_lr", "objective", "validation_loss", "train_loss", "test_loss", "steps", "examples",
    "seconds", "steps_to_target", "examples_to_target", "seconds_to_target",
    "validation_loss_stderr", "test_loss_stderr", "train_loss_stderr",
)  # fmt: skip


def default_study() -> Sweep:
    """The default study of before the surface: 63 trials of four batch sizes, without curves."""
    sweep = _study("lr_vs_batch", 1.4)
    return replace(sweep, rules=("none", "sqrt", "linear"), base_batch_size=32)


def fine_tuning() -> Sweep:
    """The gallery's study of pretrained weights, whose seeds often missed its target."""
    return _study("fine_tuning", 1.0)


def _study(name: str, target: float) -> Sweep:
    table = pd.read_parquet(DATA / f"{name}.parquet")
    rows = tuple(
        TrialRow(
            trial_id=str(row["trial_id"]), phase=row["phase"], status=row["status"],
            cell=json.loads(row["cell"]), global_batch_size=int(row["global_batch_size"]),
            recipe_key=f"{row['phase']} {row['cell']} {row['peak_lr']}", seed=int(row["seed"]),
            rule=row["rule"] if isinstance(row["rule"], str) else None,
            choices=json.loads(row["choices"]),
            left_to_target=row.get("left_to_target"),
            **{name: None if pd.isna(row[name]) else float(row[name]) for name in _NUMBERS},
        )
        for _, row in table.iterrows()
    )  # fmt: skip
    sizes = sorted({row.global_batch_size for row in rows})
    return Sweep(
        name, "?", rows, tuple({"global_batch_size": size} for size in sizes), has_target=True,
        target=target,
    )  # fmt: skip
