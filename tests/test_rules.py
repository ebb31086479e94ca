"""Scaling rules against case 7's numbers, and their composition law."""

import itertools

import pytest

from scaling.rules import (
    OptimizerSettings,
    RuleDomainError,
    lr_exponent,
    scale_optimizer,
    scaled_lr,
)

TUNED = OptimizerSettings(peak_lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8)
RULES = ["none", "sqrt", "linear", "adam_sde", "power(0.7)", "power(-0.25)"]


def as_tuple(settings: OptimizerSettings) -> tuple[float, float, float, float]:
    return settings.peak_lr, settings.beta1, settings.beta2, settings.eps


@pytest.mark.parametrize(
    ("rule", "at_64", "at_4"),
    [
        ("none", 1e-3, 1e-3),
        ("sqrt", 2e-3, 5e-4),
        ("linear", 4e-3, 2.5e-4),
        ("adam_sde", 2e-3, 5e-4),
        ("power(0.25)", 1.4142135623730951e-3, 7.0710678118654752e-4),
        ("power(-1)", 2.5e-4, 4e-3),
        ("power(0)", 1e-3, 1e-3),
    ],
)
def test_scaled_lr(rule: str, at_64: float, at_4: float) -> None:
    up = scaled_lr(1e-3, base_batch_size=16, global_batch_size=64, rule=rule)
    down = scaled_lr(1e-3, base_batch_size=16, global_batch_size=4, rule=rule)
    assert (up, down) == pytest.approx((at_64, at_4), rel=1e-14)


def test_adam_sde_at_kappa_4() -> None:
    scaled = scale_optimizer(TUNED, base_batch_size=64, global_batch_size=256, rule="adam_sde")
    assert as_tuple(scaled) == pytest.approx((2e-3, 0.6, 0.996, 5e-9), rel=1e-14)


def test_adam_sde_refuses_kappa_16() -> None:
    with pytest.raises(RuleDomainError, match=r"1 − beta1\) < 1, but kappa 16 .* = 1\.6"):
        scale_optimizer(TUNED, base_batch_size=64, global_batch_size=1024, rule="adam_sde")


def test_adam_sde_checks_beta2_too() -> None:
    settings = OptimizerSettings(peak_lr=1e-3, beta1=0.999, beta2=0.9, eps=1e-8)
    with pytest.raises(RuleDomainError, match="beta2"):
        scale_optimizer(settings, base_batch_size=1, global_batch_size=10, rule="adam_sde")


@pytest.mark.parametrize("rule", ["none", "sqrt", "linear", "power(0.7)"])
def test_other_rules_move_the_rate_alone(rule: str) -> None:
    scaled = scale_optimizer(TUNED, base_batch_size=16, global_batch_size=1024, rule=rule)
    assert as_tuple(scaled)[1:] == as_tuple(TUNED)[1:]
    assert scaled.peak_lr == scaled_lr(1e-3, base_batch_size=16, global_batch_size=1024, rule=rule)


@pytest.mark.parametrize("rule", RULES)
def test_the_base_batch_is_left_alone(rule: str) -> None:
    without_momentum = OptimizerSettings(peak_lr=3e-3, beta1=0.0, beta2=0.95, eps=1e-8)
    assert (
        scale_optimizer(without_momentum, base_batch_size=48, global_batch_size=48, rule=rule)
        == without_momentum
    )


@pytest.mark.parametrize("rule", RULES)
def test_two_hops_equal_one(rule: str) -> None:
    for base, between, final in itertools.product([16, 24, 64], [8, 40, 96], [1, 16, 100]):
        hop = scale_optimizer(TUNED, base_batch_size=base, global_batch_size=between, rule=rule)
        two = scale_optimizer(hop, base_batch_size=between, global_batch_size=final, rule=rule)
        one = scale_optimizer(TUNED, base_batch_size=base, global_batch_size=final, rule=rule)
        assert as_tuple(two) == pytest.approx(as_tuple(one), rel=1e-12)


@pytest.mark.parametrize(
    ("rule", "exponent"), [("none", 0), ("sqrt", 0.5), ("linear", 1), ("power(0.7)", 0.7)]
)
def test_exponent(rule: str, exponent: float) -> None:
    assert lr_exponent(rule) == exponent


@pytest.mark.parametrize(
    "rule", ["Linear", "power", "power()", "power(x)", "power(1e3)", "", "sqrt\n"]
)
def test_unknown_rule(rule: str) -> None:
    with pytest.raises(ValueError, match="unknown rule"):
        scaled_lr(1e-3, base_batch_size=1, global_batch_size=2, rule=rule)


@pytest.mark.parametrize(
    ("rate", "base", "batch"),
    [(0.0, 1, 1), (-1.0, 1, 1), (float("nan"), 1, 1), (1.0, 0, 1), (1.0, 1, 0)],
)
def test_sizes_and_rate_must_be_positive(rate: float, base: int, batch: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        scaled_lr(rate, base_batch_size=base, global_batch_size=batch, rule="linear")


@pytest.mark.parametrize("exponent", ["999", "-999"])
def test_a_rate_out_of_range_is_refused(exponent: str) -> None:
    with pytest.raises(RuleDomainError, match="out of the range"):
        scaled_lr(1e-3, base_batch_size=1, global_batch_size=4096, rule=f"power({exponent})")
