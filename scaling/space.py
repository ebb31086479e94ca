"""Cells, the search inside each of them, and the recipe of one trial.

Everything a trial does is decided here, from the study file alone: a non-adaptive search is a
list of points that is known before the first trial, whatever order the trials then end in.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scaling.batching import BatchRamp, BatchSplit, split_batch
from scaling.records import Phase, Recipe, TrialRecord
from scaling.rules import (
    OptimizerSettings,
    RuleDomainError,
    scale_optimizer,
    scaled_beta2,
    scaled_warmup_steps,
    scaled_weight_decay,
)
from scaling.size_checks import num_cells
from scaling.spec import (
    MAX_BATCH_SIZE,
    Choice,
    Distribution,
    Fixed,
    NoisyQuadratic,
    Pretrained,
    StudySpec,
    given_fields,
)

Cell = Mapping[str, Any]
STEP_COST_EXAMPLES = 8  # what a step costs besides its examples, in examples; orders trials only
Choices = Mapping[str, Any]


@dataclass(frozen=True)
class Facts:
    """What a recipe needs to know beside the study file.

    Attributes:
        num_train: Training examples; None for an endless stream.
        targets_per_example: Mean number of targets of a training example.
        world_sizes: Workers of a trial by global batch size, where `resources.num_workers` is
            auto; one where a batch size is not listed.
        largest_micro_batch_size: What fits a worker, where `resources.micro_batch_size` is auto;
            None for no bound.
    """

    num_train: int | None
    targets_per_example: float
    world_sizes: Mapping[int, int] = field(default_factory=dict[int, int])
    largest_micro_batch_size: int | None = None


def world_size_of(spec: StudySpec, global_batch_size: int, facts: Facts) -> int:
    """Workers of a trial at a batch size."""
    num_workers = spec.resources.num_workers
    return facts.world_sizes.get(global_batch_size, 1) if num_workers == "auto" else num_workers


def data_parallel_size_of(spec: StudySpec, global_batch_size: int, facts: Facts) -> int:
    """Workers that share a trial's batch; under tp all compute the whole of it together."""
    return world_size_of(spec, global_batch_size, facts) // spec.resources.num_parts


def split_of(spec: StudySpec, global_batch_size: int, facts: Facts) -> BatchSplit:
    """How a trial's global batch is spread over its workers and their forwards.

    Raises:
        ValueError: If the workers cannot have equal shares.
    """
    bound = spec.resources.micro_batch_size
    return split_batch(
        global_batch_size,
        world_size=data_parallel_size_of(spec, global_batch_size, facts),
        micro_batch_size=facts.largest_micro_batch_size if bound == "auto" else bound,
    )


@dataclass(frozen=True)
class PlannedTrial:
    """A trial before it runs; `recipe` is None where the search decides it when it starts.

    `extended` are the distributions that have been extended beyond those of the study file.
    """

    trial_id: str
    phase: Phase
    cell: Cell
    choices: Choices
    recipe: Recipe | None
    rule: str | None = None
    search_round: int = 0
    extended: Mapping[str, Distribution[Any]] = field(default_factory=dict[str, Distribution[Any]])

    @property
    def expected_work(self) -> float:
        """Relative duration: examples, plus a cost for each step; 1 where it is not known yet."""
        if self.recipe is None or self.recipe.num_steps is None:
            return 1.0
        num_steps = self.recipe.num_steps
        return self.recipe.batch_ramp.examples_after(num_steps) + num_steps * STEP_COST_EXAMPLES

    def record(self) -> TrialRecord:
        """The record of this trial at its start."""
        assert self.recipe is not None
        return TrialRecord(
            self.trial_id, self.phase, self.cell, self.choices, self.recipe, rule=self.rule,
            search_round=self.search_round,
        )  # fmt: skip


def cells(spec: StudySpec) -> tuple[dict[str, Any], ...]:
    """Every combination of the scientific values; one empty cell when there are none."""
    values = spec.scientific_values()
    return tuple(
        dict(zip(values, combination, strict=True))
        for combination in itertools.product(*values.values())
    )


def cell_name(cell: Cell) -> str:
    """A cell as a person and a file name can read it, as in global_batch_size=64."""
    return ",".join(f"{name}={value}" for name, value in sorted(cell.items())) or "all"


def design(spec: StudySpec, cell: Cell) -> list[dict[str, Any]] | None:
    """The points that a non-adaptive search tries in a cell, in order; None for tpe.

    Every cell has its own scrambled points, so that no accident of one design is shared by all.
    """
    searched = spec.nuisance.distributions()
    count = spec.search.trials_per_cell
    if not searched:
        return [{} for _ in range(count)]
    match spec.search.sampler:
        case "tpe":
            return None
        case "grid":
            axes = [distribution.choice or () for distribution in searched.values()]
            return [dict(zip(searched, point, strict=True)) for point in itertools.product(*axes)]
        case "qmc" | "random":
            seed = cell_seed(spec, cell)
            cube = _unit_points(len(searched), count, seed, sobol=spec.search.sampler == "qmc")
            return [
                {
                    name: _at(distribution, float(share))
                    for (name, distribution), share in zip(searched.items(), point, strict=True)
                }
                for point in cube
            ]


def cell_seed(spec: StudySpec, cell: Cell) -> int:
    """Seed of a cell's search, from the study's seed and the cell's place in the study."""
    place = 0
    for name, values in spec.scientific_values().items():
        place = place * len(values) + values.index(cell[name])
    return (spec.seed * 10_007 + place) % 2**32


def _unit_points(dimensions: int, count: int, seed: int, *, sobol: bool) -> Any:
    """[count, dimensions] points in the unit cube: Owen-scrambled Sobol or independent ones.

    Optuna's own QMC sampler draws categorical values and the trials that start before the first
    one ends independently, which would make the design depend on timing.
    """
    import numpy as np
    from scipy.stats import qmc

    if not sobol:
        return np.random.default_rng(seed).random((count, dimensions))
    engine = qmc.Sobol(dimensions, scramble=True, rng=seed)
    return engine.random_base2(math.ceil(math.log2(max(count, 2))))[:count]


def _at(distribution: Distribution[Any] | Choice[Any], share: float) -> Any:
    """The value of a distribution at a share of its range, 0 ≤ share < 1."""
    if distribution.choice is not None:
        return distribution.choice[int(share * len(distribution.choice))]
    assert isinstance(distribution, Distribution)
    if distribution.log_uniform is not None:
        low, high = (math.log(bound) for bound in distribution.log_uniform)
        return math.exp(low + share * (high - low))
    assert distribution.uniform is not None
    low, high = distribution.uniform
    return low + share * (high - low)


def optuna_distributions(
    spec: StudySpec, extended: Mapping[str, Distribution[Any]] | None = None
) -> dict[str, Any]:
    """The nuisance space as Optuna's distributions, some of them extended."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    space: dict[str, Any] = {}
    for name, distribution in (spec.nuisance.distributions() | dict(extended or {})).items():
        if distribution.choice is not None:
            space[name] = CategoricalDistribution(distribution.choice)
        elif isinstance(distribution, Distribution) and distribution.log_uniform is not None:
            space[name] = FloatDistribution(*distribution.log_uniform, log=True)
        elif isinstance(distribution, Distribution) and distribution.uniform is not None:
            space[name] = FloatDistribution(*distribution.uniform)
    return space


def hyperparameters(spec: StudySpec, cell: Cell, choices: Choices) -> dict[str, Any]:
    """A trial's hyperparameters by name: the cell's and the search's, else fixed ones."""
    values = {name: getattr(spec.fixed, name) for name in Fixed.model_fields}
    for known in spec.cell_recipes:
        if dict(known.cell) == dict(cell):
            values |= given_fields(known.fixed)
    return values | dict(cell) | dict(choices)


def resolve(spec: StudySpec, values: Mapping[str, Any], *, seed: int, facts: Facts) -> Recipe:
    """The recipe of one trial, with no choice left open.

    Args:
        spec: The study: its budget and resources.
        values: From `hyperparameters` or `transferred`.
        seed: Of the trial.
        facts: Sizes of the data, and of trials' worker groups.

    Raises:
        ValueError: If the batch cannot be split among the workers.
        RuleDomainError: If the rule that carries base_lr leaves its domain.
    """
    batch: int = values["global_batch_size"]
    split = split_of(spec, batch, facts)
    settings = _optimizer_settings(values)
    ramp = batch_ramp_of(values)
    num_steps = num_steps_of(spec, ramp, facts)
    if num_steps is not None:
        ramp = ramp.up_to(num_steps)
    return Recipe(
        seed=seed,
        global_batch_size=batch,
        micro_batch_size=split.micro_batch_size,
        grad_accum_steps=split.grad_accum_steps,
        world_size=world_size_of(spec, batch, facts),
        batch_ramp_at_examples=ramp.at_examples,
        batch_ramp_factor=ramp.factor,
        num_steps=num_steps,
        budget_seconds=spec.budget.seconds,
        peak_lr=settings.peak_lr,
        base_lr=values["base_lr"],
        base_batch_size=values["base_batch_size"],
        lr_scaling_rule=values["lr_scaling_rule"],
        beta2_scaling=values["beta2_scaling"],
        weight_decay_scaling=values["weight_decay_scaling"],
        warmup_scaling=values["warmup_scaling"],
        warmup_steps=_warmup_steps(values, ramp, num_steps),
        warmup_ratio=values["warmup_ratio"],
        warmup_examples=values["warmup_examples"],
        schedule=values["schedule"],
        decay_ratio=values["decay_ratio"],
        decay_shape=values["decay_shape"],
        min_lr_ratio=values["min_lr_ratio"],
        optimizer=values["optimizer"],
        weight_decay=_weight_decay(values, settings.peak_lr),
        beta1=settings.beta1,
        beta2=settings.beta2,
        eps=settings.eps,
        momentum=_or_usual(values, "momentum", 0.0),
        nesterov=values["nesterov"],
        clip_norm=values["clip_norm"],
        clip_value=values["clip_value"],
        clip_percentile=values["clip_percentile"],
        clip_history_steps=values["clip_history_steps"],
        dropout=values["dropout"],
        label_smoothing=values["label_smoothing"],
        weight_average_half_life_examples=values["weight_average_half_life_examples"],
        strategy=spec.resources.strategy,
        precision=spec.resources.precision,
        activation_checkpointing=spec.resources.activation_checkpointing,
        compile=spec.resources.compile,
        lora_rank=_lora_rank(spec, values),
    )


def _lora_rank(spec: StudySpec, values: Mapping[str, Any]) -> int | None:
    """The rank of a trial's adapters; None where it has none."""
    workload = spec.workload
    if isinstance(workload, NoisyQuadratic) or not isinstance(workload.model, Pretrained):
        return None
    lora, rank = workload.model.lora, values["lora_rank"]
    return lora.rank if lora is not None and rank is None else rank


def _warmup_steps(values: Mapping[str, Any], ramp: BatchRamp, num_steps: int | None) -> int:
    """Steps of warmup, from the one of its three fields that is given; 0 where none is."""
    ratio: float | None = values["warmup_ratio"]
    examples: int | None = values["warmup_examples"]
    if ratio is not None and num_steps is not None:
        return _ceil(ratio * num_steps)
    if examples is not None:
        return ramp.steps_for(examples, min_steps=0)
    steps: int = values["warmup_steps"] or 0
    if values["base_lr"] is None or values["warmup_scaling"] == "steps":
        return steps
    return _ceil(scaled_warmup_steps(steps, **_sizes(values)))


def _sizes(values: Mapping[str, Any]) -> dict[str, int]:
    """From which batch size a recipe is carried, and to which."""
    return {name: values[name] for name in ("base_batch_size", "global_batch_size")}


def _weight_decay(values: Mapping[str, Any], peak_lr: float) -> float:
    """A trial's weight decay, carried to its batch size where that is asked for."""
    base_lr: float | None = values["base_lr"]
    weight_decay: float = values["weight_decay"]
    if base_lr is None or values["weight_decay_scaling"] == "none":
        return weight_decay
    return scaled_weight_decay(weight_decay, base_lr=base_lr, peak_lr=peak_lr, **_sizes(values))


_USUAL: Mapping[str, Mapping[str, float]] = {
    "lamb": {"eps": 1e-6},
    "lars": {"momentum": 0.9},
    "lion": {"beta2": 0.99},
    "muon": {"momentum": 0.95, "beta2": 0.95},
}
"""What the papers of the optimizers use, where that is not what AdamW and SGD use."""


def _or_usual(values: Mapping[str, Any], name: str, otherwise: float) -> float:
    """A hyperparameter, or where it is left out what is usual for the trial's optimizer."""
    value: float | None = values[name]
    return _USUAL.get(values["optimizer"], {}).get(name, otherwise) if value is None else value


_TIMING_LR = 1e-6  # too small to blow up: only the time of a step counts


def timing_recipe(
    spec: StudySpec, facts: Facts, global_batch_size: int, *, world_size: int
) -> Recipe:
    """A recipe of the first cell whose steps take as long as a trial's; it has no end."""
    values = hyperparameters(spec, cells(spec)[0], {}) | {
        "global_batch_size": global_batch_size,
        "batch_ramp_every_examples": None,
        "batch_ramp_at_examples": None,
        "peak_lr": _TIMING_LR,
        "base_lr": None,
        "base_batch_size": None,
        "lr_scaling_rule": "none",
        "schedule": "constant",
        "beta2_scaling": "none",
        "weight_decay_scaling": "none",
        "warmup_steps": 0,
        "warmup_ratio": None,
        "warmup_examples": None,
    }
    here = replace(facts, world_sizes={global_batch_size: world_size})
    recipe = resolve(spec, values, seed=spec.seed, facts=here)
    return replace(recipe, num_steps=None, budget_seconds=None)


def _optimizer_settings(values: Mapping[str, Any]) -> OptimizerSettings:
    base_lr, peak_lr = values["base_lr"], values["peak_lr"]
    settings = OptimizerSettings(
        peak_lr=peak_lr if base_lr is None else base_lr,
        beta1=values["beta1"],
        beta2=_or_usual(values, "beta2", 0.999),
        eps=_or_usual(values, "eps", 1e-8),
    )
    if base_lr is None:
        return settings
    rule: str = values["lr_scaling_rule"]
    scaled = scale_optimizer(settings, rule=rule, **_sizes(values))
    if values["beta2_scaling"] == "none":
        return scaled
    if rule == "adam_sde":
        raise RuleDomainError("adam_sde moves beta2 itself, so token_half_life cannot")
    return replace(scaled, beta2=scaled_beta2(settings.beta2, **_sizes(values)))


def _ceil(value: float) -> int:
    """Rounded up, the error of floats aside: 0.07 × 100 is 7."""
    return math.ceil(value - 1e-9)


def batch_ramp_of(values: Mapping[str, Any]) -> BatchRamp:
    """How the batch of a trial with these hyperparameters grows.

    A ramp by every_examples has no end of its own, so it is listed up to the largest batch.
    """
    first: int = values["global_batch_size"]
    factor: int = values["batch_ramp_factor"]
    every: int | None = values["batch_ramp_every_examples"]
    if every is None:
        return BatchRamp(first, tuple(values["batch_ramp_at_examples"] or ()), factor)
    return BatchRamp.every(every, first=first, factor=factor, largest=MAX_BATCH_SIZE)


def num_steps_of(spec: StudySpec, ramp: BatchRamp, facts: Facts) -> int | None:
    """Optimizer steps that the budget allows, rounded up; None for seconds.

    Raises:
        ValueError: If the budget is in epochs and the data have no end.
    """
    budget = spec.budget
    match budget.measure:
        case "steps":
            return max(budget.steps or 0, budget.min_steps)
        case "seconds":
            return None
        case "examples":
            examples = budget.examples or 0
        case "tokens":
            examples = _ceil((budget.tokens or 0) / facts.targets_per_example)
        case _:
            if facts.num_train is None:
                raise ValueError("budget.epochs: an endless stream of examples has no epochs")
            examples = _ceil((budget.epochs or 0) * facts.num_train)
    return ramp.steps_for(examples, min_steps=budget.min_steps)


def transferred(base: Mapping[str, Any], *, global_batch_size: int, rule: str) -> dict[str, Any]:
    """A base cell's hyperparameters, carried to another batch size by a rule."""
    return dict(base) | {
        "global_batch_size": global_batch_size,
        "base_lr": base["peak_lr"],
        "base_batch_size": base["global_batch_size"],
        "lr_scaling_rule": rule,
        "peak_lr": None,
    }


def replicate_seeds(spec: StudySpec, num_seeds: int) -> list[int]:
    """Seeds of transfer and confirm: the same for all cells and rules, none used by the search."""
    return [spec.seed + 1 + number for number in range(num_seeds)]


def planned_search(spec: StudySpec, facts: Facts) -> list[PlannedTrial]:
    """The search phase, cell by cell; recipes are None where an adaptive sampler decides."""
    return [
        planned_point(spec, cell, number, choices, facts)
        for cell in cells(spec)
        for number, choices in enumerate(design(spec, cell) or [None] * spec.search.trials_per_cell)
    ]


def planned_point(
    spec: StudySpec, cell: Cell, number: int, choices: Choices | None, facts: Facts
) -> PlannedTrial:
    """A cell's search trial with a number, from 0; without choices an adaptive sampler decides."""
    recipe = None
    if choices is not None:
        values = hyperparameters(spec, cell, choices)
        recipe = resolve(spec, values, seed=spec.seed, facts=facts)
    trial_id = f"search-{cell_name(cell)}-{number:03d}"
    return PlannedTrial(trial_id, "search", cell, choices or {}, recipe)


def planned_replicates(
    spec: StudySpec, best: Sequence[TrialRecord], facts: Facts
) -> tuple[list[PlannedTrial], list[tuple[str, int, str]]]:
    """The transfer and confirm phases.

    Args:
        spec: The study: rules and numbers of seeds.
        best: Each cell's best search trial; a cell whose trials all diverged has none.
        facts: Sizes of the data, and of trials' worker groups.

    Returns:
        The trials, and what a rule could not carry: (rule, global_batch_size, why).
    """
    confirm = [trial for record in best for trial in _confirm_trials(spec, record, facts)]
    transfer, refused = _transfer_trials(spec, best, facts)
    return transfer + confirm, refused


def _confirm_trials(spec: StudySpec, record: TrialRecord, facts: Facts) -> list[PlannedTrial]:
    if spec.confirm is None:
        return []
    values = hyperparameters(spec, record.cell, record.choices)
    return [
        PlannedTrial(
            f"confirm-{cell_name(record.cell)}-seed{seed}", "confirm", record.cell, record.choices,
            resolve(spec, values, seed=seed, facts=facts),
        )
        for seed in replicate_seeds(spec, spec.confirm.num_seeds)
    ]  # fmt: skip


def _transfer_trials(
    spec: StudySpec, best: Sequence[TrialRecord], facts: Facts
) -> tuple[list[PlannedTrial], list[tuple[str, int, str]]]:
    """The base cell's best recipe at every other batch size, by each rule."""
    transfer = spec.transfer
    base = next(
        (r for r in best if transfer and r.recipe.global_batch_size == transfer.base_batch_size),
        None,
    )
    planned: list[PlannedTrial] = []
    refused: list[tuple[str, int, str]] = []
    if transfer is None:
        return planned, refused
    others = [b for b in spec.batch_sizes() if b != transfer.base_batch_size]
    if base is None:
        why = "no search trial of the base cell ended with a finite loss"
        return planned, [(rule, b, why) for rule, b in itertools.product(transfer.rules, others)]
    base_values = hyperparameters(spec, base.cell, base.choices)
    for rule, batch in itertools.product(transfer.rules, others):
        values = transferred(base_values, global_batch_size=batch, rule=rule)
        cell = {"global_batch_size": batch}
        for seed in replicate_seeds(spec, transfer.num_seeds):
            try:
                recipe = resolve(spec, values, seed=seed, facts=facts)
            except ValueError as error:
                refused.append((rule, batch, str(error)))
                break
            planned.append(
                PlannedTrial(
                    f"transfer-{cell_name(cell)}-{rule}-seed{seed}",
                    "transfer",
                    cell,
                    {"peak_lr": recipe.peak_lr},
                    recipe,
                    rule=rule,
                )
            )
    return planned, refused


def num_trials(spec: StudySpec) -> dict[Phase, int]:
    """Trials of each phase, if every cell has a best recipe and every rule applies."""
    counts: dict[Phase, int] = {"search": num_cells(spec) * spec.search.trials_per_cell}
    if spec.transfer is not None:
        transfer = spec.transfer
        counts["transfer"] = len(transfer.rules) * (num_cells(spec) - 1) * transfer.num_seeds
    if spec.confirm is not None:
        counts["confirm"] = num_cells(spec) * spec.confirm.num_seeds
    if spec.branch is not None:
        branch = spec.branch
        counts["branch"] = len(branch.at_examples) * len(branch.multiples) * branch.num_seeds
    return counts
