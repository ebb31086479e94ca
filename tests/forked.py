"""Processes forked from a server that has imported torch, Ray and MLflow already.

Each begins as one of its own would after ten seconds of imports, and inherits nothing of a test.
"""

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.preloaded"])


def start_workers(function: Callable[..., None], args: tuple[Any, ...], nprocs: int) -> None:
    """Run `function(rank, *args)` in so many processes and wait for them.

    Raises:
        torch.multiprocessing.ProcessException: If one of them fails, with its traceback.
    """
    mp.start_processes(function, args=args, nprocs=nprocs, start_method="forkserver")
