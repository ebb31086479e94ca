"""How a recipe tuned at one batch size is carried to another; pure functions.

With κ = global_batch_size / base_batch_size, every rule obeys scale(a) ∘ scale(b) = scale(ab):
carrying a recipe in two hops gives what carrying it in one does.
"""

import math
import re
from dataclasses import dataclass, replace

LR_RULE_PATTERN = (
    r"^(none|sqrt|linear|adam_sde|power\((?P<exponent>-?\d+(\.\d+)?)\)"
    r"|surge\((?P<noise_scale>(?!0+(\.0+)?\))\d+(\.\d+)?)\))$"
)


class RuleDomainError(ValueError):
    """A rule was asked for a batch at which it does not define a recipe."""


@dataclass(frozen=True)
class OptimizerSettings:
    """What a rule may move.

    Attributes:
        peak_lr: Learning rate after warmup, in the optimizer's own unit.
        beta1: Decay of Adam's first moment, per step.
        beta2: Decay of Adam's second moment, per step.
        eps: Added to the root of Adam's second moment.
    """

    peak_lr: float
    beta1: float
    beta2: float
    eps: float


def scaled_lr(base_lr: float, *, base_batch_size: int, global_batch_size: int, rule: str) -> float:
    """Carry a learning rate tuned at one batch size to another.

    Args:
        base_lr: Peak learning rate that was tuned at `base_batch_size`.
        base_batch_size: Examples per optimizer step at which it was tuned.
        global_batch_size: Examples per optimizer step to carry it to.
        rule: How the rate grows with κ: none, sqrt (√κ), linear (κ), adam_sde (√κ; the betas
            and eps move too, see `scale_optimizer`), power(p) (κ^p) or surge(B_noise), for
            optimizers like Adam, which falls again above B_noise (see `surge`).

    Returns:
        Peak learning rate at `global_batch_size`, in the optimizer's own unit.

    Raises:
        ValueError: If a batch size or the rate is not positive, or the rule is unknown.
        RuleDomainError: If the carried rate is not a positive finite float.

    Source: linear, Goyal et al. 2017 (arXiv:1706.02677) sec. 2.1; sqrt, Krizhevsky 2014
        (arXiv:1404.5997) sec. 5; Adam-SDE, Malladi et al. 2022 (arXiv:2205.10287) def. 5.2;
        surge, Li et al. 2024 (arXiv:2405.14578).
    """
    if not base_lr > 0:
        raise ValueError(f"base_lr {base_lr} must be above 0")
    kappa = _batch_ratio(base_batch_size=base_batch_size, global_batch_size=global_batch_size)
    noise_scale = _matched(rule)["noise_scale"]
    if noise_scale is not None:
        here, there = (surge(b, float(noise_scale)) for b in (base_batch_size, global_batch_size))
        return base_lr * there / here
    return base_lr * _power(kappa, lr_exponent(rule), rule=rule, rate=base_lr)


def surge(global_batch_size: float, noise_scale: float) -> float:
    """The best learning rate at a batch size over the one at B = `noise_scale`, its maximum.

    1 / ½ (√(B_noise / B) + √(B / B_noise)), both sizes in examples.

    Raises:
        ValueError: If one of them is not positive and finite.

    Source: Li et al. 2024 (arXiv:2405.14578), for optimizers that go by the gradient's sign
        as Adam does.
    """
    for size in (global_batch_size, noise_scale):
        if not 0 < size < math.inf:
            raise ValueError(f"a batch size {size} must be positive and finite")
    root = math.sqrt(global_batch_size / noise_scale)
    return 2 / (root + 1 / root)


def scaled_beta2(beta2: float, *, base_batch_size: int, global_batch_size: int) -> float:
    """beta2 with the same half-life in tokens at another batch size: beta2^κ.

    Raises:
        ValueError: If a batch size is not positive, or beta2 is not in [0, 1).
        RuleDomainError: If beta2^κ is 0 or 1 but for rounding.

    Source: Marek et al. 2025 (arXiv:2507.07101), the half-life rule.
    """
    if not 0 <= beta2 < 1:
        raise ValueError(f"beta2 {beta2} must be at least 0 and below 1")
    kappa = _batch_ratio(base_batch_size=base_batch_size, global_batch_size=global_batch_size)
    scaled = beta2**kappa
    if beta2 > 0 and not 0 < scaled < 1:
        raise RuleDomainError(
            f"token_half_life carries beta2 {beta2:g} at kappa {kappa:g} to {scaled:g}"
        )
    return scaled


def scaled_weight_decay(
    weight_decay: float,
    *,
    base_lr: float,
    peak_lr: float,
    base_batch_size: int,
    global_batch_size: int,
) -> float:
    """Weight decay with the same timescale in epochs at another batch size and rate.

    With decoupled decay the weights are an exponential average of the updates over
    1 / (lr × weight_decay) steps, so the decay goes by κ × base_lr / peak_lr.

    Args:
        weight_decay: As tuned at `base_batch_size` and `base_lr`.
        base_lr: Peak learning rate at which it was tuned.
        peak_lr: Peak learning rate to carry it to.
        base_batch_size: Examples per optimizer step at which it was tuned.
        global_batch_size: Examples per optimizer step to carry it to.

    Raises:
        ValueError: If a batch size or a rate is not positive, or the decay is negative.
        RuleDomainError: If the timescale is not above one step at the new batch size.

    Source: Wang & Aitchison 2024 (arXiv:2405.13698), the EMA timescale.
    """
    if not (base_lr > 0 and peak_lr > 0 and weight_decay >= 0):
        raise ValueError(
            f"base_lr {base_lr} and peak_lr {peak_lr} must be above 0 and weight_decay "
            f"{weight_decay} at least 0"
        )
    kappa = _batch_ratio(base_batch_size=base_batch_size, global_batch_size=global_batch_size)
    scaled = weight_decay * kappa * (base_lr / peak_lr)
    if peak_lr * scaled >= 1:
        raise RuleDomainError(
            f"timescale needs lr × weight_decay < 1, but {peak_lr:g} × {scaled:g} = "
            f"{peak_lr * scaled:.4g} at kappa {kappa:g}"
        )
    return scaled


def scaled_warmup_steps(
    warmup_steps: float, *, base_batch_size: int, global_batch_size: int
) -> float:
    """Steps of warmup over the same number of examples at another batch size; not rounded.

    Raises:
        ValueError: If a batch size is not positive, or the warmup is negative.
    """
    if not warmup_steps >= 0:
        raise ValueError(f"warmup_steps {warmup_steps} must be at least 0")
    kappa = _batch_ratio(base_batch_size=base_batch_size, global_batch_size=global_batch_size)
    return warmup_steps / kappa


def scale_optimizer(
    settings: OptimizerSettings, *, base_batch_size: int, global_batch_size: int, rule: str
) -> OptimizerSettings:
    """Carry everything a rule moves from one batch size to another.

    All rules but adam_sde move the learning rate alone. adam_sde moves lr → lr √κ,
    1 − β → κ (1 − β) for both betas and eps → eps / √κ, which keeps Adam on the same stochastic
    differential equation per example; it says nothing about other optimizers.

    Args:
        settings: As tuned at `base_batch_size`.
        base_batch_size: Examples per optimizer step at which they were tuned.
        global_batch_size: Examples per optimizer step to carry them to.
        rule: none, sqrt, linear, adam_sde, power(p) or surge(B_noise).

    Returns:
        The settings at `global_batch_size`; unchanged at the base batch itself.

    Raises:
        ValueError: If a batch size or the rate is not positive, or the rule is unknown.
        RuleDomainError: If κ (1 − β) ≥ 1 for one of the betas under adam_sde, or the carried
            rate is not a positive finite float.

    Source: Malladi et al. 2022 (arXiv:2205.10287) def. 5.2; for the rest see `scaled_lr`.
    """
    peak_lr = scaled_lr(
        settings.peak_lr,
        base_batch_size=base_batch_size,
        global_batch_size=global_batch_size,
        rule=rule,
    )
    if moves_rate_alone(rule) or base_batch_size == global_batch_size:
        return replace(settings, peak_lr=peak_lr)
    kappa = _batch_ratio(base_batch_size=base_batch_size, global_batch_size=global_batch_size)
    return OptimizerSettings(
        peak_lr=peak_lr,
        beta1=_sde_beta("beta1", settings.beta1, kappa),
        beta2=_sde_beta("beta2", settings.beta2, kappa),
        eps=settings.eps / math.sqrt(kappa),
    )


def moves_rate_alone(rule: str) -> bool:
    """Whether a rule leaves everything but the learning rate as it is."""
    return rule != "adam_sde"


def one_name(rule: str) -> str:
    """A name that rules have in common which are the same, as sqrt and power(0.5) are.

    Raises:
        ValueError: If the rule is unknown.
    """
    match = _matched(rule)
    if match["noise_scale"] is not None:
        return f"surge({float(match['noise_scale'])})"
    return f"power({lr_exponent(rule) + 0.0})" if moves_rate_alone(rule) else rule


def lr_exponent(rule: str) -> float:
    """The p of peak_lr ∝ global_batch_size^p under a rule.

    Raises:
        ValueError: If the rule is unknown, or surge, which is not a power.
    """
    match = _matched(rule)
    if match["noise_scale"] is not None:
        raise ValueError(f"{rule} is not a power of the batch size")
    if match["exponent"] is not None:
        return float(match["exponent"])
    return {"none": 0.0, "sqrt": 0.5, "linear": 1.0, "adam_sde": 0.5}[rule]


def _matched(rule: str) -> re.Match[str]:
    match = re.fullmatch(LR_RULE_PATTERN, rule)
    if match is None:
        raise ValueError(
            f"unknown rule {rule!r}; known: none, sqrt, linear, adam_sde, power(p), surge(B_noise)"
        )
    return match


def _batch_ratio(*, base_batch_size: int, global_batch_size: int) -> float:
    """The κ of the papers."""
    if base_batch_size < 1 or global_batch_size < 1:
        raise ValueError(
            f"batch sizes must be at least 1: base {base_batch_size}, global {global_batch_size}"
        )
    return global_batch_size / base_batch_size


def _power(kappa: float, exponent: float, *, rule: str, rate: float) -> float:
    """κ^p, refused where `rate` × κ^p leaves the positive finite floats."""
    log_scaled = math.log(rate) + exponent * math.log(kappa)
    if not math.log(5e-324) < log_scaled < math.log(1.7e308):
        raise RuleDomainError(
            f"{rule} carries the rate {rate:g} at kappa {kappa:g} out of the range of floats"
        )
    return math.pow(kappa, exponent)


def _sde_beta(name: str, beta: float, kappa: float) -> float:
    """1 − κ (1 − β)."""
    decay = kappa * (1 - beta)
    if decay >= 1 - 1e-12:  # κ = 10 at β = 0.9 is 1 but for rounding
        raise RuleDomainError(
            f"adam_sde needs kappa × (1 − {name}) < 1, but kappa {kappa:g} × (1 − {beta:g}) "
            f"= {decay:.4g}"
        )
    return 1 - decay
