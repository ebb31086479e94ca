"""Scaling rules against case 7's numbers, and their composition law."""

import itertools
import math

import pytest

from scaling.arithmetic.rules import (
    OptimizerSettings,
    RuleDomainError,
    lr_exponent,
    scale_optimizer,
    scaled_beta2,
    scaled_lr,
    scaled_warmup_steps,
    scaled_weight_decay,
    surge,
)

TUNED = OptimizerSettings(peak_lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8)
RULES = ["none", "sqrt", "linear", "adam_sde", "power(0.7)", "power(-0.25)", "surge(31)"]


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
        # f(4) = 4 / 5, f(16) = 1, f(64) = 4 / 5 at B_noise 16
        ("surge(16)", 8e-4, 8e-4),
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


@pytest.mark.parametrize(
    ("base", "batch", "ratio"), [(2, 4, 4 / 3), (31, 124, 0.8), (124, 31, 1.25), (1, 961, 1.0)]
)
def test_surge_by_hand(base: int, batch: int, ratio: float) -> None:
    # Case 7, B_noise = 31: f(4) / f(2) = 1.333 (rounded there), f(124) / f(31) = .8.
    found = scaled_lr(1e-3, base_batch_size=base, global_batch_size=batch, rule="surge(31)")
    assert found == pytest.approx(1e-3 * ratio, rel=1e-3 if base == 2 else 1e-12)
    assert surge(batch, 31) / surge(base, 31) == pytest.approx(ratio, rel=1e-3)


def test_surge_is_no_power() -> None:
    with pytest.raises(ValueError, match="not a power"):
        lr_exponent("surge(31)")


def test_beta2_by_token_half_life() -> None:
    # Case 7: the half-life of .95 at 512 × 1024 tokens is 7.085M tokens, as of .999900 at B = 1.
    found = scaled_beta2(0.95, base_batch_size=512, global_batch_size=1)
    assert found == pytest.approx(0.999900, abs=5e-7)
    assert 1024 * math.log(0.5) / math.log(found) == pytest.approx(7.085e6, rel=1e-4)
    assert scaled_beta2(0.5, base_batch_size=8, global_batch_size=16) == 0.25
    assert scaled_beta2(0.0, base_batch_size=8, global_batch_size=16) == 0.0


@pytest.mark.parametrize(("beta2", "base", "batch"), [(0.5, 1, 2000), (1 - 2**-53, 10**9, 1)])
def test_a_beta2_that_rounds_away_is_refused(beta2: float, base: int, batch: int) -> None:
    with pytest.raises(RuleDomainError, match="token_half_life carries beta2"):
        scaled_beta2(beta2, base_batch_size=base, global_batch_size=batch)


@pytest.mark.parametrize(
    ("rule", "batch", "decay"),
    # 0.1 at 16 with rate .01: a timescale of 1000 steps, 16,000 examples.
    [("none", 64, 0.4), ("sqrt", 64, 0.2), ("linear", 64, 0.1), ("none", 4, 0.025)],
)
def test_weight_decay_by_its_timescale(rule: str, batch: int, decay: float) -> None:
    peak_lr = scaled_lr(0.01, base_batch_size=16, global_batch_size=batch, rule=rule)
    found = scaled_weight_decay(
        0.1, base_lr=0.01, peak_lr=peak_lr, base_batch_size=16, global_batch_size=batch
    )
    assert found == pytest.approx(decay, rel=1e-12)
    assert batch / (peak_lr * found) == pytest.approx(16_000, rel=1e-12)


def test_a_timescale_of_one_step_is_refused() -> None:
    with pytest.raises(RuleDomainError, match=r"lr × weight_decay < 1, but 0.01 × 102.4 = 1.024"):
        scaled_weight_decay(
            0.1, base_lr=0.01, peak_lr=0.01, base_batch_size=1, global_batch_size=1024
        )


def test_warmup_over_the_same_examples() -> None:
    assert scaled_warmup_steps(30, base_batch_size=16, global_batch_size=64) == 7.5
    assert scaled_warmup_steps(30, base_batch_size=16, global_batch_size=4) == 120


def test_what_moves_beside_the_rate_in_two_hops_equals_one() -> None:
    for a, b, c in itertools.product([16, 24, 64], [8, 40, 96], [1, 16, 100]):
        hops = [{"base_batch_size": a, "global_batch_size": b}]
        hops.append({"base_batch_size": b, "global_batch_size": c})
        one = {"base_batch_size": a, "global_batch_size": c}
        rates = [1e-3, 2e-3, 5e-4]
        beta2 = scaled_beta2(scaled_beta2(0.99, **hops[0]), **hops[1])
        assert beta2 == pytest.approx(scaled_beta2(0.99, **one), rel=1e-12)
        decay = scaled_weight_decay(0.1, base_lr=rates[0], peak_lr=rates[1], **hops[0])
        decay = scaled_weight_decay(decay, base_lr=rates[1], peak_lr=rates[2], **hops[1])
        expected = scaled_weight_decay(0.1, base_lr=rates[0], peak_lr=rates[2], **one)
        assert decay == pytest.approx(expected, rel=1e-12)
        warmup = scaled_warmup_steps(scaled_warmup_steps(30, **hops[0]), **hops[1])
        assert warmup == pytest.approx(scaled_warmup_steps(30, **one), rel=1e-12)


@pytest.mark.parametrize("beta2", [-0.1, 1.0, float("nan")])
def test_a_beta2_that_is_none_is_refused(beta2: float) -> None:
    with pytest.raises(ValueError, match="beta2"):
        scaled_beta2(beta2, base_batch_size=1, global_batch_size=2)


@pytest.mark.parametrize("rule", ["none", "sqrt", "linear", "power(0.7)", "surge(31)"])
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
    "rule",
    [
        "Linear",
        "power",
        "power()",
        "power(x)",
        "power(1e3)",
        "",
        "sqrt\n",
        "surge",
        "surge(0)",
        "surge(0.0)",
        "surge(-3)",
    ],
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
