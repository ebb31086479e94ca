"""How the gradients of data-parallel workers become one."""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from scaling.spec.resources import Strategy
from scaling.tasks.model.layers import transformer_blocks
from scaling.training.parallel.shared_memory import SharedSum, shared_sum
from scaling.training.parallel.workers import Workers


class LocalNorm:
    """Squared norm of this worker's own gradient, taken just before it is averaged with others'.

    Attributes:
        shared: Through which ddp averages, to be closed with the run; None where torch.distributed
            averages.
    """

    def __init__(self, group: Any) -> None:
        self.group = group
        self.shared: SharedSum | None = None
        self.wanted = False
        self._sq_norms: list[Tensor] = []

    def close(self) -> None:
        """Let the other workers know that this one has left the trial."""
        if self.shared is not None:
            self.shared.close()

    def start(self) -> None:
        """Measure during the next backward pass that is synchronized."""
        self.wanted, self._sq_norms = True, []

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Take in the gradients of some parameters."""
        self._sq_norms += [gradient.double().square().sum() for gradient in gradients]

    def stop(self) -> float:
        """The squared norm measured since `start`."""
        self.wanted = False
        # Buckets are cut anew after the first step; an exact sum does not depend on them.
        return math.fsum(torch.stack(self._sq_norms).tolist()) if self._sq_norms else 0.0


def _average(
    norm: LocalNorm,
    bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage]  # DDP checks for it
) -> torch.futures.Future[Tensor]:
    shared = norm.shared
    if norm.wanted:
        norm.add(bucket.gradients())
    if shared is None:
        return allreduce_hook(norm.group, bucket)
    averaged: torch.futures.Future[Tensor] = torch.futures.Future()
    averaged.set_result(shared.sum(bucket.buffer().div_(shared.world_size)))
    return averaged


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


def data_parallel(
    model: nn.Module, workers: Workers, strategy: Strategy = "ddp"
) -> tuple[nn.Module, LocalNorm | None]:
    """Make a model's gradients be averaged over the workers.

    Args:
        model: On this worker's device, the same on all workers.
        workers: All of them call this.
        strategy: ddp: each worker holds the whole model; fsdp: each holds a share of every
            weight, gradient and moment, and gathers a block's weights when it computes with
            them (Zhao et al. 2023, arXiv:2304.11277); tp has one data-parallel worker, whose
            model `cut_matrices` has cut before.

    Returns:
        The model to call, and where to read this worker's own gradient norm; a single worker's
        model comes back as it is, with None.
    """
    if workers.world_size == 1:
        return model, None
    norm = LocalNorm(workers.group)
    match strategy:
        case "ddp":
            return _replicated(model, workers, norm), norm
        case "fsdp":
            return _sharded(model, workers, norm), norm
        case "zero1" | "zero2" | "zero3":
            raise ValueError("the models of these strategies are scaling.training.parallel.zero's")
        case "tp":
            raise ValueError("under tp there are no data-parallel workers")


def _replicated(model: nn.Module, workers: Workers, norm: LocalNorm) -> nn.Module:
    on_gpu = workers.device.type == "cuda"
    with warnings.catch_warnings():
        # torch 2.13 renames broadcast_buffers; 2.9 has only this name.
        warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
        wrapped = DistributedDataParallel(
            model,
            device_ids=[workers.device] if on_gpu else None,
            process_group=workers.group,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
    norm.shared = None if on_gpu else shared_sum(workers)
    wrapped.register_comm_hook(norm, _average)
    return wrapped


def _sharded(model: nn.Module, workers: Workers, norm: LocalNorm) -> nn.Module:
    """Each Transformer block's weights are gathered together, and the rest with the root."""
    group: Any = workers.group or dist.group.WORLD
    mesh = DeviceMesh.from_group(group, workers.device.type)
    for block in transformer_blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(model, mesh=mesh, reshard_after_forward=False)
    reduce_scatter: Any = _ReduceScatter(norm)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_custom_reduce_scatter(reduce_scatter)
            # A plain sum, which gloo has too; the division is ours, so that what is measured
            # before it is not divided, whatever the precision.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return model


@contextmanager
def no_sync(wrapped: nn.Module) -> Iterator[None]:
    """Backward passes inside the block only accumulate this worker's own gradient."""
    if isinstance(wrapped, DistributedDataParallel):
        with wrapped.no_sync():
            yield
    elif isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            wrapped.set_requires_gradient_sync(True)
    else:
        yield
