"""The recipe of one trial, with no choice left open."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from scaling.arithmetic.batching import BatchRamp
from scaling.arithmetic.rules import (
    OptimizerSettings,
    RuleDomainError,
    scale_optimizer,
    scaled_beta2,
    scaled_warmup_steps,
    scaled_weight_decay,
)
from scaling.optimizers.catalog import usual_value
from scaling.records.recipe import Hyperparameters, Layout, Recipe
from scaling.space.budget import batch_ramp_of, num_steps_of, rounded_up
from scaling.space.cells import cells, hyperparameters
from scaling.space.layout import Facts, split_of, world_size_of
from scaling.spec.hyperparameters import Given, Origin, Setting
from scaling.spec.study import StudySpec


def resolve(spec: StudySpec, setting: Setting, *, seed: int, facts: Facts) -> Recipe:
    """The recipe of one trial, with no choice left open.

    Args:
        spec: The study: its budget and resources.
        setting: From `hyperparameters` or `transferred`.
        seed: Of the trial.
        facts: Sizes of the data, and of trials' worker groups.

    Raises:
        ValueError: If the batch cannot be split among the workers.
        RuleDomainError: If the rule that carries base_lr leaves its domain.
    """
    given, resources = setting.given, spec.resources
    ramp = batch_ramp_of(setting)
    split = split_of(spec, ramp.first, facts)
    num_steps = num_steps_of(spec, ramp, facts)
    if num_steps is not None:
        ramp = ramp.up_to(num_steps)
    base = _base_of(setting, ramp.first)
    settings = _optimizer_settings(given, base)
    resolved = {
        "global_batch_size": ramp.first,
        "batch_ramp_at_examples": ramp.at_examples,
        "num_steps": num_steps,
        "budget_seconds": spec.budget.seconds,
        **asdict(settings),
        "warmup_steps": _warmup_steps(setting, base, ramp, num_steps),
        "weight_decay": _weight_decay(given, base, settings.peak_lr),
        "momentum": _or_usual(given.momentum, given, "momentum", 0.0),
        "lora_rank": _lora_rank(spec, given),
    }
    return Recipe(
        seed=seed,
        hyperparameters=Hyperparameters(**{**asdict(given), **resolved}),
        layout=Layout(
            world_size=world_size_of(spec, ramp.first, facts),
            micro_batch_size=split.micro_batch_size,
            grad_accum_steps=split.grad_accum_steps,
            strategy=resources.strategy,
            precision=resources.precision,
            activation_checkpointing=resources.activation_checkpointing,
            compile=resources.compile,
        ),
        origin=setting.origin,
    )


@dataclass(frozen=True)
class _Base:
    """What a trial's hyperparameters are carried from, and to which batch size."""

    lr: float
    sizes: Mapping[str, int]
    by: Origin


def _base_of(setting: Setting, global_batch_size: int) -> _Base | None:
    """None of a trial whose rate is given as it is."""
    origin = setting.origin
    if origin.base_lr is None:
        return None
    assert origin.base_batch_size is not None
    sizes = {
        "base_batch_size": origin.base_batch_size, "global_batch_size": global_batch_size,
    }  # fmt: skip
    return _Base(origin.base_lr, sizes, origin)


def _lora_rank(spec: StudySpec, given: Given) -> int | None:
    """The rank of a trial's adapters; None where it has none."""
    model = spec.workload.model
    if model is None or model.lora is None:
        return None
    return model.lora.rank if given.lora_rank is None else given.lora_rank


def _warmup_steps(
    setting: Setting, base: _Base | None, ramp: BatchRamp, num_steps: int | None
) -> int:
    """Steps of warmup, from the one of its three fields that is given; 0 where none is."""
    origin = setting.origin
    if origin.warmup_ratio is not None and num_steps is not None:
        return rounded_up(origin.warmup_ratio * num_steps)
    if origin.warmup_examples is not None:
        return ramp.steps_for(origin.warmup_examples, min_steps=0)
    steps = setting.given.warmup_steps or 0
    if base is None or base.by.warmup_scaling == "steps":
        return steps
    return rounded_up(scaled_warmup_steps(steps, **base.sizes))


def _weight_decay(given: Given, base: _Base | None, peak_lr: float) -> float:
    """A trial's weight decay, carried to its batch size where that is asked for."""
    if base is None or base.by.weight_decay_scaling == "none":
        return given.weight_decay
    return scaled_weight_decay(given.weight_decay, base_lr=base.lr, peak_lr=peak_lr, **base.sizes)


def _or_usual(value: float | None, given: Given, name: str, otherwise: float) -> float:
    """A hyperparameter, or where it is left out what is usual for the trial's optimizer."""
    known = (value, usual_value(given.optimizer, name), otherwise)
    return next(value for value in known if value is not None)


def _optimizer_settings(given: Given, base: _Base | None) -> OptimizerSettings:
    peak_lr = given.peak_lr if base is None else base.lr
    assert peak_lr is not None
    settings = OptimizerSettings(
        peak_lr=peak_lr,
        beta1=given.beta1,
        beta2=_or_usual(given.beta2, given, "beta2", 0.999),
        eps=_or_usual(given.eps, given, "eps", 1e-8),
    )
    if base is None:
        return settings
    rule = base.by.lr_scaling_rule
    scaled = scale_optimizer(settings, rule=rule, **base.sizes)
    if base.by.beta2_scaling == "none":
        return scaled
    if rule == "adam_sde":
        raise RuleDomainError("adam_sde moves beta2 itself, so token_half_life cannot")
    return replace(scaled, beta2=scaled_beta2(settings.beta2, **base.sizes))


_TIMING_LR = 1e-6  # too small to blow up: only the time of a step counts


def timing_recipe(
    spec: StudySpec, facts: Facts, global_batch_size: int, *, world_size: int
) -> Recipe:
    """A recipe of the first cell whose steps take as long as a trial's; it has no end."""
    setting = hyperparameters(spec, cells(spec)[0], {"global_batch_size": global_batch_size})
    plain = replace(
        setting.given, batch_ramp_at_examples=None, peak_lr=_TIMING_LR, schedule="constant",
        warmup_steps=0,
    )  # fmt: skip
    here = replace(facts, world_sizes={global_batch_size: world_size})
    recipe = resolve(spec, Setting(plain, Origin()), seed=spec.seed, facts=here)
    endless = replace(recipe.hyperparameters, num_steps=None, budget_seconds=None)
    return replace(recipe, hyperparameters=endless)


def transferred(base: Setting, *, global_batch_size: int, rule: str) -> Setting:
    """A base cell's hyperparameters, carried to another batch size by a rule."""
    given = base.given
    return Setting(
        replace(given, global_batch_size=global_batch_size, peak_lr=None),
        replace(
            base.origin, base_lr=given.peak_lr, base_batch_size=given.global_batch_size,
            lr_scaling_rule=rule,
        ),
    )  # fmt: skip
