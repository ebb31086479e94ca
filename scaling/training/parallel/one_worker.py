"""A worker that computes whole batches: alone, or beside those that share its model under tp."""

from torch import nn

from scaling.training.parallel.base import NewOptimizer, Parallel
from scaling.training.parallel.sharding import uncut_copy
from scaling.training.parallel.weights import TorchWeights
from scaling.training.parallel.workers import Workers


def one_worker(
    model: nn.Module, new_optimizer: NewOptimizer, worker: Workers, *, is_cut: bool = False
) -> Parallel:
    """A model that one worker trains; sums over a cut model's workers are within it.

    Args:
        model: On this worker's device.
        new_optimizer: Of its trained weights.
        worker: As one that computes alone.
        is_cut: Whether others hold the other parts of the model's matrices, and compute with it.
    """
    return Parallel(
        model,
        TorchWeights(model, new_optimizer(model)),
        worker,
        plain_model=lambda new_model: uncut_copy(model, new_model) if is_cut else model,
        saves_in_parts=is_cut,
    )
