"""A recipe as YAML that a study file takes as it is."""

import math
from collections.abc import Mapping
from typing import Any

import yaml

from scaling.spec.checks.optimizer import NEEDS
from scaling.spec.hyperparameters import Fixed
from scaling.spec.resources import Resources

_HEADER = "# in place of these sections; scientific, nuisance, transfer and confirm are left out\n"
# A resolved recipe has no rule left to apply, and its warmup is in steps.
_RESOLVED = frozenset(
    {
        "base_lr", "base_batch_size", "lr_scaling_rule", "beta2_scaling", "weight_decay_scaling",
        "warmup_scaling", "warmup_ratio", "warmup_examples", "batch_ramp_every_examples",
    }
)  # fmt: skip


def recipe_yaml(
    recipe: Mapping[str, Any], *, steps: float | None, num_workers: int | None
) -> str | None:
    """The sections `fixed`, `budget`, `search` and `resources` of a study that is one such trial.

    Args:
        recipe: All resolved hyperparameters of the trial that was run.
        steps: Optimizer steps of the run; rounded up.
        num_workers: Data-parallel workers.

    Returns:
        None where the recipe is not known, as of a table from elsewhere, or the run has no
        number of steps.
    """
    if steps is None or not {"global_batch_size", "peak_lr"} <= recipe.keys():
        return None
    sections = {
        "fixed": _fixed(recipe),
        "budget": {"steps": max(1, math.ceil(steps))},
        "search": {"trials_per_cell": 1},
        "resources": _resources(recipe, num_workers),
    }
    return _HEADER + yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


def _fixed(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults, and what has no default."""
    values: dict[str, Any] = {}
    for name, field in Fixed.model_fields.items():
        value = recipe.get(name)
        if value is None or value == field.default or name in _RESOLVED:
            continue
        of, useful = NEEDS.get(name, (name, {value}))
        if recipe.get(of) in useful:
            values[name] = value
    if recipe.get("clip_percentile") is None:
        values.pop("clip_history_steps", None)
    ramp = list(recipe.get("batch_ramp_at_examples") or ())
    values.pop("batch_ramp_at_examples", None)
    if ramp:
        return values | {"batch_ramp_at_examples": ramp}
    values.pop("batch_ramp_factor", None)
    return values


def _resources(recipe: Mapping[str, Any], num_workers: int | None) -> dict[str, Any]:
    known = {"num_workers": num_workers, "micro_batch_size": recipe.get("micro_batch_size")}
    for name in ("strategy", "precision", "activation_checkpointing", "compile"):
        known[name] = recipe.get(name)
    share = recipe["global_batch_size"] // (num_workers or 1)
    if known["micro_batch_size"] is None or known["micro_batch_size"] >= share:
        del known["micro_batch_size"]  # nothing to accumulate
    return {
        name: value
        for name, value in known.items()
        if value is not None and value != Resources.model_fields[name].default
    }
