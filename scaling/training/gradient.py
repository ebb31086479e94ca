"""One global batch's gradient, however the batch is split, and the norms of its parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from scaling.measures.noise_scale import NoiseEstimate, estimate_noise
from scaling.measures.norm_layers import noise_of_sums
from scaling.optimizers.tensors import by_kind, kernels, whole
from scaling.records.recipe import Recipe
from scaling.tasks.task import AnyBatch, Task
from scaling.training.batches import Batches
from scaling.training.blocks import without_compiling
from scaling.training.evaluation import precision_context
from scaling.training.loss_scale import LossScale
from scaling.training.micro_batches import (
    ON_CPU,
    ON_GPU,
    cheapest_num_parts,
    cut_by_length,
    parts_of_worker,
)
from scaling.training.parallel.base import LocalNorm, Parallel
from scaling.training.parallel.sharding import norm_on_device, total_norm

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class StepGradient:
    """What one forward and backward pass over a global batch leaves beside the gradients.

    Attributes:
        loss_sum: Of this worker's part, nats; divided by `num_targets` and summed over the
            workers it is the step's loss.
        num_targets: Targets in the global batch.
        grad_norm: Before clipping; not finite where the gradient is not.
        noise: This step's noise-scale estimate, where it was asked for and can be had.
        norm_layer_noise: That of the normalization layers' parameters alone, at the same steps.
    """

    loss_sum: torch.Tensor
    num_targets: int
    grad_norm: float
    noise: NoiseEstimate | None
    norm_layer_noise: NoiseEstimate | None = None


class GradientOfBatch:
    """Computes the mean gradient per target of a global batch into `.grad`.

    The loss is a sum over targets divided by their number in the whole global batch, so neither
    padding nor the split into workers × micro-batches changes it. Where only the loss tells how
    many targets there are, it is divided by the number of examples first.

    Attributes:
        parameters: What is trained, as this worker holds it; their `.grad` is the result.
        micro_batch_size: Most examples a forward, of the longest in the batch: of shorter ones
            there may be more. May be made smaller between steps.
    """

    def __init__(self, task: Task, parallel: Parallel, recipe: Recipe) -> None:
        self.task, self.parallel, self.recipe = task, parallel, recipe
        self.micro_batch_size = recipe.layout.micro_batch_size
        self.workers = parallel.data_workers
        self.loss_scale = LossScale(recipe.layout.precision)
        # Random numbers drawn ahead would be of the step before, or of an evaluation.
        looks_ahead = self.workers.device.type == "cuda" and not task.draws_examples
        self.batches = Batches(task, recipe.seed, self.workers.device, looks_ahead=looks_ahead)
        self.parameters = parallel.weights.parameters
        self.norm_layers = parallel.weights.norm_layers

    def __call__(
        self, indices: Indices, *, measure_noise: bool, next_indices: Indices | None = None
    ) -> StepGradient:
        """Forward, loss and backward of every micro-batch of this worker.

        Args:
            indices: [global_batch_size] training examples, the same on all workers.
            measure_noise: Also estimate the noise scale from the norms of the gradients of random
                parts of the batch: each worker's share, or with one worker as many parts as it
                needs micro-batches, and two at least.
            next_indices: The global batch after this one, where its first micro-batch is to be
                collated while this one is still being computed with.
        """
        self.task.begin_batch()
        known = self.task.targets_known_ahead
        divisor = self.task.num_targets(indices) if known else len(indices)
        measure_noise = measure_noise and len(indices) > 1
        if measure_noise:
            with without_compiling(self.recipe.layout.compile):
                own, loss_sum, norms = self._measured(indices, divisor)
        else:
            own = self._own_parts(indices)
            loss_sum, norms = self._accumulate(own, divisor), []
        if next_indices is not None:
            # Before a GPU is waited for, which has all of this step's passes to compute.
            self.batches.expect(self._own_parts(next_indices)[0])
        num_targets = divisor if known else self._counted(own)
        self._scale(divisor / num_targets / self.loss_scale.value)
        grad_norm = total_norm(self._gradients())
        noise = self._noise(norms, num_targets, len(indices), grad_norm) if norms else None
        norm_layer_noise = self._norm_layer_noise(len(indices), num_targets, divisor)
        return StepGradient(loss_sum, num_targets, grad_norm, noise, norm_layer_noise)

    def _measured(
        self, indices: Indices, divisor: int
    ) -> tuple[list[Indices], torch.Tensor, list[tuple[float, int]]]:
        """The parts of a step that measures noise, its loss sum, and the norms of its groups."""
        self.norm_layers.start()
        groups = self._random_groups(indices)
        own = [part for parts in groups for part in parts]
        if (local_norm := self.parallel.local_norm) is not None:
            return own, *self._synchronized(own, divisor, local_norm)
        return own, *self._group_by_group(groups, divisor)

    def _own_parts(self, indices: Indices) -> list[Indices]:
        """This worker's micro-batches of a global batch that is cut by length."""
        workers, lengths = self.workers, self.task.lengths(indices)
        num_parts = self._num_parts(lengths, workers.world_size)
        parts = cut_by_length(lengths, num_parts=num_parts)
        own_parts = parts_of_worker(parts, rank=workers.rank, world_size=workers.world_size)
        return [indices[part] for part in own_parts]

    def _random_groups(self, indices: Indices) -> list[list[Indices]]:
        """This worker's micro-batches in groups that are random samples, as the noise scale needs.

        Of several workers each has one group, its share as it was drawn; one worker has several.
        On a CPU a group itself is cut by length.
        """
        workers = self.workers
        share = len(indices) // workers.world_size
        num_parts = self._num_parts(self.task.lengths(indices), workers.world_size)
        own = indices[workers.rank * share :][:share]
        if workers.world_size > 1:
            return [self._cut(own, num_parts // workers.world_size)]
        num_groups = max(2, math.ceil(share / self.micro_batch_size))
        size = math.ceil(share / num_groups)
        groups = [own[start : start + size] for start in range(0, share, size)]
        if self.workers.device.type != "cpu":
            return [[group] for group in groups]
        return [self._cut(group, math.ceil(num_parts / num_groups)) for group in groups]

    def _cut(self, indices: Indices, num_parts: int) -> list[Indices]:
        parts = cut_by_length(self.task.lengths(indices), num_parts=min(num_parts, len(indices)))
        return [indices[part] for part in parts]

    def _num_parts(self, lengths: Indices, world_size: int) -> int:
        """Micro-batches of all workers: as many as must be, more where that is faster."""
        share = len(lengths) // world_size
        needed = math.ceil(share / self.micro_batch_size) * world_size
        cost = ON_CPU if self.workers.device.type == "cpu" else ON_GPU
        return cheapest_num_parts(lengths, cost, at_least=needed)

    def _accumulate(self, parts: Sequence[Indices], divisor: int) -> torch.Tensor:
        """Backward through every part; workers are synchronized in the last one alone."""
        total = torch.zeros((), device=self.workers.device)
        with self.parallel.reduction(len(parts)):
            for number, batch in enumerate(self.batches.of(parts), start=1):
                with self.parallel.no_sync() if number < len(parts) else nullcontext():
                    total += self._backward(batch, divisor)
                if self.norm_layers.is_recording:
                    self.norm_layers.end_part(self.task.targets_of_each(parts[number - 1]))
        return total

    def _backward(self, batch: AnyBatch, divisor: int) -> torch.Tensor:
        with precision_context(self.recipe.layout.precision, self.workers.device):
            loss_sum = self.task.loss_sum(
                self.parallel.wrapped,
                batch,
                label_smoothing=self.recipe.hyperparameters.label_smoothing,
            )
        # Workers' gradients are averaged; × world_size makes that a sum.
        scale = self.loss_scale.value * self.workers.world_size / divisor
        (loss_sum * scale).backward()
        return loss_sum.detach()

    def _counted(self, own: Sequence[Indices]) -> int:
        """Targets in the global batch, of which this worker has computed these parts."""
        [total] = self.workers.sum(float(sum(map(self.task.num_targets, own))))
        return max(1, int(total))

    def _scale(self, factor: float) -> None:
        """Make the gradients what they are without the loss scale, per target of the batch."""
        if factor != 1:
            for kind in by_kind(self._gradients()):
                kernels._foreach_mul_(kind, factor)

    def _norm_layer_noise(
        self, num_examples: int, num_targets: int, divisor: int
    ) -> NoiseEstimate | None:
        """The estimate from all workers' examples; None where nothing was recorded."""
        if not self.norm_layers.is_recording:
            return None
        per_worker = self.workers.gather_array(self.norm_layers.stop())
        if any(len(sums) == 0 for sums in per_worker):
            return None
        return noise_of_sums(
            np.sum(per_worker, axis=0),
            num_examples=num_examples,
            num_targets=num_targets,
            gradient_scale=self.loss_scale.value
            * self.workers.world_size
            * (num_targets / divisor),
            num_train=self.task.num_train,
        )

    def _synchronized(
        self, parts: Sequence[Indices], divisor: int, norm: LocalNorm
    ) -> tuple[torch.Tensor, list[tuple[float, int]]]:
        """Several workers, and each one's norm² and targets."""
        norm.start()
        loss_sum = self._accumulate(parts, divisor)
        own_targets = sum(self.task.num_targets(part) for part in parts)
        scale = divisor / (self.workers.world_size * max(own_targets, 1))
        scale /= self.loss_scale.value
        own = np.array([norm.stop() * (scale * scale), own_targets], dtype=np.float64)
        return loss_sum, [(float(n), int(t)) for n, t in self.workers.gather_array(own)]

    def _group_by_group(
        self, groups: Sequence[Sequence[Indices]], divisor: int
    ) -> tuple[torch.Tensor, list[tuple[float, int]]]:
        """One worker; the norm of each group's own gradient, and its targets."""
        # A group that is cut has no gradient of its own while it adds up in the whole one's place.
        adds_up = all(len(parts) == 1 for parts in groups)
        measured = self._added_up if adds_up else self._apart
        total, norms = measured(groups, divisor)
        targets = [sum(self.task.num_targets(part) for part in parts) for parts in groups]
        # Read at once, so that the device is waited for once.
        scales = [divisor / max(count, 1) / self.loss_scale.value for count in targets]
        values: list[float] = torch.stack(norms).tolist()
        own = [norm * scale for norm, scale in zip(values, scales, strict=True)]
        # Not by a power, which raises an error where it is too large.
        return total, [(norm * norm, count) for norm, count in zip(own, targets, strict=True)]

    def _added_up(
        self, groups: Sequence[Sequence[Indices]], divisor: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """A group's gradient is measured on its way into the whole one, a weight at a time."""
        own: dict[int, torch.Tensor] = {}

        def measure(gradient: torch.Tensor, number: int) -> None:
            own[number] = whole(torch.linalg.vector_norm(gradient))

        hooks = [
            parameter.register_hook(lambda gradient, number=number: measure(gradient, number))
            for number, parameter in enumerate(self.parameters)
        ]
        total = torch.zeros((), device=self.workers.device)
        norms: list[torch.Tensor] = []
        try:
            for parts in groups:
                own.clear()
                total += self._accumulate(parts, divisor)
                each = [norm for _, norm in sorted(own.items())]
                norms.append(torch.linalg.vector_norm(torch.stack(each)))
        finally:
            for hook in hooks:
                hook.remove()
        return total, norms

    def _apart(
        self, groups: Sequence[Sequence[Indices]], divisor: int
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """A group's gradient is there beside that of the groups before it."""
        total = torch.zeros((), device=self.workers.device)
        summed: dict[torch.Tensor, torch.Tensor] = {}  # a group may leave some weights without one
        norms: list[torch.Tensor] = []
        for parts in groups:
            for parameter in self.parameters:
                parameter.grad = None
            total += self._accumulate(parts, divisor)
            norms.append(norm_on_device(self._gradients()))
            own = {p: p.grad for p in self.parameters if p.grad is not None}
            both = [parameter for parameter in own if parameter in summed]
            kinds = by_kind([summed[p] for p in both]), by_kind([own[p] for p in both])
            for kind, added in zip(*kinds, strict=True):
                kernels._foreach_add_(kind, added)
            summed = own | summed  # the next group's gradients are new tensors
        for parameter, gradient in summed.items():
            parameter.grad = gradient
        return total, norms

    def _gradients(self) -> list[torch.Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

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
            grad_norm * grad_norm,
            num_train=self.task.num_train,
        )
