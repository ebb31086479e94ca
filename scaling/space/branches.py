"""Branched training: trials that go on from a point of a run with a larger batch and rate.

A branch is one trial, whose batch grows at that point as a batch ramp's does and whose rate grows
with it. Up to there it is the run that it leaves, step by step the same. So a branch needs nothing
of another trial, at the price of training the common part again.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from scaling.arithmetic.batching import BatchRamp
from scaling.arithmetic.rules import scaled_lr
from scaling.arithmetic.schedules import Schedule
from scaling.optimizers.catalog import OPTIMIZERS
from scaling.records.outcome import BestRecipe
from scaling.records.recipe import Hyperparameters, Recipe
from scaling.space.budget import num_steps_of
from scaling.space.cells import cell_name, hyperparameters
from scaling.space.layout import Facts
from scaling.space.recipe import resolve
from scaling.space.trials import PlannedTrial, of_batch, replicate_seeds
from scaling.spec.phases import Branch
from scaling.spec.study import StudySpec


class BranchError(ValueError):
    """A branch would pass the end of the run that it leaves; the message says by how much."""


def require_branches_fit(spec: StudySpec, facts: Facts) -> None:
    """Check that the last branch ends within the budget, once the sizes of the data are known.

    Raises:
        BranchError: If it does not.
    """
    branch = spec.branch
    if branch is None:
        return
    base = branch.base_batch_size
    examples = base * (num_steps_of(spec, BatchRamp(base), facts) or 0)
    if branch.starts[-1] + branch.window > examples:
        raise BranchError(
            f"branch.at_examples: {branch.at_examples[-1]} with a window of {branch.window} "
            f"examples passes the end of the base run; at most {max(examples - branch.window, 0)}"
        )


def planned_branches(
    spec: StudySpec, best: Sequence[BestRecipe], facts: Facts
) -> list[PlannedTrial]:
    """The branch phase: the base cell's best recipe from each point at each multiple and seed.

    Args:
        spec: The study.
        best: Each cell's best recipe; none for the base cell makes no branches.
        facts: Sizes of the data, and of trials' worker groups.

    Raises:
        RuleDomainError: If the rule gives no rate that is a positive finite number.

    Source: Merrill et al. 2025 (arXiv:2505.23971); √k for Adam, k for SGD.
    """
    branch = spec.branch
    base = branch and of_batch(best, branch.base_batch_size)
    if branch is None or base is None:
        return []
    cell, choices = base.cell, base.choices
    setting = hyperparameters(spec, cell, choices)
    rule = branch.lr_rule or OPTIMIZERS[setting.given.optimizer].usual_lr_rule
    planned: list[PlannedTrial] = []
    for seed in replicate_seeds(spec, branch.num_seeds):
        trunk = resolve(spec, setting, seed=seed, facts=facts)
        for start, multiple in itertools.product(branch.starts, branch.multiples):
            window = branch.window
            recipe = branched(trunk, start=start, multiple=multiple, window=window, rule=rule)
            trial_id = f"branch-{cell_name(cell)}-at{start}-x{multiple}-seed{seed}"
            planned.append(
                PlannedTrial(trial_id, "branch", cell, choices, recipe, rule, recipe_of=base.name)
            )
    return planned


def branched(trunk: Recipe, *, start: int, multiple: int, window: int, rule: str) -> Recipe:
    """The recipe that leaves a run after `start` examples, for `window` examples more.

    Args:
        trunk: Of the run that it leaves, whose batch is constant.
        start: Whole steps of the trunk's batch.
        multiple: Of the batch, from there on.
        window: Whole steps of the larger batch.
        rule: How the rate grows with the batch.
    """
    before = trunk.hyperparameters
    base = before.global_batch_size
    assert start % base == 0
    assert window % (multiple * base) == 0
    rate = scaled_lr(
        before.peak_lr, base_batch_size=base, global_batch_size=multiple * base, rule=rule
    )
    after = replace(
        before,
        num_steps=start // base + window // (multiple * base),
        batch_ramp_at_examples=(start,) if multiple > 1 else (),
        batch_ramp_factor=max(multiple, 2),
        branch_from_examples=start,
        branch_multiple=multiple,
        branch_lr_factor=rate / before.peak_lr,
        schedule_num_steps=before.num_steps,
    )
    return replace(trunk, hyperparameters=after)


def lr_of_step(hparams: Hyperparameters, *, step: int, examples: int) -> float:
    """Learning rate with which a trial takes a step.

    A branch has the rate of the run that it leaves at the same number of examples, times its
    factor once it has left.

    Args:
        hparams: The trial's hyperparameters.
        step: Index of the step, from 0.
        examples: Training examples seen before it.
    """
    is_branch = hparams.branch_from_examples is not None
    factor = 1.0
    if hparams.branch_from_examples is not None and examples >= hparams.branch_from_examples:
        factor = hparams.branch_lr_factor
    schedule = Schedule(
        hparams.schedule, hparams.warmup_steps,
        hparams.schedule_num_steps if is_branch else hparams.num_steps,
        hparams.min_lr_ratio, hparams.decay_ratio, hparams.decay_shape,
    )  # fmt: skip
    place = examples / hparams.global_batch_size if is_branch else step
    return factor * (hparams.peak_lr * schedule.of_step(place))


def branch_work(branch: Branch) -> tuple[tuple[int, int], ...]:
    """Every trial of the branch phase as (first global batch size, training examples)."""
    num_each = len(branch.multiples) * branch.num_seeds
    runs = ((branch.base_batch_size, start + branch.window) for start in branch.starts)
    return tuple(run for run in runs for _ in range(num_each))
