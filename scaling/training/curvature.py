"""Sharpness and curvature of the training loss at a trial's weights, shared among its workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from scaling.measures.sharpness import LossSurface, sharpness, top_eigenvalue
from scaling.optimizers.tensors import trained_weights
from scaling.spec.evaluation import Sharpness
from scaling.tasks.batch import on_device
from scaling.tasks.target_loss import in_one_piece
from scaling.tasks.task import Indices, Task
from scaling.training.evaluation import matmul_precision
from scaling.training.memory.out_of_memory import is_out_of_memory
from scaling.training.parallel.workers import Workers, release_memory

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

    def loss_of(part: Indices) -> Tensor:
        batch = in_one_piece(task.collate(part, START_SEED))
        return task.loss_sum(model, on_device(batch, workers.device))

    model.eval()
    if not task.targets_known_ahead:
        with torch.no_grad():
            for part in _parts(own, micro_batch_size):
                loss_of(part)
    [num_targets] = workers.sum(float(sum(map(task.num_targets, _parts(own, micro_batch_size)))))
    parameters = trained_weights(model)

    def surface_of(parts: Sequence[Indices], add: Callable[[Tensor], Tensor]) -> LossSurface:
        losses = [lambda part=part: loss_of(part) for part in parts]
        return LossSurface(parameters, losses, int(num_targets), add)

    def try_hessian(size: int) -> None:
        if not len(own):
            return
        longest = max(_parts(own, size), key=lambda part: int(task.lengths(part).max()))
        alone = surface_of([longest], lambda total: total)
        alone.hessian_product(torch.zeros_like(alone.weights()))

    with matmul_precision("fp32"):
        size = _that_fits(micro_batch_size, try_hessian, workers)
        surface = surface_of(_parts(own, size), workers.sum_tensor)
        weights = surface.weights()
        generator = torch.Generator().manual_seed(START_SEED)
        start = torch.randn(len(weights), generator=generator).to(weights)
        found = Curvature(
            sharpness(surface.loss_and_gradient, weights, epsilon=spec.epsilon),
            top_eigenvalue(surface.hessian_product, start),
        )
    model.train()
    return found


def _parts(own: Indices, size: int) -> list[Indices]:
    return [own[i : i + size] for i in range(0, len(own), size)]


def _that_fits(size: int, attempt: Callable[[int], None], workers: Workers) -> int:
    """The largest of a size and its halves that no worker runs out of memory with; 1 at least.

    A Hessian takes several times what training takes of an example: all logits, all activations
    and every layer's attention are kept, in float32.
    """
    while size > 1:
        ran_out = False
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            ran_out = True
        [num_out] = workers.sum(float(ran_out))
        if not num_out:
            break
        release_memory(workers.device)
        size //= 2
    return size
