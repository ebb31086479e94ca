"""The gradient of a global batch does not depend on how it is split (case 5)."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training.build import parallelize
from scaling.training.clipping import clip_global_norm
from scaling.training.gradient import GradientOfBatch
from scaling.training.memory.footprint import _Live, _storage
from scaling.training.parallel.base import MAX_IN_FLOAT64, LocalNorm
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION, part_of_speech, pronunciation, recipe
from tests.together import on_workers

SPLITS = [
    (workers, micro) for workers in (1, 2) for micro in (1, 2, 4, 8, 16) if workers * micro <= 16
]


def gradient_of(
    task: Task, workers: Workers, micro_batch_size: int, *, measure_noise: bool = False
) -> Tensor:
    """The gradient of 16 examples in float64, as one vector."""
    model = task.new_model(0).double()
    split = recipe(16, 1e-3, 1, world_size=workers.world_size, micro_batch_size=micro_batch_size)
    gradient = GradientOfBatch(task, parallelize(model, split, workers), split)
    result = gradient(np.arange(16), measure_noise=measure_noise)
    assert result.num_targets == task.num_targets(np.arange(16))
    if measure_noise:
        assert result.noise is not None
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    vector = torch.cat(grads)
    assert result.grad_norm == pytest.approx(float(vector.norm()), rel=1e-6)
    return vector


def measured_step(task: Task, monkeypatch: pytest.MonkeyPatch, *, apart: bool) -> Tensor:
    """The gradient of a step that measures noise in groups of four, and their norms."""
    model, split = task.new_model(0), recipe(16, 1e-3, 1, micro_batch_size=4)
    gradient = GradientOfBatch(task, parallelize(model, split, Workers()), split)
    if apart:
        monkeypatch.setattr(gradient, "_added_up", gradient._apart)
    noise = gradient(np.arange(16), measure_noise=True).noise
    assert noise is not None
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    numbers = torch.tensor([noise.sq_norm, noise.covariance_trace], dtype=torch.float64)
    return torch.cat([*grads, numbers])


def test_groups_are_measured_on_their_way_as_they_are_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = prepare_task(part_of_speech(), EVALUATION)
    found = [measured_step(task, monkeypatch, apart=apart) for apart in (False, True)]
    assert torch.equal(*found)


def test_measuring_keeps_no_second_gradient() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    peaks: list[int] = []
    for measures in (False, True):
        model, split = task.new_model(0), recipe(2, 1e-3, 1, micro_batch_size=1)
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        gradient = GradientOfBatch(task, parallelize(model, split, Workers()), split)
        gradient(np.arange(2), measure_noise=True)  # what is made once is there
        for parameter in model.parameters():
            parameter.grad = None
        owned = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
        with _Live(owned) as live:
            gradient(np.arange(2), measure_noise=measures)
        peaks.append(live.peak)
    plain, measured = peaks
    assert plain > weights
    assert measured < plain + weights / 2


def on_two_workers(workers: Workers, workload: Any) -> dict[tuple[int, bool], Tensor]:
    """The gradient by micro-batch size and whether the noise scale is measured."""
    task = prepare_task(workload, EVALUATION)
    return {
        (micro, noise): gradient_of(task, workers, micro, measure_noise=noise)
        for world, micro in SPLITS
        if world == 2
        for noise in (False, True)
    }


@pytest.mark.parametrize("workload", [pronunciation(), part_of_speech()], ids=lambda w: w.task)
def test_every_split_of_sixteen_examples_gives_the_same_gradient(workload: Any) -> None:
    task = prepare_task(workload, EVALUATION)
    whole = gradient_of(task, Workers(), 16)
    vectors = on_workers(on_two_workers, workload)
    for world, micro in SPLITS:
        for noise in (False, True):
            vector = (
                vectors[micro, noise]
                if world == 2
                else gradient_of(task, Workers(), micro, measure_noise=noise)
            )
            error = float((vector - whole).norm() / whole.norm())
            assert error < 1e-12, f"{world} workers × {micro}, noise {noise}: {error:.1e}"


class _Square(nn.Module):
    """Loss ½ (w − y)² from w = 0."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, y: Tensor) -> Tensor:
        return 0.5 * (self.w - y).square().sum()


class _SquareTask:
    """Three examples y = 1 and one y = 5; a gradient of −2 (a mean of means has −3)."""

    num_train, targets_known_ahead, draws_examples = 4, True, False
    y = torch.tensor([1.0, 1.0, 1.0, 5.0], dtype=torch.float64)

    def begin_batch(self) -> None:
        pass

    def num_targets(self, indices: Any) -> int:
        return len(indices)

    def lengths(self, indices: Any) -> Any:
        return np.ones_like(indices)

    def collate(self, indices: Any, seed: int) -> dict[str, Tensor]:
        return {"y": self.y[torch.as_tensor(indices)]}

    def loss_sum(self, model: nn.Module, batch: Any, *, label_smoothing: float = 0.0) -> Tensor:
        return model(batch["y"])


def test_uneven_parts_are_not_a_mean_of_means() -> None:
    model = _Square()
    task: Any = _SquareTask()
    split = recipe(4, 1.0, 1, micro_batch_size=3)
    gradient = GradientOfBatch(task, parallelize(model, split, Workers()), split)
    gradient(np.arange(4), measure_noise=False)
    assert float(model.w.grad) == pytest.approx(-2.0, abs=1e-15)  # type: ignore[arg-type]


class _TwoGradients(nn.Module):
    """Loss w · g, whose gradient is g."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, g: Tensor) -> Tensor:
        return (self.w * g).sum()


class _TwoGradientsTask(_SquareTask):
    """Two examples whose mean gradient is (3, 4); parts clipped alone would give (.5, .5)."""

    num_train = 2
    y = torch.tensor([[6.0, 0.0], [0.0, 8.0]], dtype=torch.float64)


def test_clipping_acts_on_the_global_gradient() -> None:
    model = _TwoGradients()
    task: Any = _TwoGradientsTask()
    split = recipe(2, 1.0, 1, micro_batch_size=1)
    gradient = GradientOfBatch(task, parallelize(model, split, Workers()), split)
    norm = gradient(np.arange(2), measure_noise=False).grad_norm
    assert norm == pytest.approx(5.0)
    assert not clip_global_norm(gradient.parameters, grad_norm=norm, clip_norm=None)
    assert not clip_global_norm(gradient.parameters, grad_norm=norm, clip_norm=5.1)
    assert clip_global_norm(gradient.parameters, grad_norm=norm, clip_norm=1.0)
    assert model.w.grad is not None
    assert model.w.grad.tolist() == pytest.approx([0.6, 0.8], abs=1e-6)


class _OneOfTwo(nn.Module):
    """Loss w · g by one of two weights, as layers that are chosen by their input."""

    def __init__(self) -> None:
        super().__init__()
        both = [nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2)]
        self.first, self.second = both

    def forward(self, g: Tensor) -> Tensor:
        weight = self.first if bool((g[:, 1] == 0).all()) else self.second
        return (weight * g).sum()


def test_groups_that_use_other_weights_are_added_up_by_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = _OneOfTwo()
    task: Any = _TwoGradientsTask()
    split = recipe(2, 1.0, 1, micro_batch_size=1)
    gradient = GradientOfBatch(task, parallelize(model, split, Workers()), split)
    monkeypatch.setattr(gradient, "_added_up", gradient._apart)
    gradient(np.arange(2), measure_noise=True)
    found = [None if p.grad is None else p.grad.tolist() for p in (model.first, model.second)]
    assert found == [[3.0, 0.0], [0.0, 4.0]]


def test_a_workers_own_norm_is_summed_in_float64_a_piece_at_a_time() -> None:
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            made = func(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
                self.numel = max(self.numel, made.numel())
            return made

    gradients = [torch.full((3, MAX_IN_FLOAT64 // 2), 1e-3), torch.ones(5)]
    norm = LocalNorm()
    norm.start()
    with Largest() as largest:
        norm.add(gradients)
    exact = sum(float(gradient.double().square().sum()) for gradient in gradients)
    assert norm.stop() == pytest.approx(exact, rel=1e-13)
    assert largest.numel == MAX_IN_FLOAT64
