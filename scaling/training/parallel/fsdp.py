"""Each worker holds a share of every weight, gradient and moment.

A block's weights are gathered when a worker computes with them.

Source: Zhao et al. 2023 (arXiv:2304.11277).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from scaling.tasks.model.layers import transformer_blocks
from scaling.training.parallel.base import LocalNorm, NewOptimizer
from scaling.training.parallel.sharding import uncut_copy
from scaling.training.parallel.weights import TorchWeights
from scaling.training.parallel.workers import Workers


class FullySharded:
    """See `scaling.training.parallel.base.Parallel`.

    Each Transformer block's weights are gathered together, and the rest with the root.
    """

    saves_in_parts = True

    def __init__(self, model: nn.Module, new_optimizer: NewOptimizer, workers: Workers) -> None:
        self.data_workers = workers
        self.local_norm = LocalNorm()
        group: Any = dist.group.WORLD
        mesh = DeviceMesh.from_group(group, workers.device.type)
        for block in transformer_blocks(model):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
        self._root = fully_shard(model, mesh=mesh, reshard_after_forward=False)
        self.wrapped = model
        reduce_scatter: Any = _ReduceScatter(self.local_norm)
        self._parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
        for module in self._parts:
            module.set_custom_reduce_scatter(reduce_scatter)
            # A plain sum, which gloo has too; the division is ours, so that what is measured
            # before it is not divided, whatever the precision.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        self.weights = TorchWeights(model, new_optimizer(model), keeps_inputs=True)

    def reduction(self, *, num_parts: int) -> AbstractContextManager[None]:
        """The last backward pass, outside `no_sync`, reduces."""
        del num_parts
        return nullcontext()

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Whole gradients add up, and are cut with the next backward pass outside the block."""
        self._root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self._root.set_requires_gradient_sync(True)

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """All weights are gathered for the length of the block."""
        for module in self._parts:
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()
        try:
            yield
        finally:
            for module in self._parts:
                module.reshard()
                # As `fully_shard` does it: the root's weights are the first that backward needs.
                is_root = module is self._root
                module.set_reshard_after_forward(not is_root, recurse=False)

    def plain_model(self, new_model: Callable[[], nn.Module]) -> nn.Module:
        """A copy, whose backward pass may be differentiated once more."""
        return uncut_copy(self.wrapped, new_model)

    def close(self) -> None:
        """There is nothing that would outlive the run."""


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
