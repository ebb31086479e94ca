"""How the workers of a group find each other: through files on one machine, else as Ray does."""

import os
import uuid
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.backend import Backend
from ray.train.torch import TorchConfig

from scaling.runner.own_ray import RENDEZVOUS_FOLDER
from scaling.spec.resources import Resources
from scaling.training.parallel.workers import join_group, leave_group

LEAVE_SECONDS = 30.0


def torch_config(resources: Resources) -> TorchConfig:
    """Gloo for tensors on CPU (control messages included), nccl for those on GPU.

    Two ranks on one GPU need gloo there too.
    """
    backend = "gloo"
    if resources.gpus_per_worker:
        on_gpu = "nccl" if resources.gpus_per_worker >= 1 else "gloo"
        backend = f"cpu:gloo,cuda:{on_gpu}"
    folder = os.environ.get(RENDEZVOUS_FOLDER)
    return TorchConfig(backend) if folder is None else FileTorchConfig(backend, folder=folder)


@dataclass
class FileTorchConfig(TorchConfig):
    """A process group whose ranks meet in a file: torch's own server listens on all interfaces.

    Attributes:
        folder: Of the files, one a group, on the one machine that all ranks are on.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type[Backend]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What Ray Train asks to make and end the group."""
        return _FileBackend


class _FileBackend(Backend):
    """Ray Train's hooks around a worker group, run where its controller is."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Make the process group; each start of the worker group has a file of its own."""
        address = f"file://{backend_config.folder}/{uuid.uuid4().hex}"
        ray.get(worker_group.execute_async(_join, backend_config.backend, address))

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """End it; ranks that wait for one that is gone are not waited for."""
        ray.wait(worker_group.execute_async(leave_group), timeout=LEAVE_SECONDS)


def _join(backend: str, address: str) -> None:
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
    }
    join_group(backend, address, rank=rank, world_size=world_size)
