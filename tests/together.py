"""Processes that train one trial together, as tests start them."""

import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from scaling.training.parallel.workers import Workers, join_group, leave_group
from tests.forked import start_workers


def on_workers(
    work: Callable[..., Any], *args: Any, world_size: int = 2, backend: str = "gloo"
) -> Any:
    """Run `work(workers, *args)` in as many processes as there are workers.

    Returns:
        What it returned to the first worker: tensors, numbers, texts, lists and mappings.

    Raises:
        ProcessRaisedException: With a worker's traceback; `case` names what it was at.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/result.pt"
        given = (world_size, backend, address, path, work, args)
        start_workers(_worker, args=given, nprocs=world_size)
        return torch.load(path, weights_only=False)


def _worker(
    rank: int,
    world_size: int,
    backend: str,
    address: str,
    path: str,
    work: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    torch.set_num_threads(1)
    join_group(backend, address, rank=rank, world_size=world_size)
    result = work(Workers(rank, world_size), *args)
    if rank == 0:
        torch.save(result, path)
    torch.distributed.barrier()  # nobody needs the first one's store any more
    leave_group()
    # DeepSpeed and DTensor's caches keep groups, whose threads would run on while the interpreter
    # ends; one that then lets go of a tensor ends the process by SIGABRT.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


@contextmanager
def case(*names: object) -> Iterator[None]:
    """Name what is tested in the block: in its error, and in the output of a process that dies."""
    name = "case: " + ", ".join(map(str, names))
    print(name, file=sys.stderr, flush=True)
    try:
        yield
    except BaseException as error:
        error.add_note(name)
        raise
