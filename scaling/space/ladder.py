"""The cells of a ladder, the sizes that are predicted, and the trials that check a prediction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scaling.records.scale import WITHOUT_EMBEDDINGS
from scaling.space.budget import batch_ramp_of, num_steps_of
from scaling.space.cells import cell_name, cells, hyperparameters
from scaling.space.layout import Facts
from scaling.space.trials import PlannedTrial, recipe_of, replicate_seeds
from scaling.spec.study import StudySpec

MIN_STEPS = 30
"""A batch that leaves a size fewer steps says nothing of its rate."""
FLOPS_PER_PARAMETER_TOKEN = 6.0
"""Of a forward and a backward pass (Kaplan et al. 2020, arXiv:2001.08361, sec. 2.1)."""


def size_cells(spec: StudySpec, facts: Facts) -> list[list[Mapping[str, Any]]]:
    """The cells of each size, in the order of the file, that leave a run steps enough."""
    found: list[list[Mapping[str, Any]]] = [[] for _ in spec.sizes]
    for cell in cells(spec):
        if _has_steps(spec, cell, facts):
            found[spec.size_of(cell)].append(cell)
    return found


def _has_steps(spec: StudySpec, cell: Mapping[str, Any], facts: Facts) -> bool:
    size = spec.at(cell)
    if size.workload.looked_up_by is not None:
        return True
    ramp = batch_ramp_of(hyperparameters(spec, cell, {}))
    steps = num_steps_of(size, ramp, facts.at(spec, cell))
    return steps is None or steps >= MIN_STEPS


def flops_of(scale: Mapping[str, float]) -> float:
    """Floating-point operations of a run: 6 N D, by the first count of parameters and the tokens.

    Of a table, 6 times the product of its columns of size.
    """
    product = FLOPS_PER_PARAMETER_TOKEN
    for name, value in scale.items():
        product *= 1.0 if name == WITHOUT_EMBEDDINGS else value
    return product


@dataclass(frozen=True)
class PredictedRecipe:
    """A batch size and a rate for a size; `name` says after how many trials of the search."""

    name: str
    global_batch_size: int
    peak_lr: float


def planned_check(spec: StudySpec, predicted: PredictedRecipe, facts: Facts) -> list[PlannedTrial]:
    """The last size at a prediction, and at twice and half its rate and its batch."""
    assert spec.ladder is not None
    assert spec.ladder.check is not None
    batch, rate = predicted.global_batch_size, predicted.peak_lr
    around = [
        (batch, rate), (batch, 2 * rate), (batch, rate / 2), (2 * batch, rate),
        (max(batch // 2, 1), rate),
    ]  # fmt: skip
    planned: list[PlannedTrial] = []
    for size, lr in dict.fromkeys(around):
        cell = {**spec.size_labels[-1], "global_batch_size": size}
        choices = {"peak_lr": lr}
        for seed in replicate_seeds(spec, spec.ladder.check.num_seeds):
            trial_id = f"check-{cell_name(cell)}-peak_lr={lr:.6g}-seed{seed}"
            recipe = recipe_of(spec, cell, choices, facts, seed=seed)
            scale = facts.at(spec, cell).scale
            planned.append(
                PlannedTrial(
                    trial_id, "check", cell, choices, recipe, recipe_of=predicted.name, scale=scale
                )
            )
    return planned
