"""What worker groups cost the machine of the driver: processes, memory, processor time.

    python benchmarks/slots.py [--slots 1 10 20] [--head-memory 2e9]

A cluster on loopback: a head without CPUs of its own for trials, and two machines, all of which
are this one. On it run so many worker groups of one worker, which loads no torch and waits. They
are started as a study starts its own. Memory is proportional (PSS): a page that several processes
share counts in parts. The last line is JSON, for each number of groups.
"""

import argparse
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from typing import Any

import psutil
import ray
import ray.train
from ray.cluster_utils import Cluster
from ray.train.backend import BackendConfig
from ray.train.torch import TorchTrainer

from scaling.runner.cluster import WORKER_ENVIRONMENT
from scaling.runner.controllers import Controllers
from scaling.spec.resources import Resources

NUM_OTHERS = 2
START_SECONDS = 600.0


class Alone(BackendConfig):
    """No process group: the worker loads no torch."""

    backend = "none"


@ray.remote(num_cpus=0)
class Gate:
    """Counts the groups that have started, and holds them until it is opened."""

    def __init__(self) -> None:
        self._num_started, self._is_open = 0, False

    def start(self) -> None:
        """One more has started."""
        self._num_started += 1

    def num_started(self) -> int:
        """How many have."""
        return self._num_started

    def open(self) -> None:
        """Let all go."""
        self._is_open = True

    def is_open(self) -> bool:
        """Whether they may go."""
        return self._is_open


def wait_at(config: dict[str, Any]) -> None:
    """What the worker of each group runs."""
    gate: Any = config["gate"]
    ray.get(gate.start.remote())
    while not ray.get(gate.is_open.remote()):
        time.sleep(1.0)


def main() -> None:
    """Start so many groups at a time and look at the processes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 10, 20])
    parser.add_argument("--head-memory", type=float, default=2e9, help="of the head, in bytes")
    options = parser.parse_args()
    os.environ.update(WORKER_ENVIRONMENT)
    found = {}
    for count in options.slots:
        found[count] = measured(count, options.head_memory)
        print(f"{count} groups: {found[count]}", flush=True)
    print(json.dumps(found))


def measured(num_slots: int, head_memory: float) -> dict[str, Any]:
    """Seconds until all groups wait, and the processes of the head and of the others."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "memory": head_memory})
    for _ in range(NUM_OTHERS):
        cluster.add_node(num_cpus=-(-num_slots // NUM_OTHERS))
    with tempfile.TemporaryDirectory() as storage:
        ray.init(cluster.address, log_to_driver=False, runtime_env={"env_vars": WORKER_ENVIRONMENT})
        gate: Any = Gate.remote()
        controllers = Controllers(Resources(num_workers=1))
        before = processes(cluster)["head"]
        began = time.monotonic()
        threads = [
            threading.Thread(target=controllers.fit, args=(f"{n}", trainer(n, gate, storage)))
            for n in range(num_slots)
        ]
        for thread in threads:
            thread.start()
        while int(ray.get(gate.num_started.remote())) < num_slots:
            if time.monotonic() - began > START_SECONDS:
                raise SystemExit(f"not all of {num_slots} groups had started")
            time.sleep(0.5)
        seconds = time.monotonic() - began
        time.sleep(5.0)
        after = processes(cluster)
        ray.get(gate.open.remote())
        for thread in threads:
            thread.join()
        controllers.close()
        ray.shutdown()
    cluster.shutdown()
    head = {name: after["head"][name] - before[name] for name in ("megabytes", "cpu_seconds")}
    return {
        "seconds": round(seconds, 1),
        "head_megabytes_a_group": round(head["megabytes"] / num_slots),
        "head_cpu_seconds_a_group": round(head["cpu_seconds"] / num_slots, 1),
        "head": after["head"]["kinds"],
        "others": after["others"]["kinds"],
    }


def trainer(number: int, gate: Any, storage: str) -> TorchTrainer:
    """One group of one worker."""
    return TorchTrainer(
        wait_at,
        train_loop_config={"gate": gate},
        torch_config=Alone(),  # pyright: ignore[reportArgumentType]
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(name=f"slot{number}", storage_path=storage),
    )


def processes(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Of the head and of the others: memory, processor time, and how many of each kind."""
    raylets = {
        node.all_processes["raylet"][0].process.pid: "head" if node.head else "others"
        for node in cluster.list_all_nodes()
    }
    found: dict[str, dict[str, Any]] = {
        name: {"megabytes": 0.0, "cpu_seconds": 0.0, "kinds": defaultdict(list)}
        for name in ("head", "others")
    }
    for raylet, name in raylets.items():
        for process in psutil.Process(raylet).children(recursive=True):
            megabytes = process.memory_full_info().pss / 1e6
            times = process.cpu_times()
            kind = (process.cmdline() or ["?"])[0].split("(")[0].removeprefix("ray::").split(".")[0]
            found[name]["megabytes"] += megabytes
            found[name]["cpu_seconds"] += times.user + times.system
            found[name]["kinds"][kind].append(megabytes)
    for each in found.values():
        each["kinds"] = {
            kind: f"{len(all_)} of {sum(all_) / len(all_):.0f} MB"
            for kind, all_ in sorted(each["kinds"].items())
            if len(all_)
        }
    return found


if __name__ == "__main__":
    main()
