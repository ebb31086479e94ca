"""A recipe as YAML that a study file takes as it is."""

import math
from dataclasses import asdict, replace
from typing import Any

import yaml

from scaling.analysis.next_run.recommendation import Recommendation
from scaling.records.recipe import Hyperparameters, Recipe
from scaling.spec.checks.optimizer import NEEDS
from scaling.spec.resources import Resources
from scaling.spec.sections import Fixed

_HEADER = "# in place of these sections; scientific, nuisance, transfer and confirm are left out\n"


def recommended_yaml(recommendation: Recommendation) -> str | None:
    """The recommended recipe as YAML; None without one, and see `recipe_yaml`."""
    option, trial = recommendation.option, recommendation.trial
    if option is None or trial is None:
        return None
    return recipe_yaml(trial.recipe, steps=option.steps.value, num_workers=option.num_workers)


def recipe_yaml(
    recipe: Recipe | None, *, steps: float | None, num_workers: int | None
) -> str | None:
    """The sections `fixed`, `budget`, `search` and `resources` of a study that is one such trial.

    Args:
        recipe: Of the trial that was run.
        steps: Optimizer steps of the run; rounded up.
        num_workers: Data-parallel workers.

    Returns:
        None where the recipe is not known, as of a table from elsewhere, or the run has no
        number of steps.
    """
    if steps is None or recipe is None:
        return None
    sections = {
        "fixed": _fixed(recipe.hyperparameters),
        "budget": {"steps": max(1, math.ceil(steps))},
        "search": {"trials_per_cell": 1},
        "resources": _resources(recipe, num_workers),
    }
    return _HEADER + yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


def _fixed(hyperparameters: Hyperparameters) -> dict[str, Any]:
    """What differs from the defaults, and what has no default."""
    resolved = asdict(hyperparameters)
    values: dict[str, Any] = {}
    for name, field in Fixed.model_fields.items():
        value = resolved.get(name)
        if value is None or value == field.default:
            continue
        of, useful = NEEDS.get(name, (name, {value}))
        if resolved[of] in useful:
            values[name] = value
    if hyperparameters.clip_percentile is None:
        values.pop("clip_history_steps", None)
    values.pop("batch_ramp_at_examples", None)
    if hyperparameters.batch_ramp_at_examples:
        return values | {"batch_ramp_at_examples": list(hyperparameters.batch_ramp_at_examples)}
    values.pop("batch_ramp_factor", None)
    return values


def _resources(recipe: Recipe, num_workers: int | None) -> dict[str, Any]:
    known = {"num_workers": num_workers, **asdict(recipe.layout)}
    sharing = replace(recipe.layout, world_size=num_workers or 1).data_parallel_size
    if recipe.layout.micro_batch_size >= recipe.hyperparameters.global_batch_size // sharing:
        del known["micro_batch_size"]  # nothing to accumulate
    return {
        name: known[name]
        for name, field in Resources.model_fields.items()
        if known.get(name) is not None and known[name] != field.default
    }
