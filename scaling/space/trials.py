"""The trials of each phase, in the order in which they are planned."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scaling.records.outcome import BestRecipe, repeats
from scaling.records.recipe import Recipe
from scaling.records.trial import TrialRecord
from scaling.space.cells import Cell, Choices, cell_name, cells, hyperparameters
from scaling.space.designs import design
from scaling.space.layout import Facts
from scaling.space.recipe import resolve, transferred
from scaling.spec.phases import Phase
from scaling.spec.sections import Distribution
from scaling.spec.study import StudySpec

STEP_COST_EXAMPLES = 8  # what a step costs besides its examples, in examples; orders trials only


@dataclass(frozen=True)
class PlannedTrial:
    """A trial before it runs; `recipe` is None where the search decides it when it starts.

    `extended` are the distributions that have been extended beyond those of the study file,
    `recipe_of`, `surface_round` and `scale` are as in `TrialRecord`.
    """

    trial_id: str
    phase: Phase
    cell: Cell
    choices: Choices
    recipe: Recipe | None
    rule: str | None = None
    search_round: int = 0
    surface_round: int | None = None
    extended: Mapping[str, Distribution[Any]] = field(default_factory=dict[str, Distribution[Any]])
    recipe_of: str | None = None
    scale: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def expected_work(self) -> float:
        """Relative duration: examples, plus a cost for each step; 1 where it is not known yet."""
        hparams = self.recipe.hyperparameters if self.recipe else None
        if hparams is None or hparams.num_steps is None:
            return 1.0
        steps = hparams.num_steps
        return hparams.batch_ramp.examples_after(steps) + steps * STEP_COST_EXAMPLES

    def record(self) -> TrialRecord:
        """The record of this trial at its start."""
        assert self.recipe is not None
        return TrialRecord(
            self.trial_id, self.phase, self.cell, self.choices, self.recipe, rule=self.rule,
            search_round=self.search_round, recipe_of=self.recipe_of,
            surface_round=self.surface_round, scale=self.scale,
        )  # fmt: skip


def replicate_seeds(spec: StudySpec, num_seeds: int) -> list[int]:
    """Seeds of transfer and confirm: the same for all cells and rules, none used by the search."""
    return [spec.seed + 1 + number for number in range(num_seeds)]


def planned_search(spec: StudySpec, facts: Facts) -> list[PlannedTrial]:
    """The search phase, cell by cell; recipes are None where an adaptive sampler decides."""
    return [
        planned_point(spec, cell, number, choices, facts)
        for cell in cells(spec)
        for number, choices in enumerate(
            design(spec, cell, facts.cell_places) or [None] * spec.search.per_cell
        )
    ]


def planned_point(
    spec: StudySpec, cell: Cell, number: int, choices: Choices | None, facts: Facts
) -> PlannedTrial:
    """A cell's search trial with a number, from 0; without choices an adaptive sampler decides."""
    recipe = None
    if choices is not None:
        recipe = recipe_of(spec, cell, choices, facts, seed=spec.seed)
    trial_id = f"search-{cell_name(cell)}-{number:03d}"
    scale = facts.at(spec, cell).scale
    return PlannedTrial(trial_id, "search", cell, choices or {}, recipe, scale=scale)


def recipe_of(spec: StudySpec, cell: Cell, choices: Choices, facts: Facts, *, seed: int) -> Recipe:
    """The recipe of a trial of a cell, at the cell's size; raises as `resolve`."""
    setting = hyperparameters(spec, cell, choices)
    return resolve(spec.at(cell), setting, seed=seed, facts=facts.at(spec, cell))


def planned_replicates(
    spec: StudySpec, best: Sequence[BestRecipe], facts: Facts, for_target: Sequence[BestRecipe] = ()
) -> tuple[list[PlannedTrial], list[tuple[str, int, str]]]:
    """The transfer and confirm phases.

    Args:
        spec: The study: rules and numbers of seeds.
        best: Each cell's best recipe; a cell whose trials all diverged has none.
        facts: Sizes of the data, and of trials' worker groups.
        for_target: Each cell's recipe for the target, where that is confirmed too and another.

    Returns:
        The trials, and what a rule could not carry: (rule, global_batch_size, why).
    """
    planned, refused = _transfer_trials(spec, best, facts)
    planned += _confirm_trials(spec, best, facts, "confirm")
    planned += _confirm_trials(spec, for_target, facts, "confirm_target")
    return planned, refused


def _confirm_trials(
    spec: StudySpec, best: Sequence[BestRecipe], facts: Facts, phase: Phase
) -> list[PlannedTrial]:
    if spec.confirm is None:
        return []
    return [
        PlannedTrial(
            f"{phase}-{cell_name(one.cell)}-seed{seed}", phase, one.cell, one.choices,
            recipe_of(spec, one.cell, one.choices, facts, seed=seed), recipe_of=one.name,
            scale=facts.at(spec, one.cell).scale,
        )
        for one in best
        for seed in replicate_seeds(spec, spec.confirm.num_seeds)
    ]  # fmt: skip


def of_batch(best: Sequence[BestRecipe], size: int) -> BestRecipe | None:
    """The first of some recipes that has a batch size."""
    return next((r for r in best if r.recipe.hyperparameters.global_batch_size == size), None)


def _transfer_trials(
    spec: StudySpec, best: Sequence[BestRecipe], facts: Facts
) -> tuple[list[PlannedTrial], list[tuple[str, int, str]]]:
    """The base cell's best recipe at every other batch size, by each rule."""
    transfer = spec.transfer
    base = transfer and of_batch(best, transfer.base_batch_size)
    planned: list[PlannedTrial] = []
    refused: list[tuple[str, int, str]] = []
    if transfer is None:
        return planned, refused
    others = [b for b in spec.batch_sizes() if b != transfer.base_batch_size]
    if base is None:
        why = "no search trial of the base cell ended with a finite loss"
        return planned, [(rule, b, why) for rule, b in itertools.product(transfer.rules, others)]
    base_setting = hyperparameters(spec, base.cell, base.choices)
    for rule, batch in itertools.product(transfer.rules, others):
        setting = transferred(base_setting, global_batch_size=batch, rule=rule)
        cell = {"global_batch_size": batch}
        for seed in replicate_seeds(spec, transfer.num_seeds):
            try:
                recipe = resolve(spec, setting, seed=seed, facts=facts)
            except ValueError as error:
                refused.append((rule, batch, str(error)))
                break
            trial_id = f"transfer-{cell_name(cell)}-{rule}-seed{seed}"
            choices = {"peak_lr": recipe.hyperparameters.peak_lr}
            planned.append(
                PlannedTrial(trial_id, "transfer", cell, choices, recipe, rule, recipe_of=base.name)
            )
    return planned, refused


def with_own_ids(
    planned: Sequence[PlannedTrial], best: Sequence[BestRecipe], records: Mapping[str, TrialRecord]
) -> list[PlannedTrial]:
    """Replicates under ids that no trial of another recipe has.

    In a study that was extended another recipe may be the best one now. What was run of the one
    before keeps its ids; those of the new one end with the number of its search trial, or of the
    search trials after which the surface recommended it.
    """
    sources = {recipe.name: recipe for recipe in best}

    def group(trial: PlannedTrial) -> tuple[object, ...]:
        return trial.phase, cell_name(trial.cell), trial.rule

    def is_taken(trial: PlannedTrial) -> bool:
        known = records.get(trial.trial_id)
        return known is not None and not repeats(known, sources[trial.recipe_of or ""])

    taken = {group(trial) for trial in planned if is_taken(trial)}
    return [
        replace(trial, trial_id=f"{trial.trial_id}-of-{(trial.recipe_of or '').rsplit('-', 1)[1]}")
        if group(trial) in taken
        else trial
        for trial in planned
    ]
