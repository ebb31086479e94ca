"""The noise scale of a frozen model does not depend on how the batches are split.

It is compared with the exact value, from the gradients of all training examples one by one.
"""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scaling.analysis.statistics.uncertainty import t_quantile
from scaling.measures.noise_scale import RunningNoise
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training.build import parallelize
from scaling.training.data_order import DataOrder
from scaling.training.gradient import GradientOfBatch
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION, part_of_speech, pronunciation, recipe
from tests.together import on_workers

BATCH = 16
NUM_TRAIN = 96
NUM_STEPS = 60
WORKLOADS = [pronunciation(NUM_TRAIN), part_of_speech(NUM_TRAIN)]
SPLITS = [(world_size, accumulation) for world_size in (1, 2) for accumulation in (1, 2, 4)]


def frozen(task: Task) -> nn.Module:
    """A model that has learned a little, in float64: the same in every process."""
    model = task.new_model(0).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(10):
        indices = DataOrder(3, task.num_train).indices(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        task.loss_sum(model, task.collate(indices, 0)).backward()
        optimizer.step()
    return model


@dataclass(frozen=True)
class Estimated:
    """What one split gave; `proxy` is the noise scale of the normalization layers."""

    noise_scale: float
    stderr: float
    proxy: float


def estimated(task: Task, model: nn.Module, workers: Workers, accumulation: int) -> Estimated:
    """From the plain mean over `NUM_STEPS` batches, none across two epochs."""
    micro = BATCH // workers.world_size // accumulation
    split = recipe(BATCH, 1e-3, 1, world_size=workers.world_size, micro_batch_size=micro)
    gradient = GradientOfBatch(task, parallelize(model, split, workers), split)
    order = DataOrder(11, task.num_train)
    running = RunningNoise(half_life=1e9)
    proxy = RunningNoise(half_life=1e9)
    for step in range(NUM_STEPS):
        model.zero_grad()
        indices = order.indices(step * BATCH, (step + 1) * BATCH)
        result = gradient(indices, measure_noise=True)
        assert result.noise is not None
        assert result.norm_layer_noise is not None
        running.add(result.noise)
        proxy.add(result.norm_layer_noise)
    mean, proxy_mean = running.mean, proxy.mean
    assert mean is not None
    assert mean.noise_scale is not None
    assert mean.stderr is not None
    assert proxy_mean is not None
    assert proxy_mean.noise_scale is not None
    return Estimated(mean.noise_scale, mean.stderr, proxy_mean.noise_scale)


def on_two_workers(workers: Workers, workload: Any) -> list[tuple[float, ...]]:
    """Every accumulation over two workers."""
    task = prepare_task(workload, EVALUATION)
    model = frozen(task)
    return [astuple(estimated(task, model, workers, k)) for world, k in SPLITS if world == 2]


def exact(task: Task, model: nn.Module) -> tuple[float, float]:
    """|G|² and tr Σ of the train set.

    A batch's gradient is Σ g_i / Σ n_i with n_i the targets of an example; to first order it
    differs from G by the mean of (g_i − n_i G) / mean n.
    """
    assert task.num_train is not None
    gradients, targets = [], []
    for number in range(task.num_train):
        model.zero_grad()
        indices = np.array([number])
        task.loss_sum(model, task.collate(indices, 0)).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))  # type: ignore[union-attr]
        targets.append(task.num_targets(indices))
    g = torch.stack(gradients)
    n = torch.tensor(targets, dtype=torch.float64)[:, None]
    whole = g.sum(0) / n.sum()
    residuals = (g - n * whole) / n.mean()
    return float(whole @ whole), float(residuals.square().sum() / (task.num_train - 1))


@pytest.mark.slow
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.task)
def test_every_split_agrees_with_all_per_example_gradients(workload: Any) -> None:
    task = prepare_task(workload, EVALUATION)
    on_two = on_workers(on_two_workers, workload)
    model = frozen(task)
    sq_norm, trace = exact(task, model)
    estimates = [estimated(task, model, Workers(), k) for world, k in SPLITS if world == 1]
    estimates += [Estimated(*values) for values in on_two]
    half = t_quantile(NUM_STEPS - 1)
    for split, estimate in zip(SPLITS, estimates, strict=True):
        message = f"{split}: {estimate}, exact {trace / sq_norm:.2f}"
        assert abs(estimate.noise_scale - trace / sq_norm) < half * estimate.stderr, message
        assert estimate.stderr < 0.3 * trace / sq_norm, message
        assert estimate.proxy == pytest.approx(estimates[0].proxy, rel=1e-4), message
