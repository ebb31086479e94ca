"""What a run trains with, built from its recipe: model, strategy, optimizer, gradient, average."""

from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
import torch
from torch import nn

from scaling.measures.throughput import flops_per_example, peak_flops_per_second
from scaling.optimizers.build import build_optimizer
from scaling.records.recipe import Recipe
from scaling.spec.resources import ZERO_STAGES
from scaling.tasks.task import Task
from scaling.training.blocks import prepare_blocks
from scaling.training.clipping import Clipping
from scaling.training.gradient import GradientOfBatch
from scaling.training.memory.out_of_memory import is_out_of_memory
from scaling.training.parallel.base import Parallel
from scaling.training.parallel.ddp import data_parallel
from scaling.training.parallel.fsdp import fully_sharded
from scaling.training.parallel.one_worker import one_worker
from scaling.training.parallel.tp import cut_matrices
from scaling.training.parallel.workers import Workers, release_memory
from scaling.training.parallel.zero import Zero
from scaling.training.weight_average import WeightAverage

NUM_COUNTED_EXAMPLES = 8  # on which a trial's floating-point operations are counted

_counted: dict[Any, float | None] = {}
"""Operations of an example by data, number of examples, and the weights' shapes, in which most of
the trials that a process serves do not differ."""


@dataclass(frozen=True)
class Setup:
    """What one worker of a trial trains with.

    Attributes:
        workers: This process among the trial's.
        model: On this worker's device, as the strategy has left it.
        average: None where the recipe averages no weights.
        num_parameters: Weights of the whole model.
        num_trained: Those of them that are trained.
        flops_per_example: Of a forward and backward pass; None where not even a few examples fit
            into memory.
        peak_flops_per_second: Of all workers together; None where one has an unknown device.
    """

    task: Task
    recipe: Recipe
    workers: Workers
    model: nn.Module
    parallel: Parallel
    gradient: GradientOfBatch
    clipping: Clipping
    average: WeightAverage | None
    num_parameters: int
    num_trained: int
    flops_per_example: float | None
    peak_flops_per_second: float | None


def set_up(task: Task, recipe: Recipe, workers: Workers) -> Setup:
    """Build a trial's model and all that trains it; called by all workers.

    The seed of dropout is set on the way, so that the next random number is the first step's.
    """
    layout, device = recipe.layout, workers.device
    if device.type == "cuda":  # an earlier trial may have used it
        torch.cuda.reset_peak_memory_stats(device)
    model = new_model(task, recipe, device)
    flops = _flops_per_example(task, model, layout.micro_batch_size, workers)
    peak_flops = _peak_flops_per_second(recipe, workers)
    # Dropout differs between workers that share a batch. Under tp each has all of it.
    torch.manual_seed(recipe.seed * 65_537 + workers.rank % layout.data_parallel_size)
    prepare_blocks(model, recomputes=layout.activation_checkpointing, compiles=layout.compile)
    # Before the weights are cut, as DeepSpeed leaves the model empty ones.
    num_parameters = sum(p.numel() for p in model.parameters())
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    parallel = parallelize(model, recipe, workers)
    average, half_life = None, recipe.hyperparameters.weight_average_half_life_examples
    if half_life is not None:
        average = WeightAverage(parallel.weights.held, half_life_examples=half_life)
    return Setup(
        task=task,
        recipe=recipe,
        workers=workers,
        model=model,
        parallel=parallel,
        gradient=GradientOfBatch(task, parallel, recipe),
        clipping=Clipping(recipe.hyperparameters),
        average=average,
        num_parameters=num_parameters,
        num_trained=num_trained,
        flops_per_example=flops,
        peak_flops_per_second=peak_flops,
    )


def new_model(task: Task, recipe: Recipe, device: torch.device) -> nn.Module:
    """A model as the recipe starts with it."""
    hparams = recipe.hyperparameters
    model = task.new_model(recipe.seed, dropout=hparams.dropout, lora_rank=hparams.lora_rank)
    return model.to(device)


def parallelize(model: nn.Module, recipe: Recipe, workers: Workers) -> Parallel:
    """Hand a model to the recipe's strategy, in place, with an optimizer of its trained weights.

    Args:
        model: On this worker's device, the same on all workers.
        recipe: With one worker its strategy has nothing to cut.
        workers: All of them call this.

    Raises:
        DataError: Under tp, if the model has no plan of what to cut, or its sizes do not divide.
        ValueError: If the recipe asks for muon and the model has no hidden matrix, or for ZeRO
            with fp16.
    """

    def new_optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(model, recipe.hyperparameters)

    if workers.world_size == 1:
        return one_worker(model, new_optimizer, workers)
    strategy = recipe.layout.strategy
    match strategy:
        case "ddp":
            return data_parallel(model, new_optimizer, workers)
        case "fsdp":
            return fully_sharded(model, new_optimizer, workers)
        case "tp":
            cut_matrices(model, workers)
            return one_worker(model, new_optimizer, workers.alone(), is_cut=True)
        case "zero1" | "zero2" | "zero3":
            stage, precision = ZERO_STAGES[strategy], recipe.layout.precision
            cut = Zero(model, new_optimizer, workers, stage=stage, precision=precision)
            return cut.parallel
        case _:
            assert_never(strategy)


def _flops_per_example(
    task: Task, model: nn.Module, micro_batch_size: int, workers: Workers
) -> float | None:
    few = np.arange(min(NUM_COUNTED_EXAMPLES, micro_batch_size))
    shapes = tuple((tuple(p.shape), p.requires_grad) for p in model.parameters())
    key = task.content_hash, len(few), type(model), shapes
    try:
        if key not in _counted:
            _counted[key] = flops_per_example(task, model, few)
        return _counted[key]
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Outside the handler, since the error's frames hold what is to be released.
    release_memory(workers.device)
    return None


def _peak_flops_per_second(recipe: Recipe, workers: Workers) -> float | None:
    own = peak_flops_per_second(workers.device, recipe.layout.precision)
    share = workers.device_share  # so that a device that several have counts once
    total, num_known = workers.sum((own or 0.0) * share, float(own is not None))
    return total if num_known == workers.world_size else None
