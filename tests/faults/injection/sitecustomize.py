"""Faults inside the workers of a study under test; Python imports this at its start.

The folder is put on PYTHONPATH, and the environment variable FAULT holds JSON: `kind` (raise, nan,
memory, slow or no_restarts), `ranks`, `global_batch_size`, `step`, and `folder`, where each rank
leaves a mark so that the fault happens once. Of kind memory, these ranks run out of it with a
micro-batch above `fits`, each time, and the others wait for them as in a kernel of NCCL's; the pool
has no restart, as of kind no_restarts, where nothing else happens. Of kind slow, workers prepare
their data for `seconds`, longer than the `limit` of their start.
Nothing of this is part of the package.
"""

import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import sys
import time
from pathlib import Path

LOOP, POOL = "scaling.training.loop", "scaling.runner.worker_pool"
SERVING = "scaling.runner.serving"


def happens(fault: dict, run: object) -> bool:
    """Whether this rank's fault is due now; it is only once."""
    rank = run.workers.rank
    if (
        rank not in fault["ranks"]
        or run.recipe.hyperparameters.global_batch_size != fault["global_batch_size"]
        or run.progress.step != fault["step"]
    ):
        return False
    with contextlib.suppress(FileExistsError):
        Path(fault["folder"], f"fault-{rank}").touch(exist_ok=False)
        return True
    return False


def run_out(fault: dict, run: object) -> None:
    """What a rank does whose micro-batch is too large for one of them; it leaves a mark."""
    if run.setup.gradient.micro_batch_size <= fault["fits"]:
        return
    rank = run.workers.rank
    Path(fault["folder"], f"fault-{rank}-{time.time_ns()}").touch()
    if rank in fault["ranks"]:
        raise MemoryError("injected")
    time.sleep(3600)


def install(module: object, fault: dict) -> None:
    """Let the loop's gradient fail where the fault says."""
    if module.__name__ == POOL:
        if fault["kind"] in ("memory", "no_restarts"):
            module.MAX_GROUP_RESTARTS = 0
        elif fault["kind"] == "slow":
            module.START_TIMEOUT_SECONDS, module.NOTE_SECONDS = fault["limit"], 5.0
        return
    if module.__name__ == SERVING:
        if fault["kind"] == "slow":
            receive = module.received_tasks
            module.received_tasks = lambda *args: (time.sleep(fault["seconds"]), receive(*args))[1]
        return
    if fault["kind"] in ("slow", "no_restarts"):
        return
    gradient = module._Run.gradient_that_fits

    def faulty(run: object, indices: object) -> object:
        if fault["kind"] == "memory":
            run_out(fault, run)
        elif happens(fault, run):
            if fault["kind"] == "raise":
                raise RuntimeError("injected fault")
            parameter = next(run.setup.model.parameters())
            parameter.data.fill_(float("nan"))
        return gradient(run, indices)

    module._Run.gradient_that_fits = faulty


class Finder(importlib.abc.MetaPathFinder):
    """Finds the loop as ever, and patches it once it is loaded."""

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        if name not in (LOOP, POOL, SERVING):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def exec_module(module: object) -> None:
            load(module)
            install(module, json.loads(os.environ["FAULT"]))

        spec.loader.exec_module = exec_module
        return spec


if "FAULT" in os.environ:
    sys.meta_path.insert(0, Finder())
