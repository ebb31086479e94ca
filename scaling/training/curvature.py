"""Sharpness and curvature of the training loss at a trial's weights, shared among its workers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from scaling.files.shown_error import first_line
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
NEARBY = 0.01  # of a weight's size plus one, at which gradients are compared
ROUNDING = 1e-3  # difference of two gradients over their size


@dataclass(frozen=True)
class Curvature:
    """See `scaling.records.Measurement`; NaN where one cannot be had."""

    sharpness: float
    hessian_top_eigenvalue: float


def measure_curvature(
    task: Task, model: nn.Module, spec: Sharpness, workers: Workers, *, micro_batch_size: int
) -> tuple[Curvature, str | None]:
    """Both measures at the model's present weights, the same on all workers.

    Evaluation mode, in the weights' own precision: a rise of the loss within the box is finer
    than bf16 and tf32 resolve.

    Args:
        task: Its first `spec.num_examples` training examples are used.
        model: Not wrapped for data parallelism.
        spec: On how much, and how far from the weights.
        workers: All of them call this.
        micro_batch_size: Examples a forward.

    Returns:
        The measures, and why the eigenvalue is NaN where the loss has no second derivative that
        can be computed.
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
        size, cause = _that_fits(micro_batch_size, try_hessian, workers)
        surface = surface_of(_parts(own, size), workers.sum_tensor)
        weights = surface.weights()
        generator = torch.Generator().manual_seed(START_SEED)
        start = torch.randn(len(weights), generator=generator).to(weights)
        found = sharpness(surface.loss_and_gradient, weights, epsilon=spec.epsilon)
        top = top_eigenvalue(surface.hessian_product, start) if cause is None else math.nan
        if cause is None and not math.isfinite(top):
            cause = "a product with the Hessian is not finite"
        if top == 0 and _bends(surface, weights, start):
            top, cause = math.nan, "the gradient's derivative is 0 where the gradient changes"
    model.train()
    return Curvature(found, top), cause


def _bends(surface: LossSurface, weights: Tensor, direction: Tensor) -> bool:
    """Whether the gradient changes nearby by more than rounding.

    A backward pass of the user's own may hide its derivative, which then comes out as 0.
    """
    nearby = weights + NEARBY * (weights.abs() + 1) * direction.sign()
    here, there = (surface.loss_and_gradient(at)[1] for at in (weights, nearby))
    return bool((there - here).norm() > ROUNDING * torch.maximum(here.norm(), there.norm()))


def _parts(own: Indices, size: int) -> list[Indices]:
    return [own[i : i + size] for i in range(0, len(own), size)]


def _that_fits(
    size: int, attempt: Callable[[int], None], workers: Workers
) -> tuple[int, str | None]:
    """The largest of a size and its halves that no worker runs out of memory with; 1 at least.

    A Hessian takes several times what training takes of an example: all logits, all activations
    and every layer's attention are kept, in float32.

    Returns:
        The size, and why an attempt failed on a worker, if one did by another error.
    """
    while True:
        ran_out, failure = False, None
        try:
            attempt(size)
        except Exception as error:  # noqa: BLE001  # of the user's own backward pass, or torch's
            ran_out = is_out_of_memory(error)
            failure = None if ran_out else first_line(error)
        found = workers.gather([ran_out, failure])
        cause = next((failure for _, failure in found if failure is not None), None)
        if size == 1 or cause is not None or not any(ran_out for ran_out, _ in found):
            return size, cause
        release_memory(workers.device)
        size //= 2
