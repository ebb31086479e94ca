"""How a recipe tuned at one batch size is carried to another; pure functions.

With κ = global_batch_size / base_batch_size, every rule obeys scale(a) ∘ scale(b) = scale(ab):
carrying a recipe in two hops gives what carrying it in one does.
"""

import math
import re
from dataclasses import dataclass, replace

from scaling.spec import LR_RULE_PATTERN


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
            and eps move too, see `scale_optimizer`) or power(p) (κ^p).

    Returns:
        Peak learning rate at `global_batch_size`, in the optimizer's own unit.

    Raises:
        ValueError: If a batch size or the rate is not positive, or the rule is unknown.
        RuleDomainError: If the carried rate is not a positive finite float.

    Source: linear, Goyal et al. 2017 (arXiv:1706.02677) sec. 2.1; sqrt, Krizhevsky 2014
        (arXiv:1404.5997) sec. 5; Adam-SDE, Malladi et al. 2022 (arXiv:2205.10287) def. 5.2.
    """
    if not base_lr > 0:
        raise ValueError(f"base_lr {base_lr} must be above 0")
    kappa = _batch_ratio(base_batch_size=base_batch_size, global_batch_size=global_batch_size)
    return base_lr * _power(kappa, lr_exponent(rule), rule=rule, rate=base_lr)


def scale_optimizer(
    settings: OptimizerSettings, *, base_batch_size: int, global_batch_size: int, rule: str
) -> OptimizerSettings:
    """Carry everything a rule moves from one batch size to another.

    none, sqrt, linear and power(p) move the learning rate alone. adam_sde moves lr → lr √κ,
    1 − β → κ (1 − β) for both betas and eps → eps / √κ, which keeps Adam on the same stochastic
    differential equation per example; it says nothing about other optimizers.

    Args:
        settings: As tuned at `base_batch_size`.
        base_batch_size: Examples per optimizer step at which they were tuned.
        global_batch_size: Examples per optimizer step to carry them to.
        rule: none, sqrt, linear, adam_sde or power(p).

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
    if rule != "adam_sde" or base_batch_size == global_batch_size:
        return replace(settings, peak_lr=peak_lr)
    kappa = _batch_ratio(base_batch_size=base_batch_size, global_batch_size=global_batch_size)
    return OptimizerSettings(
        peak_lr=peak_lr,
        beta1=_sde_beta("beta1", settings.beta1, kappa),
        beta2=_sde_beta("beta2", settings.beta2, kappa),
        eps=settings.eps / math.sqrt(kappa),
    )


def lr_exponent(rule: str) -> float:
    """The p of peak_lr ∝ global_batch_size^p under a rule.

    Raises:
        ValueError: If the rule is not none, sqrt, linear, adam_sde or power(p).
    """
    match = re.fullmatch(LR_RULE_PATTERN, rule)
    if match is None:
        raise ValueError(f"unknown rule {rule!r}; known: none, sqrt, linear, adam_sde, power(p)")
    if match["exponent"] is not None:
        return float(match["exponent"])
    return {"none": 0.0, "sqrt": 0.5, "linear": 1.0, "adam_sde": 0.5}[rule]


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
