"""Each worker holds a share of every weight, gradient and moment.

A block's weights are gathered when a worker computes with them.

Source: Zhao et al. 2023 (arXiv:2304.11277).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from scaling.tasks.model.layers import transformer_blocks
from scaling.training.parallel.base import LocalNorm, NewOptimizer, Parallel
from scaling.training.parallel.sharding import uncut_copy
from scaling.training.parallel.weights import TorchWeights
from scaling.training.parallel.workers import Workers


def fully_sharded(model: nn.Module, new_optimizer: NewOptimizer, workers: Workers) -> Parallel:
    """A model of whose Transformer blocks each one's weights are gathered together.

    The rest is gathered with the root.
    """
    local_norm = LocalNorm()
    group: Any = dist.group.WORLD
    mesh = DeviceMesh.from_group(group, workers.device.type)
    for block in transformer_blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    root = fully_shard(model, mesh=mesh, reshard_after_forward=False)
    reduce_scatter: Any = _ReduceScatter(local_norm)
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in parts:
        module.set_custom_reduce_scatter(reduce_scatter)
        # A plain sum, which gloo has too; the division is ours, so that what is measured
        # before it is not divided, whatever the precision.
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)

    @contextmanager
    def no_sync() -> Iterator[None]:
        """Whole gradients add up, and are cut with the next backward pass outside the block."""
        root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            root.set_requires_gradient_sync(True)

    @contextmanager
    def whole_weights() -> Iterator[None]:
        for module in parts:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in parts:
                module.reshard()
                # As `fully_shard` does it: the root's weights are the first that backward needs.
                module.set_reshard_after_forward(module is not root, recurse=False)

    return Parallel(
        model,
        TorchWeights(model, new_optimizer(model), keeps_inputs=True),
        workers,
        # A copy, whose backward pass may be differentiated once more.
        plain_model=lambda new_model: uncut_copy(model, new_model),
        local_norm=local_norm,
        saves_in_parts=True,
        no_sync=no_sync,
        whole_weights=whole_weights,
    )


# torch 2.13 renames it; 2.9 has only the second name.
_sum_and_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _ReduceScatter:
    """What fsdp calls to sum a part's gradients over the workers and leave each its share."""

    def __init__(self, norm: LocalNorm) -> None:
        self._norm = norm

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        """A buffer for gradients."""
        return torch.empty(size, dtype=dtype, device=device)

    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: Any,
        op: Any,
        async_op: bool = False,
    ) -> None:
        """The mean over the workers; `input_tensor` is this worker's own, padded with zeros."""
        assert not async_op
        if self._norm.wanted:
            self._norm.add([input_tensor])
        _sum_and_scatter(output_tensor, input_tensor, op=op, group=group)
        output_tensor.div_(dist.get_world_size(group))
