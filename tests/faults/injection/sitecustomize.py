"""Faults inside the workers of a study under test; Python imports this at its start.

The folder is put on PYTHONPATH, and the environment variable FAULT holds JSON: `kind` (raise or
nan), `ranks`, `global_batch_size`, `step`, and `folder`, where each rank leaves a mark so that
the fault happens once. Nothing of this is part of the package.
"""

import contextlib
import importlib.abc
import importlib.machinery
import json
import os
import sys
from pathlib import Path

TARGET = "scaling.training.loop"


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


def install(module: object, fault: dict) -> None:
    """Let the loop's gradient fail where the fault says."""
    gradient = module._Run.gradient_that_fits

    def faulty(run: object, indices: object) -> object:
        if happens(fault, run):
            if fault["kind"] == "raise":
                raise RuntimeError("injected fault")
            parameter = next(run.setup.model.parameters())
            parameter.data.fill_(float("nan"))
        return gradient(run, indices)

    module._Run.gradient_that_fits = faulty


class Finder(importlib.abc.MetaPathFinder):
    """Finds the loop as ever, and patches it once it is loaded."""

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        if name != TARGET:
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
