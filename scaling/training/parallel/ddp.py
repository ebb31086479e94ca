"""Each worker holds the whole model and a share of the batch; their gradients are averaged."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from scaling.training.parallel.base import LocalNorm, NewOptimizer, Parallel
from scaling.training.parallel.shared_memory import SharedSum, shared_sum
from scaling.training.parallel.weights import TorchWeights
from scaling.training.parallel.workers import Workers

_EVERYONE: Any = None  # the default process group


@dataclass(frozen=True)
class _Averaging:
    """What DDP's hook needs. It must not lead to the DDP module: that would never be collected."""

    local_norm: LocalNorm
    shared: SharedSum | None


def _average(
    averaging: _Averaging,
    bucket: dist.GradBucket,  # pyright: ignore[reportPrivateImportUsage]  # DDP checks for it
) -> torch.futures.Future[Tensor]:
    """The mean over the workers of some parameters' gradients."""
    shared = averaging.shared
    if averaging.local_norm.wanted:
        averaging.local_norm.add(bucket.gradients())
    if shared is None:
        return allreduce_hook(_EVERYONE, bucket)
    averaged: torch.futures.Future[Tensor] = torch.futures.Future()
    averaged.set_result(shared.sum(bucket.buffer().div_(shared.world_size)))
    return averaged


def data_parallel(model: nn.Module, new_optimizer: NewOptimizer, workers: Workers) -> Parallel:
    """A model that DDP reduces in the backward pass; workers of one machine sum in its memory."""
    local_norm = LocalNorm()
    on_gpu = workers.device.type == "cuda"
    with warnings.catch_warnings():
        # torch 2.13 renames broadcast_buffers; 2.9 has only this name.
        warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
        wrapped = DistributedDataParallel(
            model,
            device_ids=[workers.device] if on_gpu else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
        )
    shared = None if on_gpu else shared_sum(workers)
    wrapped.register_comm_hook(_Averaging(local_norm, shared), _average)
    no_sync: Any = wrapped.no_sync  # adds up what is reduced with the next backward pass outside
    leave: Callable[[], None] = (lambda: None) if shared is None else shared.close
    return Parallel(
        wrapped,
        TorchWeights(model, new_optimizer(model)),
        workers,
        plain_model=lambda _: model,
        local_norm=local_norm,
        no_sync=no_sync,
        close=leave,
    )
