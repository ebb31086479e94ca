"""Known answers of sharpness (case 8) and of the largest eigenvalue."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from scaling.measures.sharpness import LossSurface, sharpness, top_eigenvalue
from scaling.spec.evaluation import Sharpness
from scaling.tasks.prepare import prepare_task
from scaling.training.curvature import Curvature, measure_curvature
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION, part_of_speech, pronunciation
from tests.together import on_workers


def with_gradient(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[float, Tensor]]:
    """f and its gradient."""

    def both(x: Tensor) -> tuple[float, Tensor]:
        x = x.detach().requires_grad_()
        value = f(x)
        return float(value.detach()), torch.autograd.grad(value, x)[0]

    return both


def test_a_bowl_at_its_minimum() -> None:
    # ½ Σ i x² on |x| ≤ 1e-3: 55 / 2 · 1e-6, in percent of 1 + 0.
    i = torch.arange(1, 11, dtype=torch.float64)
    f = with_gradient(lambda x: 0.5 * (i * x.square()).sum())
    zero = torch.zeros(10, dtype=torch.float64)
    assert sharpness(f, zero, epsilon=1e-3) == pytest.approx(0.00275, rel=1e-6)


def test_a_slope() -> None:
    # 1.5 x² at 2 in a box of 0.003: 100 (1.5 · 2.003² − 6) / 7.
    f = with_gradient(lambda x: 1.5 * x.square().sum())
    x = torch.tensor([2.0], dtype=torch.float64)
    assert sharpness(f, x, epsilon=1e-3) == pytest.approx(0.257336, rel=1e-5)


def test_a_maximum_inside_the_box() -> None:
    # 1 − Σ c (x − 0.3)² with ε = 1: from 1 − 0.09 Σ c = 0.0 up to 1.
    c = torch.tensor([1.0, 10.0, 1 / 9], dtype=torch.float64)
    f = with_gradient(lambda x: 1 - (c * (x - 0.3).square()).sum())
    zero = torch.zeros(3, dtype=torch.float64)
    expected = 100 * 0.09 * float(c.sum()) / (2 - 0.09 * float(c.sum()))
    assert sharpness(f, zero, epsilon=1.0, num_iterations=60) == pytest.approx(expected, rel=1e-4)


def test_directions_that_hang_together() -> None:
    # A convex quadratic is largest at a corner; all 64 are tried.
    rng = np.random.default_rng(0)
    half = torch.from_numpy(rng.standard_normal((6, 6)))
    matrix, slope = half @ half.T, torch.from_numpy(rng.standard_normal(6))
    f = with_gradient(lambda x: 0.5 * x @ matrix @ x + slope @ x)
    corners = [
        torch.tensor(c, dtype=torch.float64) * 0.1 for c in itertools.product((-1, 1), repeat=6)
    ]
    highest = max(f(corner)[0] for corner in corners)
    zero = torch.zeros(6, dtype=torch.float64)
    assert sharpness(f, zero, epsilon=0.1, num_starts=8) == pytest.approx(100 * highest)


def test_top_eigenvalue_is_the_largest_and_not_the_largest_in_size() -> None:
    rng = np.random.default_rng(1)
    rotation = torch.from_numpy(np.linalg.qr(rng.standard_normal((50, 50)))[0])
    values = torch.linspace(-9.0, 4.0, 50, dtype=torch.float64)
    values[-1] = 7.0
    matrix = rotation @ torch.diag(values) @ rotation.T
    start = torch.from_numpy(rng.standard_normal(50))
    assert top_eigenvalue(lambda v: matrix @ v, start) == pytest.approx(7.0, rel=1e-3)
    alone = torch.tensor([[3.0]], dtype=torch.float64)
    assert top_eigenvalue(lambda v: alone @ v, torch.ones(1, dtype=torch.float64)) == 3.0


def test_hessian_of_several_parts_is_that_of_their_mean() -> None:
    w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    parts = [lambda: w[0] ** 2 * w[1], lambda: 3 * w[1] ** 2]
    surface = LossSurface([w], parts, 2, lambda total: total)
    loss, gradient = surface.loss_and_gradient(torch.tensor([2.0, 3.0], dtype=torch.float64))
    assert (loss, gradient.tolist()) == (19.5, [6.0, 11.0])
    assert w.tolist() == [1.0, 2.0]
    # Hessian (2 w1, 2 w0; 2 w0, 6) / 2 at (1, 2).
    product = surface.hessian_product(torch.tensor([1.0, 1.0], dtype=torch.float64))
    assert product.tolist() == [3.0, 4.0]


SPEC = Sharpness(num_examples=24)


def on_two_workers(workers: Workers, workload: Any) -> list[float]:
    task = prepare_task(workload, EVALUATION)
    model = task.new_model(0)
    found = measure_curvature(task, model, SPEC, workers, micro_batch_size=8)
    return [found.sharpness, found.hessian_top_eigenvalue]


@pytest.mark.slow
@pytest.mark.parametrize("workload", [pronunciation(), part_of_speech()], ids=lambda w: w.task)
def test_two_workers_measure_what_one_does(workload: Any) -> None:
    task = prepare_task(workload, EVALUATION)
    model = task.new_model(0)
    before = [p.detach().clone() for p in model.parameters()]
    alone = measure_curvature(task, model, SPEC, Workers(), micro_batch_size=24)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert model.training
    assert alone.sharpness > 0
    together = Curvature(*on_workers(on_two_workers, workload))
    assert together.sharpness == pytest.approx(alone.sharpness, rel=1e-2)
    assert together.hessian_top_eigenvalue == pytest.approx(alone.hessian_top_eigenvalue, rel=1e-2)


def test_it_says_nothing_of_a_loss_below_zero() -> None:
    weights = torch.zeros(1)
    assert math.isnan(sharpness(lambda x: (-2 + float(x @ x), 2 * x), weights, epsilon=0.1))
