"""Clipping by hand: what is cut, what counts as clipped, and what a continued run remembers."""

from typing import Any

import pytest
import torch
from torch import nn

from scaling.tasks.prepare import prepare_task
from scaling.training.clipping import Clipping
from tests.recipes import EVALUATION, pronunciation, recipe
from tests.training.test_loop import run


def clip(clipping: Clipping, first: list[float], second: list[float]) -> tuple[bool, list[float]]:
    """Clip the gradient of two weights' tensors; what is left of it."""
    weights = [nn.Parameter(torch.zeros(len(part))) for part in (first, second)]
    for weight, gradient in zip(weights, (first, second), strict=True):
        weight.grad = torch.tensor(gradient)
    norm = float(torch.tensor(first + second).norm())
    clipped = clipping(weights, grad_norm=norm)
    return clipped, [value for w in weights if w.grad is not None for value in w.grad.tolist()]


def how(**changes: Any) -> Clipping:
    return Clipping(recipe(1, 0.1, 1, **changes).hyperparameters)


@pytest.mark.parametrize(
    ("changes", "clipped", "left"),
    [
        ({}, False, [3.0, -4.0]),
        ({"clip_norm": 1.0}, True, [0.6, -0.8]),
        ({"clip_norm": 5.0}, False, [3.0, -4.0]),
        ({"clip_value": 3.5}, True, [3.0, -3.5]),
        ({"clip_value": 1.0}, True, [1.0, -1.0]),
        ({"clip_value": 4.0}, False, [3.0, -4.0]),
    ],
)
def test_by_hand(changes: dict[str, Any], clipped: bool, left: list[float]) -> None:
    found = clip(how(**changes), [3.0], [-4.0])
    assert found[0] == clipped
    assert found[1] == pytest.approx(left, abs=1e-5)


def test_percentile_of_the_norms_so_far() -> None:
    # Norms 1, 3, 2, 10, then the median: of 1 → 1; 1, 3 → 2; 1, 2, 3 → 2; 1, 2, 3, 10 → 2.5.
    clipping = how(clip_percentile=50.0)
    found = [clip(clipping, [norm], [0.0]) for norm in (1.0, 3.0, 2.0, 10.0)]
    assert [clipped for clipped, _ in found] == [False, True, False, True]
    assert [left[0] for _, left in found] == pytest.approx([1.0, 2.0, 2.0, 2.5], abs=1e-5)


def test_only_the_last_steps_are_remembered() -> None:
    clipping = how(clip_percentile=50.0, clip_history_steps=2)
    for norm in (100.0, 100.0, 1.0):
        clip(clipping, [norm], [0.0])
    assert clip(clipping, [3.0], [0.0])[1][0] == pytest.approx(2.0, abs=1e-5)
    again = how(clip_percentile=50.0, clip_history_steps=2)
    again.restore(clipping.state())
    assert again.state() == [1.0, 3.0]


def test_a_gradient_of_zero_is_left_alone() -> None:
    assert clip(how(clip_percentile=10.0), [0.0], [0.0]) == (False, [0.0, 0.0])


def test_a_gradient_in_float64_is_clipped_in_float64() -> None:
    weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    weight.grad = torch.tensor([3e60, -4e60], dtype=torch.float64)
    assert how(clip_norm=1.0)([weight], grad_norm=5e60)
    assert weight.grad.tolist() == pytest.approx([0.6, -0.8])


@pytest.mark.parametrize(
    ("changes", "low", "high"),
    [({"clip_value": 1e-4}, 1.0, 1.0), ({"clip_percentile": 50.0}, 0.2, 0.8), ({}, 0.0, 0.0)],
)
def test_clipped_fraction_of_a_run(changes: dict[str, Any], low: float, high: float) -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    _, measurements = run(task, recipe(8, 3e-3, 10, **changes))
    fractions = [m.clipped_fraction for m in measurements if m.clipped_fraction is not None]
    assert low <= sum(fractions) / len(fractions) <= high
