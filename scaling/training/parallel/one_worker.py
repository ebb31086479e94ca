"""A worker that computes whole batches: alone, or beside those that share its model under tp."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import nn

from scaling.training.parallel.base import NewOptimizer
from scaling.training.parallel.sharding import uncut_copy
from scaling.training.parallel.weights import TorchWeights
from scaling.training.parallel.workers import Workers


class OneWorker:
    """See `scaling.training.parallel.base.Parallel`.

    Args:
        model: On this worker's device.
        new_optimizer: Of its trained weights.
        worker: As one that computes alone.
        is_cut: Whether others hold the other parts of the model's matrices, and compute with it.
    """

    local_norm = None

    def __init__(
        self,
        model: nn.Module,
        new_optimizer: NewOptimizer,
        worker: Workers,
        *,
        is_cut: bool = False,
    ) -> None:
        self.wrapped, self.saves_in_parts = model, is_cut
        self.weights = TorchWeights(model, new_optimizer(model))
        self.data_workers = worker

    def reduction(self, *, num_parts: int) -> AbstractContextManager[None]:
        """Gradients add up by themselves; sums over a cut model's workers are within it."""
        del num_parts
        return nullcontext()

    def no_sync(self) -> AbstractContextManager[None]:
        """No other worker has another part of the batch."""
        return nullcontext()

    def whole_weights(self) -> AbstractContextManager[None]:
        """They are, or all workers run the same forwards of cut ones together."""
        return nullcontext()

    def plain_model(self, new_model: Callable[[], nn.Module]) -> nn.Module:
        """The model itself, or a copy of gathered matrices."""
        return uncut_copy(self.wrapped, new_model) if self.saves_in_parts else self.wrapped

    def close(self) -> None:
        """There is nothing that would outlive the run."""
