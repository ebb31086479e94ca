"""A step that is discarded: kernels are loaded and blocks compiled before training is timed."""

import time
import timeit
from collections.abc import Hashable
from functools import partial

import torch

from scaling.optimizers.build import set_lr
from scaling.training.build import Setup
from scaling.training.data_order import order_of
from scaling.training.evaluation import matmul_precision
from scaling.training.memory.out_of_memory import fixed_memory, is_out_of_memory
from scaling.training.noise_cadence import added_ratio
from scaling.training.parallel.workers import release_memory

NUM_PARTS = 2  # micro-batches a worker; those that would follow need no other kernels
MAX_ON_CPU = 32  # examples a worker: a CPU's kernels are the same for more
LARGE_MODEL = 10**7  # weights of a model on a CPU that is not left to the next garbage collection

_warm: dict[Hashable, float | None] = {}
"""What trains as a trial before it did in this process, and what measuring noise adds to its step:
see `noise_cadence.added_ratio`."""


def is_cold(setup: Setup) -> bool:
    """Whether any of a trial's workers has not trained at this shape yet; called by all of them."""
    [num_cold] = setup.workers.sum(float(_shape_of(setup) not in _warm))
    return num_cold > 0


def spend(setup: Setup) -> float:
    """Take a step that measures noise and one that does not, and let go of what took them.

    The setup is of no use afterwards: another one like it begins with its own weights, moments and
    random numbers, so that nothing of these steps is in a trial. Where memory runs out, what comes
    after sees to it.

    Returns:
        Seconds.
    """
    started, device = time.perf_counter(), setup.workers.device
    added: float | None = None
    try:
        with matmul_precision(setup.recipe.layout.precision):
            _steps(setup)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                added = measured_noise_cost(setup)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or setup.workers.world_size > 1:
            raise
    finally:
        setup.parallel.close()
    _warm[_shape_of(setup)] = added
    return time.perf_counter() - started


def noise_cost(setup: Setup) -> float | None:
    """What measuring noise adds to a step, the same on all workers; None on a CPU.

    Measured once a process for each shape, where the device has a clock that nobody else moves.
    """
    if setup.workers.device.type != "cuda":
        return None
    return setup.workers.from_first(_warm.get(_shape_of(setup)) or 0.0) or None


def let_go(device: torch.device, num_parameters: int) -> None:
    """Give back the memory of a setup that nobody holds any more."""
    if device.type == "cuda" or num_parameters > LARGE_MODEL:
        release_memory(device)


def measured_noise_cost(setup: Setup) -> float:
    """What measuring noise adds to a step, by the shorter of two times each."""
    measured, plain = (
        # The gradient's norm is read, so the device is waited for.
        min(timeit.repeat(partial(_gradient, setup, measures_noise=noise), number=1, repeat=2))
        for noise in (True, False)
    )
    return added_ratio(measured, plain)


def _steps(setup: Setup) -> None:
    weights = setup.parallel.weights
    _gradient(setup, measures_noise=True)
    grad_norm = _gradient(setup, measures_noise=False)
    setup.clipping(weights.parameters, grad_norm=grad_norm)
    set_lr(weights.optimizer, 0.0)
    with fixed_memory("updating the weights"):
        weights.optimizer.step()
    if setup.average is not None:
        setup.average.update(_num_examples(setup))


def _gradient(setup: Setup, *, measures_noise: bool) -> float:
    order = order_of(setup.task, setup.recipe.seed)
    setup.parallel.weights.optimizer.zero_grad()
    indices = order.indices(0, _num_examples(setup))
    return setup.gradient(indices, measure_noise=measures_noise).grad_norm


def _num_examples(setup: Setup) -> int:
    size, sharing = setup.recipe.hyperparameters.global_batch_size, setup.gradient.workers
    few = NUM_PARTS * setup.gradient.micro_batch_size
    if sharing.device.type == "cpu":
        few = min(few, MAX_ON_CPU)
    return min(size, few * sharing.world_size)


def _shape_of(setup: Setup) -> Hashable:
    """What kernels and compiled blocks depend on, as far as trials of a study differ in it."""
    hparams = setup.recipe.hyperparameters
    return (
        setup.task.content_hash, type(setup.model), setup.num_parameters, setup.num_trained,
        hparams.global_batch_size, hparams.optimizer, setup.recipe.layout,
    )  # fmt: skip
