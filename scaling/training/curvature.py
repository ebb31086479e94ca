"""Sharpness and curvature of the training loss at a trial's weights, shared among its workers."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from scaling.measures.sharpness import LossSurface, sharpness, top_eigenvalue
from scaling.spec.evaluation import Sharpness
from scaling.tasks.batch import on_device
from scaling.tasks.target_loss import in_one_piece
from scaling.tasks.task import Indices, Task
from scaling.training.evaluation import matmul_precision
from scaling.training.parallel.workers import Workers

START_SEED = 0


@dataclass(frozen=True)
class Curvature:
    """See `scaling.records.Measurement`."""

    sharpness: float
    hessian_top_eigenvalue: float


def measure_curvature(
    task: Task, model: nn.Module, spec: Sharpness, workers: Workers, *, micro_batch_size: int
) -> Curvature:
    """Both measures at the model's present weights, the same on all workers.

    Evaluation mode, in the weights' own precision: a rise of the loss within the box is finer
    than bf16 and tf32 resolve.

    Args:
        task: Its first `spec.num_examples` training examples are used.
        model: Not wrapped for data parallelism.
        spec: On how much, and how far from the weights.
        workers: All of them call this.
        micro_batch_size: Examples a forward.
    """
    if task.num_train is None:
        raise ValueError("sharpness is of a train set, and this task draws every example afresh")
    indices = np.arange(min(spec.num_examples, task.num_train))
    own = indices[workers.part(len(indices))]
    parts = [own[i : i + micro_batch_size] for i in range(0, len(own), micro_batch_size)]

    def loss_of(part: Indices) -> Tensor:
        batch = in_one_piece(task.collate(part, START_SEED))
        return task.loss_sum(model, on_device(batch, workers.device))

    model.eval()
    if not task.targets_known_ahead:
        with torch.no_grad():
            for part in parts:
                loss_of(part)
    [num_targets] = workers.sum(float(sum(map(task.num_targets, parts))))

    surface = LossSurface(
        [p for p in model.parameters() if p.requires_grad],
        [lambda part=part: loss_of(part) for part in parts],
        int(num_targets),
        workers.sum_tensor,
    )
    weights = surface.weights()
    generator = torch.Generator().manual_seed(START_SEED)
    start = torch.randn(len(weights), generator=generator).to(weights)
    with matmul_precision("fp32"):
        found = Curvature(
            sharpness(surface.loss_and_gradient, weights, epsilon=spec.epsilon),
            top_eigenvalue(surface.hessian_product, start),
        )
    model.train()
    return found
