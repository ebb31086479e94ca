"""The Ray cluster that a study runs on: connecting, and how many trials fit at once."""

import gc
import logging
import os
from pathlib import Path
from typing import Any

import ray

from scaling.issues import first_line
from scaling.spec import Resources

# Ray Train's controller polls its workers every two seconds; a pool starts sooner with less.
_WORKER_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a study file's relative paths hold on the workers too
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
# Tune writes a CSV and a TensorBoard file a trial, and handles Ctrl-C on its own; we do both.
_DRIVER_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}


START_ATTEMPTS = 3


class ClusterError(RuntimeError):
    """The cluster cannot run this study; the message says what it has and what is needed."""


def connect(address: str | None, log_file: Path) -> None:
    """Start Ray on this machine, or join the cluster at `address` (or RAY_ADDRESS).

    What Ray itself logs goes to `log_file`.

    Raises:
        ClusterError: If there is no cluster at the address.
    """
    os.environ.update(_WORKER_ENVIRONMENT | _DRIVER_ENVIRONMENT)
    _log_to_file(log_file)
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(
                address=address,
                runtime_env={"env_vars": _WORKER_ENVIRONMENT},
                log_to_driver=False,
                configure_logging=False,
            )
        except (ConnectionError, ValueError) as error:
            raise ClusterError(
                f"cannot reach a Ray cluster at {address}: {first_line(error)}"
            ) from error
        except Exception as error:  # what Ray raises when a busy machine is slow
            disconnect()
            if attempt == START_ATTEMPTS:
                raise ClusterError(
                    f"Ray did not start on this machine: {first_line(error)}"
                ) from error
        else:
            return


def disconnect() -> None:
    """Leave the cluster; one that was started here ends.

    Ray ends the whole process, with status 1, where another thread lets go of one of its objects
    while it shuts down. Garbage collection does that in whichever thread it comes over.
    """
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()


def _log_to_file(log_file: Path) -> None:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    # ray.init gives the logger "ray" a handler of its own, so its children are named too.
    for name in ("ray", "ray._private", "ray.train", "ray.tune", "ray.data", "optuna"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False


def num_workers_that_fit(resources: Resources) -> int:
    """How many workers this cluster has room for.

    Raises:
        ClusterError: If that is not enough for one trial.
    """
    nodes: list[dict[str, Any]] = [node for node in ray.nodes() if node["Alive"]]
    fitting = sum(workers_on(node["Resources"], resources) for node in nodes)
    needed = 1 if resources.num_workers == "auto" else resources.num_workers
    if fitting < needed:
        cpus, gpus = (sum(n["Resources"].get(k, 0) for n in nodes) for k in ("CPU", "GPU"))
        raise ClusterError(
            f"the cluster cannot run one trial: {needed} workers of "
            f"{resources.cpus_per_worker:g} CPUs and {resources.gpus_per_worker:g} GPUs are asked "
            f"for, and {len(nodes)} nodes with {cpus:g} CPUs and {gpus:g} GPUs are there; "
            "lower resources.num_workers, cpus_per_worker or gpus_per_worker"
        )
    return fitting


def workers_on(node: dict[str, float], resources: Resources) -> int:
    """How many workers a node with these resources has room for.

    A worker with a share of a GPU has it on one GPU: two workers of 0.6 do not fit on 1.2.
    """
    limits = [_times(node.get("CPU", 0), resources.cpus_per_worker)]
    gpus, num_gpus = resources.gpus_per_worker, int(node.get("GPU", 0))
    if 0 < gpus < 1:
        limits.append(num_gpus * _times(1, gpus))
    elif gpus:
        limits.append(num_gpus // int(gpus))
    return min(limits)


def _times(whole: float, part: float) -> int:
    """How often a part goes into a whole, the error of floats aside: 0.1 goes into 0.3 thrice."""
    return int(whole / part + 1e-9)


def worker_resources(resources: Resources) -> dict[str, float]:
    """What one worker reserves in Ray."""
    return {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
