"""Matrices of a Transformer's blocks cut among workers that compute every example together.

Which matrix is cut along its rows and which along its columns is transformers' own plan for the
architecture (`scaling.tasks.model.layers`); the cutting is torch's. Embeddings, the head
and normalization layers stay whole on every worker and stay equal, since every worker has the same
examples and the same gradients.

Source: Shoeybi et al. 2019 (arXiv:1909.08053) sec. 3.
"""

from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from scaling.tasks.model.layers import matrices_to_cut
from scaling.training.parallel.workers import Workers


def cut_matrices(model: nn.Module, workers: Workers) -> None:
    """Leave each worker its part of the blocks' matrices, in place.

    Args:
        model: On this worker's device, the same on all workers.
        workers: All of them call this.

    Raises:
        DataError: If the model has no plan, or its sizes do not divide.
    """
    group: Any = dist.group.WORLD
    mesh = DeviceMesh.from_group(group, workers.device.type)
    for name, cut in matrices_to_cut(model, workers.world_size).items():
        style = ColwiseParallel() if cut == "colwise" else RowwiseParallel()
        parallelize_module(model.get_submodule(name), mesh, style)
