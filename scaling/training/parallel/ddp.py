"""Each worker holds the whole model and a share of the batch; their gradients are averaged."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from scaling.training.parallel.base import LocalNorm, NewOptimizer
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


class DataParallel:
    """See `scaling.training.parallel.base.Parallel`; workers of one machine sum in its memory."""

    saves_in_parts = False

    def __init__(self, model: nn.Module, new_optimizer: NewOptimizer, workers: Workers) -> None:
        self._model, self.data_workers = model, workers
        self.local_norm = LocalNorm()
        on_gpu = workers.device.type == "cuda"
        with warnings.catch_warnings():
            # torch 2.13 renames broadcast_buffers; 2.9 has only this name.
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            self.wrapped = DistributedDataParallel(
                model,
                device_ids=[workers.device] if on_gpu else None,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
            )
        self._shared = None if on_gpu else shared_sum(workers)
        self.wrapped.register_comm_hook(_Averaging(self.local_norm, self._shared), _average)
        self.weights = TorchWeights(model, new_optimizer(model))

    def reduction(self, *, num_parts: int) -> AbstractContextManager[None]:
        """DDP reduces in the backward pass."""
        del num_parts
        return nullcontext()

    def no_sync(self) -> AbstractContextManager[None]:
        """DDP adds up what it will reduce with the next backward pass outside the block."""
        no_sync: Any = self.wrapped.no_sync
        return no_sync()

    def whole_weights(self) -> AbstractContextManager[None]:
        """They are whole."""
        return nullcontext()

    def plain_model(self, new_model: Callable[[], nn.Module]) -> nn.Module:
        """The model itself."""
        del new_model
        return self._model

    def close(self) -> None:
        """Let the other workers know that this one has left the trial."""
        if self._shared is not None:
            self._shared.close()
