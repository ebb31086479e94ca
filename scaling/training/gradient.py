"""One global batch's gradient, however the batch is split, and the norms of its parts."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from scaling.measures.noise_scale import NoiseEstimate, estimate_noise
from scaling.records import Recipe
from scaling.tasks.task import Batch, Task
from scaling.training.evaluation import precision_context
from scaling.training.parallel import LocalNorm, Workers

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class StepGradient:
    """What one forward and backward pass over a global batch leaves beside the gradients.

    Attributes:
        loss_sum: Of this worker's part, nats; divided by `num_targets` and summed over the
            workers it is the step's loss.
        num_targets: Targets in the global batch.
        noise: This step's noise-scale estimate, where it was asked for and can be had.
    """

    loss_sum: torch.Tensor
    num_targets: int
    grad_norm: float
    noise: NoiseEstimate | None


class GradientOfBatch:
    """Computes the mean gradient per target of a global batch into `.grad`.

    The loss is a sum over targets divided by their number in the whole global batch, so neither
    padding nor the split into workers × micro-batches changes it.

    Attributes:
        micro_batch_size: Examples a forward; may be made smaller between steps.
    """

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        wrapped: nn.Module,
        local_norm: LocalNorm | None,
        recipe: Recipe,
        workers: Workers,
    ) -> None:
        self.task = task
        self.model = model
        self.wrapped = wrapped
        self.local_norm = local_norm
        self.recipe = recipe
        self.micro_batch_size = recipe.micro_batch_size
        self.workers = workers
        self.parameters = [p for p in model.parameters() if p.requires_grad]

    def __call__(self, indices: Indices, *, measure_noise: bool) -> StepGradient:
        """Forward, loss and backward of every micro-batch of this worker.

        Args:
            indices: [global_batch_size] training examples, the same on all workers.
            measure_noise: Also estimate the noise scale from the parts' gradient norms: the
                workers', or with one worker its micro-batches' (a single one is cut in two).
        """
        num_targets = self.task.num_targets(indices)
        parts = self._own_parts(indices)
        if self.local_norm is not None:
            loss_sum, norms = self._synchronized(parts, num_targets, measure_noise)
        elif measure_noise and len(indices) > 1:
            if len(parts) == 1:
                half = len(indices) // 2
                parts = [indices[:half], indices[half:]]
            loss_sum, norms = self._part_by_part(parts, num_targets)
        else:
            loss_sum, norms = self._accumulate(parts, num_targets), []
        grad_norm = self._grad_norm()
        noise = self._noise(norms, num_targets, len(indices), grad_norm) if norms else None
        return StepGradient(loss_sum, num_targets, grad_norm, noise)

    def _own_parts(self, indices: Indices) -> list[Indices]:
        """This worker's micro-batches."""
        per_worker = len(indices) // self.workers.world_size
        own = indices[self.workers.rank * per_worker :][:per_worker]
        size = self.micro_batch_size
        return [own[i : i + size] for i in range(0, per_worker, size)]

    def _accumulate(self, parts: Sequence[Indices], num_targets: int) -> torch.Tensor:
        """Backward through every part; workers are synchronized in the last one alone."""
        total = torch.zeros((), device=self.workers.device)
        for number, part in enumerate(parts, start=1):
            with self._no_sync() if number < len(parts) else nullcontext():
                total += self._backward(part, num_targets)
        return total

    def _no_sync(self) -> AbstractContextManager[None]:
        if isinstance(self.wrapped, DistributedDataParallel):
            return self.wrapped.no_sync()
        return nullcontext()

    def _backward(self, part: Indices, num_targets: int) -> torch.Tensor:
        batch = _to(self.task.collate(part, self.recipe.seed), self.workers.device)
        with precision_context(self.recipe.precision, self.workers.device):
            loss_sum = self.task.loss_sum(
                self.wrapped, batch, label_smoothing=self.recipe.label_smoothing
            )
        # Workers' gradients are averaged; × world_size makes that a sum.
        (loss_sum * (self.workers.world_size / num_targets)).backward()
        return loss_sum.detach()

    def _synchronized(
        self, parts: Sequence[Indices], num_targets: int, measure_noise: bool
    ) -> tuple[torch.Tensor, list[tuple[float, int]]]:
        """Several workers; with `measure_noise`, each one's norm² and targets."""
        norm = self.local_norm
        if norm is None or not measure_noise:
            return self._accumulate(parts, num_targets), []
        norm.start()
        loss_sum = self._accumulate(parts, num_targets)
        own_targets = sum(self.task.num_targets(part) for part in parts)
        scale = num_targets / (self.workers.world_size * max(own_targets, 1))
        own = np.array([norm.stop() * scale**2, own_targets], dtype=np.float64)
        return loss_sum, [(float(n), int(t)) for n, t in self.workers.gather(own)]

    def _part_by_part(
        self, parts: Sequence[Indices], num_targets: int
    ) -> tuple[torch.Tensor, list[tuple[float, int]]]:
        """One worker; each part's own gradient is measured before it is added to the whole."""
        total = torch.zeros((), device=self.workers.device)
        whole: list[torch.Tensor] = []
        norms: list[tuple[float, int]] = []
        for part in parts:
            for parameter in self.parameters:
                parameter.grad = None
            total += self._backward(part, num_targets)
            own_targets = self.task.num_targets(part)
            scale = num_targets / max(own_targets, 1)
            norms.append(((self._grad_norm() * scale) ** 2, own_targets))
            own = self._gradients()
            if whole:
                for added, gradient in zip(whole, own, strict=True):
                    added.add_(gradient)
            else:
                whole = [gradient.clone() for gradient in own]
        trained = [parameter for parameter in self.parameters if parameter.grad is not None]
        for parameter, gradient in zip(trained, whole, strict=True):
            parameter.grad = gradient
        return total, norms

    def _gradients(self) -> list[torch.Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def _grad_norm(self) -> float:
        return float(nn.utils.get_total_norm(self._gradients()))

    def _noise(
        self,
        norms: Sequence[tuple[float, int]],
        num_targets: int,
        num_examples: int,
        grad_norm: float,
    ) -> NoiseEstimate | None:
        if len(norms) < 2 or any(targets == 0 for _, targets in norms):
            return None
        return estimate_noise(
            [sq_norm for sq_norm, _ in norms],
            [targets / num_targets * num_examples for _, targets in norms],
            grad_norm**2,
            num_train=self.task.num_train,
        )


def clip_global_norm(
    parameters: Sequence[nn.Parameter], *, grad_norm: float, clip_norm: float | None
) -> bool:
    """Scale the global gradient down to `clip_norm`; True when it was longer.

    Args:
        parameters: Their `.grad` is the gradient of the whole global batch, already summed over
            micro-batches and workers: clipping each part would point elsewhere.
        grad_norm: Norm of that gradient.
        clip_norm: Largest norm; None leaves it alone.

    Source: Pascanu et al. 2013 (arXiv:1211.5063) algorithm 1.
    """
    if clip_norm is None or grad_norm <= clip_norm:
        return False
    nn.utils.clip_grads_with_norm_(parameters, clip_norm, torch.tensor(grad_norm))
    return True


def _to(batch: Batch, device: torch.device) -> Batch:
    if device.type == "cpu":
        return batch
    return {
        name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()
    }
