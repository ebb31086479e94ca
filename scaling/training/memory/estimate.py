"""The memory of a study's trials, and the largest micro-batch that fits a worker."""

import math
import os
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scaling.arithmetic.batching import BatchSplit, split_batch
from scaling.records.recipe import Recipe
from scaling.spec.hyperparameters import Given
from scaling.spec.resources import Resources
from scaling.spec.workloads import Workload
from scaling.tasks.errors import DataError
from scaling.tasks.model.layers import matrices_to_cut
from scaling.tasks.target_loss import is_in_chunks
from scaling.tasks.task import AnyBatch, AnyTask, FinishedTask, Task
from scaling.training.blocks import prepare_blocks
from scaling.training.evaluation import precision_context
from scaling.training.memory.footprint import Footprint, Memory, footprint
from scaling.training.parallel.workers import Workers

# Estimates are within 15% of what is measured; the rest of the memory is left to the process.
USABLE_RATIO = 0.8
MAX_MICRO_BATCH_SIZE = 2**31 - 1


def study_footprint(
    task: Task, workload: Workload, resources: Resources, *, lora_rank: int | None = None
) -> Footprint | None:
    """A study's model, at the longest of its training examples.

    Args:
        task: With its data.
        workload: Which model it is.
        resources: Under tp it is one worker's part of the model.
        lora_rank: Of the adapters; their own where left out.

    Returns:
        None where code of the user's own reads values, which tensors without contents have not.
    """
    longest = longest_example(task)
    # A trained model is read from its files; one from scratch need not exist at all.
    trained: nn.Module | None = None
    if workload.model is not None and workload.model.pretrained is not None:
        trained = task.new_model(0, lora_rank=lora_rank)

    def build() -> nn.Module:
        model = task.new_model(0) if trained is None else trained
        if resources.num_parts > 1:
            _cut_shapes(model, resources.num_parts)
        prepare_blocks(model, recomputes=resources.activation_checkpointing, compiles=False)
        return model

    sizes = _traced_sizes(lambda size: task.collate(np.full(size, longest), 0))
    batches = {size: task.collate(np.full(size, longest), 0) for size in sizes}

    def loss(model: nn.Module, size: int) -> Tensor:
        return task.loss_sum(model, batches[size])

    cpu = torch.device("cpu")
    try:
        return footprint(
            build, loss, lambda: precision_context(resources.precision, cpu), sizes=sizes
        )
    except Exception:  # whatever the user's code makes of such tensors
        if workload.own_code:
            return None
        raise


def _traced_sizes(collate: Callable[[int], AnyBatch]) -> tuple[int, int]:
    """Two micro-batch sizes through which a line goes: with the loss in chunks at both or neither.

    Below the first chunk's end the line of what follows is above what a micro-batch takes.
    """
    low, high = 8, 32
    while is_in_chunks(collate(high)) and not is_in_chunks(collate(low)):
        low *= 2
    return low, 4 * low


def _cut_shapes(model: nn.Module, num_workers: int) -> None:
    """Leave a whole model the shapes that tp leaves one of so many workers, in place."""
    for name, cut in matrices_to_cut(model, num_workers).items():
        whole: Any = model.get_submodule(name)
        of_inputs, of_outputs = (1, num_workers) if cut == "colwise" else (num_workers, 1)
        part = nn.Linear(
            whole.in_features // of_inputs, whole.out_features // of_outputs,
            bias=whole.bias is not None, device=whole.weight.device, dtype=whole.weight.dtype,
        )  # fmt: skip
        model.set_submodule(name, part)


def require_model_fits(task: Task, workload: Workload) -> None:
    """Check that this machine has the memory for the weights of a model from scratch.

    Raises:
        DataError: If it has not, or the model cannot be built.
    """
    if workload.model is None or workload.model.pretrained is not None:
        return
    with torch.device("meta"):
        model = task.new_model(0)
    count = sum(weight.numel() for weight in model.parameters())
    size = sum(weight.nbytes for weight in model.parameters())
    if size > _machine_bytes():
        raise DataError(
            "workload.model",
            f"{count:,} weights take {size / 2**30:,.1f} GiB, and this machine has "
            f"{_machine_bytes() / 2**30:,.1f} GiB",
        )


def num_gpus_here() -> int:
    """GPUs that this process sees."""
    return torch.cuda.device_count()


def longest_example(task: Task) -> int:
    """Number of the training example with the most tokens; the first of several."""
    return int(np.argmax(task.lengths(np.arange(task.num_train or 1))))


def study_micro_batch_size(task: AnyTask, workload: Workload, resources: Resources) -> int | None:
    """What `resources.micro_batch_size: auto` comes to; None for no bound, or where it is not auto.

    Where the driver does not see the workers' GPUs there is no bound either: each worker asks
    `fitting_micro_batch_size` of its own.
    """
    if resources.micro_batch_size != "auto" or isinstance(task, FinishedTask):
        return None
    memory_bytes = worker_memory_bytes(resources)
    if memory_bytes is None:
        return None
    num_workers = resources.num_workers
    found = study_footprint(task, workload, resources)
    if found is None:
        return None
    return largest_micro_batch_size(
        found, resources, memory_bytes=memory_bytes,
        world_size=1 if num_workers == "auto" else num_workers,
    )  # fmt: skip


def trial_memory(
    found: Footprint,
    resources: Resources,
    given: Given,
    split: BatchSplit,
    *,
    measures_sharpness: bool,
) -> Memory:
    """Bytes on each worker of a trial.

    Args:
        found: From `study_footprint`.
        resources: The study's.
        given: Its hyperparameters; those that are searched may be None.
        split: Of the trial's global batch.
        measures_sharpness: After the last step.
    """
    return found.memory(
        split.micro_batch_size,
        optimizer=given.optimizer,
        has_momentum=bool(given.momentum),
        averages_weights=given.weight_average_half_life_examples is not None,
        strategy=resources.strategy,
        world_size=split.world_size * resources.num_parts,
        accumulates=split.grad_accum_steps > 1,
        measures_sharpness=measures_sharpness,
    )


_footprints: dict[tuple[str, str, int | None], Footprint | None] = {}
"""By data, workload and rank of the adapters, of the trials that this process serves."""


def fitting_micro_batch_size(
    task: Task,
    workload: Workload,
    resources: Resources,
    recipe: Recipe,
    workers: Workers,
    *,
    at_most: int,
) -> int:
    """The largest micro-batch that is estimated to fit the memory of every worker of a trial.

    A number in the study file is not made smaller, nor is a CPU's share of a batch without one.

    Args:
        task: With its data.
        workload: Which model it is.
        resources: The study's.
        recipe: Of the trial.
        workers: All of them call this; the result is the same on all.
        at_most: Examples per worker per forward that are asked for.
    """
    wanted = resources.micro_batch_size
    if wanted != "auto" and (wanted is not None or workers.device.type == "cpu"):
        return at_most
    memory_bytes = worker_memory_bytes(resources, workers.device)
    lora_rank = recipe.hyperparameters.lora_rank
    key = task.content_hash, workload.model_dump_json(), lora_rank
    if key not in _footprints:
        try:
            _footprints[key] = study_footprint(task, workload, resources, lora_rank=lora_rank)
        except Exception:  # a model that tensors without contents do not suit
            if wanted == "auto":
                raise
            _footprints[key] = None
    found = _footprints[key]
    fits = None
    if found is not None and memory_bytes is not None:
        fits = largest_micro_batch_size(
            found, resources, memory_bytes=memory_bytes, world_size=workers.world_size
        )
    return split_batch(
        recipe.hyperparameters.global_batch_size,
        world_size=recipe.layout.data_parallel_size,
        micro_batch_size=min(workers.gather(at_most if fits is None else min(fits, at_most))),
    ).micro_batch_size


def worker_memory_bytes(
    resources: Resources,
    device: torch.device = torch.device("cuda", 0),  # noqa: B008  # immutable
) -> int | None:
    """Memory that one worker has: of its GPU, or its share of this machine's.

    Args:
        resources: The study's.
        device: The worker's GPU, where it has one.

    Returns:
        None where workers have GPUs and this machine shows none, or it is open whether they have.
    """
    if resources.gpus_per_worker == "auto":
        return None
    if resources.gpus_per_worker:
        if not torch.cuda.is_available():
            return None
        whole = torch.cuda.get_device_properties(device).total_memory
        return int(whole * min(1.0, resources.gpus_per_worker))
    num_workers = max(1, math.floor((os.cpu_count() or 1) / resources.cpus_per_worker))
    return _machine_bytes() // num_workers


def _machine_bytes() -> int:
    """Physical memory, or what a container is allowed of it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text(encoding="ascii").strip() if limit.exists() else "max"
    return physical if text == "max" else min(physical, int(text))


def largest_micro_batch_size(
    found: Footprint, resources: Resources, *, memory_bytes: int, world_size: int
) -> int | None:
    """The largest micro-batch whose estimate is within USABLE_RATIO of a worker's memory.

    Adam's moments and an average of the weights are counted whether a trial has them or not.

    Returns:
        One where even that may not fit; None where the micro-batch takes no memory.
    """

    def total(size: int) -> int:
        return found.memory(
            size, optimizer="adamw", averages_weights=True, strategy=resources.strategy,
            world_size=world_size,
        ).total  # fmt: skip

    usable = int(memory_bytes * USABLE_RATIO)
    if total(MAX_MICRO_BATCH_SIZE) <= usable:
        return None
    return bisect_right(range(1, MAX_MICRO_BATCH_SIZE), usable, key=total) or 1
