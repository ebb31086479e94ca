"""A worker that has a trial to itself, whatever the strategy: there is nothing to cut."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from torch import nn

from scaling.training.parallel.base import NewOptimizer
from scaling.training.parallel.weights import TorchWeights
from scaling.training.parallel.workers import Workers


class OneWorker:
    """See `scaling.training.parallel.base.Parallel`."""

    local_norm = None
    saves_in_parts = False

    def __init__(self, model: nn.Module, new_optimizer: NewOptimizer, worker: Workers) -> None:
        self.wrapped = model
        self.weights = TorchWeights(model, new_optimizer(model))
        self.data_workers = worker

    def reduction(self, *, num_parts: int) -> AbstractContextManager[None]:
        """Gradients add up by themselves."""
        del num_parts
        return nullcontext()

    def no_sync(self) -> AbstractContextManager[None]:
        """There is no other worker."""
        return nullcontext()

    def whole_weights(self) -> AbstractContextManager[None]:
        """They are whole."""
        return nullcontext()

    def plain_model(self, new_model: Callable[[], nn.Module]) -> nn.Module:
        """The model itself."""
        del new_model
        return self.wrapped

    def close(self) -> None:
        """There is nothing that would outlive the run."""
