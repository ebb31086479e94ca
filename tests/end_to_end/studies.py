"""Studies that run for real in the end-to-end tests: local Ray, gloo workers, a SQLite MLflow."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.commands import Finished
from tests.recipes import TINY_LLAMA

PRONUNCIATION: dict[str, Any] = {
    "name": "pronunciation",
    "question": "Does the platform run a study from end to end?",
    "workload": {
        "task": "causal_lm",
        "model": TINY_LLAMA,
        "data": {
            "source": "builtin:grapheme_to_phoneme", "num_train": 300, "num_validation": 60,
            "num_test": 60,
        },
    },
    "scientific": {"global_batch_size": [8, 32]},
    "nuisance": {
        "peak_lr": {"log_uniform": [1.0e-3, 3.0e-2]}, "clip_norm": {"choice": [None, 1.0]},
    },
    "fixed": {"warmup_steps": 2, "weight_average_half_life_examples": 100},
    "budget": {"examples": 160, "min_steps": 12},
    "evaluation": {"every_examples": 32, "num_examples": 50},
    "target": {"at_most": 3.9},
    "search": {"sampler": "tpe", "trials_per_cell": 3},
    "transfer": {"base_batch_size": 8, "rules": ["none", "linear"], "num_seeds": 2},
    "confirm": {"num_seeds": 2},
    "resources": {"num_workers": 2, "max_slots": 1},  # on a machine of many CPUs too
}  # fmt: skip

QUADRATIC: dict[str, Any] = {
    "name": "quadratic",
    "question": "Are trials the same on every executor?",
    "workload": {"task": "noisy_quadratic", "num_chains": 20},
    "scientific": {"global_batch_size": [4, 16]},
    "fixed": {"optimizer": "sgd", "peak_lr": 0.1},
    "budget": {"steps": 30},
    "evaluation": {"every_steps": 10},
    "search": {"trials_per_cell": 1},
    "resources": {"num_workers": 2, "max_slots": 1},  # on a machine of many CPUs too
}


def write_study(folder: Path, study: dict[str, Any]) -> Path:
    """Write a study file into a folder."""
    path = folder / f"{study['name']}.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


def summary(finished: Finished, name: str) -> dict[str, Any]:
    """What the report of a study says for programs."""
    return json.loads((finished.folder / "reports" / name / "summary.json").read_text())
