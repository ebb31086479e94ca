"""Matrices of a Transformer's blocks cut among workers that compute every example together.

Which matrix is cut along its rows and which along its columns is transformers' own plan for the
architecture (`scaling.tasks.model.layers`); the cutting is torch's. Embeddings, the head
and normalization layers stay whole on every worker and stay equal, since every worker has the same
examples and the same gradients.

Source: Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from scaling.tasks.model.layers import matrices_to_cut
from scaling.training.parallel.base import NewOptimizer
from scaling.training.parallel.sharding import uncut_copy
from scaling.training.parallel.weights import TorchWeights
from scaling.training.parallel.workers import Workers


class TensorParallel:
    """See `scaling.training.parallel.base.Parallel`.

    For the batch each worker is as one that computes alone.
    """

    local_norm = None
    saves_in_parts = True

    def __init__(self, model: nn.Module, new_optimizer: NewOptimizer, workers: Workers) -> None:
        cut_matrices(model, workers)
        self.wrapped = model
        self.weights = TorchWeights(model, new_optimizer(model))
        self.data_workers = workers.alone()

    def reduction(self, *, num_parts: int) -> AbstractContextManager[None]:
        """The workers' sums are within the model, and gradients add up by themselves."""
        del num_parts
        return nullcontext()

    def no_sync(self) -> AbstractContextManager[None]:
        """Every backward pass is of all workers together."""
        return nullcontext()

    def whole_weights(self) -> AbstractContextManager[None]:
        """All workers run the same forwards together, of cut weights too."""
        return nullcontext()

    def plain_model(self, new_model: Callable[[], nn.Module]) -> nn.Module:
        """A copy of gathered matrices."""
        return uncut_copy(self.wrapped, new_model)

    def close(self) -> None:
        """There is nothing that would outlive the run."""


def cut_matrices(model: nn.Module, workers: Workers) -> None:
    """Leave each worker its part of the blocks' matrices, in place.

    Args:
        model: On this worker's device, the same on all workers.
        workers: All of them call this.

    Raises:
        DataError: If the model has no plan, or its sizes do not divide.
    """
    group: Any = workers.group or dist.group.WORLD
    mesh = DeviceMesh.from_group(group, workers.device.type)
    for name, cut in matrices_to_cut(model, workers.world_size).items():
        style = ColwiseParallel() if cut == "colwise" else RowwiseParallel()
        parallelize_module(model.get_submodule(name), mesh, style)
