"""The recipe of one trial, with no choice left open."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, assert_never

from scaling.arithmetic.batching import BatchRamp, BatchSplit, split_batch
from scaling.arithmetic.rules import (
    OptimizerSettings,
    RuleDomainError,
    scale_optimizer,
    scaled_beta2,
    scaled_warmup_steps,
    scaled_weight_decay,
)
from scaling.optimizers.catalog import usual_value
from scaling.records.recipe import Hyperparameters, Layout, Origin, Recipe
from scaling.space.cells import cells, hyperparameters
from scaling.spec.fields import MAX_BATCH_SIZE
from scaling.spec.models import Pretrained
from scaling.spec.study import StudySpec


@dataclass(frozen=True)
class Facts:
    """What a recipe needs to know beside the study file.

    Attributes:
        num_train: Training examples; None for an endless stream.
        tokens_per_example: Mean number of input tokens of a training example, padding not
            counted; None where there are none, or where nobody needs to know.
        world_sizes: Workers of a trial by global batch size, where `resources.num_workers` is
            auto; one where a batch size is not listed.
        largest_micro_batch_size: What fits a worker, where `resources.micro_batch_size` is auto;
            None for no bound.
        cell_places: Of a study that was extended: see `scaling.space.cells.cell_seed`.
    """

    num_train: int | None
    tokens_per_example: float | None
    world_sizes: Mapping[int, int] = field(default_factory=dict[int, int])
    largest_micro_batch_size: int | None = None
    cell_places: Mapping[str, int] = field(default_factory=dict[str, int])


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
    resources = spec.resources
    return Recipe(
        seed=seed,
        hyperparameters=Hyperparameters(
            global_batch_size=batch,
            batch_ramp_at_examples=ramp.at_examples,
            batch_ramp_factor=ramp.factor,
            num_steps=num_steps,
            budget_seconds=spec.budget.seconds,
            peak_lr=settings.peak_lr,
            warmup_steps=_warmup_steps(values, ramp, num_steps),
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
            lora_rank=_lora_rank(spec, values),
            label_smoothing=values["label_smoothing"],
            weight_average_half_life_examples=values["weight_average_half_life_examples"],
        ),
        layout=Layout(
            world_size=world_size_of(spec, batch, facts),
            micro_batch_size=split.micro_batch_size,
            grad_accum_steps=split.grad_accum_steps,
            strategy=resources.strategy,
            precision=resources.precision,
            activation_checkpointing=resources.activation_checkpointing,
            compile=resources.compile,
        ),
        origin=Origin(**{origin.name: values[origin.name] for origin in fields(Origin)}),
    )


def _lora_rank(spec: StudySpec, values: Mapping[str, Any]) -> int | None:
    """The rank of a trial's adapters; None where it has none."""
    model = spec.workload.model
    if not isinstance(model, Pretrained):
        return None
    lora, rank = model.lora, values["lora_rank"]
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


def _or_usual(values: Mapping[str, Any], name: str, otherwise: float) -> float:
    """A hyperparameter, or where it is left out what is usual for the trial's optimizer."""
    usual = usual_value(values["optimizer"], name)
    known: tuple[float | None, ...] = (values[name], usual, otherwise)
    return next(value for value in known if value is not None)


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
    endless = replace(recipe.hyperparameters, num_steps=None, budget_seconds=None)
    return replace(recipe, hyperparameters=endless)


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
        ValueError: If the budget is in epochs and the data have no end, or in tokens and they
            have none.
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
            if facts.tokens_per_example is None:
                raise ValueError("budget.tokens: the examples have no tokens")
            examples = _ceil((budget.tokens or 0) / facts.tokens_per_example)
        case "epochs":
            if facts.num_train is None:
                raise ValueError("budget.epochs: an endless stream of examples has no epochs")
            examples = _ceil((budget.epochs or 0) * facts.num_train)
        case unknown:
            assert_never(unknown)
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
