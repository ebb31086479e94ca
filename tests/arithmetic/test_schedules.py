"""Schedules against case 7's hand table, and the rate of every single step."""

import math

import pytest

from scaling.arithmetic.schedules import Schedule

ALL = ["constant", "linear", "cosine", "inverse_sqrt", "wsd"]


@pytest.mark.parametrize(
    ("schedule", "position", "value"),
    [
        ("linear", 0, 0.0),
        ("linear", 5, 0.5),
        ("linear", 10, 1.0),
        ("linear", 55, 0.5),
        ("linear", 99, 0.01111),
        ("linear", 100, 0.0),
        ("linear", 120, 0.0),
        ("linear", 2.5, 0.25),
        ("cosine", 5, 0.5),
        ("cosine", 10, 1.0),
        ("cosine", 32, 0.85967),
        ("cosine", 55, 0.5),
        ("cosine", 100, 0.0),
        ("constant", 5, 0.5),
        ("constant", 10, 1.0),
        ("constant", 99, 1.0),
        ("constant", 1e6, 1.0),
        ("inverse_sqrt", 5, 0.5),
        ("inverse_sqrt", 10, 1.0),
        ("inverse_sqrt", 40, 0.5),
        ("inverse_sqrt", 1000, 0.1),
        ("wsd", 5, 0.5),
        ("wsd", 10, 1.0),
        ("wsd", 80, 1.0),
        ("wsd", 85, 0.75),
        ("wsd", 90, 0.5),
        ("wsd", 99, 0.05),
        ("wsd", 100, 0.0),
    ],
)
def test_hand_table(schedule: str, position: float, value: float) -> None:
    found = Schedule(schedule, warmup_steps=10, num_steps=100).value(position)
    assert found == pytest.approx(value, abs=5e-6)


@pytest.mark.parametrize(
    ("schedule", "position", "value"),
    [("linear", 55, 0.55), ("linear", 100, 0.1), ("cosine", 55, 0.55), ("linear", 5, 0.5)],
)
def test_decay_ends_at_min_lr_ratio(schedule: str, position: float, value: float) -> None:
    found = Schedule(schedule, warmup_steps=10, num_steps=100, min_lr_ratio=0.1).value(position)
    assert found == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "position", "value"),
    [
        ("linear", 60, 1.0),
        ("linear", 70, 0.75 + 0.25 * 0.1),
        ("cosine", 70, 0.1 + 0.9 * 0.5 * (1 + math.sqrt(0.5))),
        ("cosine", 80, 0.55),
        ("one_minus_sqrt", 70, 0.55),
        ("one_minus_sqrt", 100, 0.1),
        ("one_minus_sqrt", 200, 0.1),
    ],
)
def test_wsd_decays_in_its_last_share(shape: str, position: float, value: float) -> None:
    found = Schedule(
        "wsd", warmup_steps=10, num_steps=100, min_lr_ratio=0.1, decay_ratio=0.4, decay_shape=shape
    ).value(position)
    assert found == pytest.approx(value, rel=1e-12)


def test_warmup_wins_where_it_overlaps_the_decay_of_wsd() -> None:
    values = [
        Schedule("wsd", warmup_steps=80, num_steps=100, decay_ratio=0.5).value(p)
        for p in (40, 80, 90, 100)
    ]
    assert values == pytest.approx([0.5, 1.0, 0.5, 0.0])


def test_inverse_sqrt_without_warmup_starts_at_its_peak() -> None:
    values = [
        Schedule("inverse_sqrt", warmup_steps=0, num_steps=None).value(p) for p in (0, 1, 4, 100)
    ]
    assert values == pytest.approx([1.0, 1.0, 0.5, 0.1])


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.1, math.nan])
def test_a_decay_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="decay_ratio"):
        Schedule("wsd", warmup_steps=0, num_steps=9, decay_ratio=ratio).value(1)


def test_unknown_decay_shape() -> None:
    with pytest.raises(ValueError, match="'sqrt'; known: linear, cosine, one_minus_sqrt"):
        Schedule("wsd", warmup_steps=0, num_steps=9, decay_shape="sqrt").value(9)


def test_constant_needs_no_horizon() -> None:
    assert Schedule("constant", warmup_steps=14, num_steps=None).value(7) == 0.5


@pytest.mark.parametrize("schedule", ["linear", "cosine", "wsd"])
def test_decay_needs_the_horizon(schedule: str) -> None:
    with pytest.raises(ValueError, match=f"{schedule} schedule needs num_steps"):
        Schedule(schedule, warmup_steps=0, num_steps=None).value(7)


def test_unknown_schedule() -> None:
    with pytest.raises(
        ValueError, match="'step'; known: constant, linear, cosine, inverse_sqrt, wsd"
    ):
        Schedule("step", warmup_steps=10, num_steps=100).value(0)


@pytest.mark.parametrize(("position", "warmup"), [(-1, 0), (0, -1), (math.nan, 0)])
def test_negative_positions_are_refused(position: float, warmup: int) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        Schedule("constant", warmup_steps=warmup, num_steps=10).value(position)


@pytest.mark.parametrize(
    ("schedule", "step", "rate"),
    [
        ("linear", 0, 0.02),
        ("linear", 4, 0.1),
        ("linear", 9, 0.2),
        ("linear", 10, 0.2),
        ("linear", 55, 0.1),
        ("linear", 99, 0.2 / 90),
        ("constant", 99, 0.2),
        ("inverse_sqrt", 9, 0.2),
        ("inverse_sqrt", 40, 0.1),
        ("wsd", 80, 0.2),
        ("wsd", 99, 0.01),
        ("cosine", 32, 0.2 * 0.8596699),
    ],
)
def test_rate_of_a_step(schedule: str, step: int, rate: float) -> None:
    found = 0.2 * Schedule(schedule, warmup_steps=10, num_steps=100).of_step(step)
    assert found == pytest.approx(rate, rel=1e-6)


@pytest.mark.parametrize("schedule", ALL)
@pytest.mark.parametrize(
    ("warmup_steps", "num_steps"), [(0, 1), (0, 30), (1, 30), (7, 30), (30, 30), (40, 30)]
)
def test_every_step_has_a_rate_that_rises_then_falls(
    schedule: str, warmup_steps: int, num_steps: int
) -> None:
    rates = [
        Schedule(schedule, warmup_steps=warmup_steps, num_steps=num_steps).of_step(step)
        for step in range(num_steps)
    ]
    assert min(rates) > 0
    assert max(rates) == pytest.approx(min(1.0, num_steps / max(warmup_steps, 1)))
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_negative_step_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        Schedule("constant", warmup_steps=10, num_steps=100).of_step(-1)
