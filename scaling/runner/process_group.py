"""How the workers of a group find each other: through a file on one machine, else by an address."""

import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil
import ray
import ray.exceptions
import ray.train
import ray.util
from ray.train.backend import Backend, BackendConfig

from scaling.runner import notice
from scaling.runner.own_ray import RENDEZVOUS_FOLDER
from scaling.spec.resources import Resources

_LEAVE_SECONDS = 5.0
_INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def torch_config(resources: Resources) -> Any:
    """How a worker group of these resources makes its process group: TorchTrainer's torch_config.

    It is no TorchConfig: to read one, a group's controller would load torch, which costs it 0.2 GB
    and seconds of processor time, and it computes nothing.
    """
    return GroupConfig(
        resources.backend,
        folder=os.environ.get(RENDEZVOUS_FOLDER),
        interface=resources.network_interface,
    )


@dataclass
class GroupConfig(BackendConfig):
    """A process group whose ranks meet in a file, or at an address of the first one's machine.

    A file where they can, since torch's own server listens on all interfaces.

    Attributes:
        backend: Of torch.distributed.
        folder: Of the files, one a group, on the one machine that all ranks are on; None where
            they are on several.
        interface: Network interface that they exchange data by; None leaves it open.
    """

    backend: str
    folder: str | None = None
    interface: str | None = None

    @property
    def backend_cls(self) -> type[Backend]:
        """What Ray Train asks to make and end the group."""
        return _GroupBackend


class _GroupBackend(Backend):
    """Ray Train's hooks around a worker group, run where its controller is."""

    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Make the process group; each start of the worker group meets in a place of its own."""
        if backend_config.folder is None:
            address = worker_group.execute_single(0, _free_address)
        else:
            address = f"file://{backend_config.folder}/{uuid.uuid4().hex}"
        given = backend_config.backend, address, backend_config.interface
        ray.get(worker_group.execute_async(_join, *given))

    def on_shutdown(self, worker_group: Any, backend_config: Any) -> None:
        """End it; ranks that wait for one that is gone are not waited for."""
        ray.wait(worker_group.execute_async(_leave), timeout=_LEAVE_SECONDS)


def _free_address() -> str:
    """Where this process can listen for the others."""
    host = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _join(backend: str, address: str, interface: str | None) -> None:
    notice.listen()
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
    }
    os.environ |= interface_variables(interface, ray.util.get_node_ip_address(), os.environ)
    from scaling.training.parallel.workers import join_group  # torch, see above

    join_group(backend, address, rank=rank, world_size=world_size)


def _leave() -> None:
    from scaling.training.parallel.workers import leave_group  # torch, see above

    leave_group()


def interface_variables(
    wanted: str | None, address: str, known: Mapping[str, str]
) -> dict[str, str]:
    """What gloo and NCCL read in the environment of the network interface to use.

    By themselves they take what the machine's name resolves to, which may be loopback, or the
    first interface that is up, which may be a container's bridge.

    Args:
        wanted: By the study file; None for the interface that has the address, where none is known.
        address: By which Ray knows this machine.
        known: The environment.

    Raises:
        ValueError: If this machine has no interface of the wanted name.
    """
    there = psutil.net_if_addrs()
    if wanted is not None:
        if wanted not in there:
            raise ValueError(
                f"resources.network_interface: {address} has no interface {wanted!r} "
                f"(allowed: {', '.join(sorted(there))})"
            )
        return dict.fromkeys(_INTERFACES, wanted)
    names = [name for name, its in there.items() if address in (each.address for each in its)]
    missing = [variable for variable in _INTERFACES if variable not in known]
    return dict.fromkeys(missing, names[0]) if names else {}
