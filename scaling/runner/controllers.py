"""Where the controllers of worker groups run: the driver's machine, and others when it is full.

Ray Train gives each group a controller, on the machine of whoever calls `fit`, and with it two
more processes there that train nothing. Many groups would fill the driver's machine, while the
machines that train have memory to spare. So beyond a share of its memory `fit` is called
elsewhere, from one process a machine. Whoever loses such a machine loses the groups whose
controllers it had too; they start anew, and their trials go on from the last checkpoint.
"""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
import ray.exceptions
import ray.train
from ray.train.torch import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from scaling.runner.preflight import workers_on
from scaling.runner.room import alive_nodes
from scaling.spec.resources import Resources

CONTROLLER_BYTES = 0.6e9
"""What a group may take of its controller's machine, with a margin (docs/reference/scale.md)."""
MOST_GROUPS = 1000


def away_from_the_head(resources: Resources) -> dict[str, str]:
    """Labels of the machines for what passes on a trial's events: any where the driver's trains.

    A head that trains nothing is sized for the controllers that have no other place.
    """
    here, nodes = ray.get_runtime_context().get_node_id(), alive_nodes()
    trains = {node for node, has in nodes.items() if workers_on(has, resources)}
    return {} if here in trains or not trains else {"ray.io/node-id": f"!{here}"}


class Controllers:
    """Calls `fit` for the groups of a pool, each on a machine with memory for its controller."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._here = ray.get_runtime_context().get_node_id()
        self._lock = threading.Lock()
        self._nodes: dict[str, str] = {}
        self._callers: dict[str, Any] = {}

    def fit(self, slot: str, trainer: TorchTrainer) -> None:
        """Run a slot's group to its end.

        Raises:
            ray.train.TrainingFailedError: As `fit` does.
            ray.exceptions.RayError: If the controller's machine or process is lost.
        """
        node = self._node_for(slot)
        if node == self._here:
            trainer.fit()
            return
        failed: ray.train.TrainingFailedError | None = ray.get(
            self._caller_on(node).fit.remote(trainer)
        )
        if failed is not None:
            raise failed

    def close(self) -> None:
        """End the processes that call `fit` elsewhere."""
        for caller in self._callers.values():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(caller)

    def _node_for(self, slot: str) -> str:
        with self._lock:
            self._nodes.pop(slot, None)
            held = Counter(self._nodes.values())
            nodes = alive_nodes()
            rooms = {node: workers_on(has, self._resources) for node, has in nodes.items()}
            num_here = int(nodes.get(self._here, {}).get("memory", 0) / CONTROLLER_BYTES)
            self._nodes[slot] = node = controller_node(self._here, num_here, rooms, held)
            return node

    def _caller_on(self, node: str) -> Any:
        with self._lock:
            if node not in self._callers:
                actor: Any = ray.remote(_Caller)
                self._callers[node] = actor.options(
                    num_cpus=0, max_concurrency=MOST_GROUPS, max_restarts=-1,
                    scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
                ).remote()  # fmt: skip
            return self._callers[node]


def controller_node(
    here: str, num_here: int, rooms: Mapping[str, int], held: Mapping[str, int]
) -> str:
    """The machine for one more controller.

    Args:
        here: The driver's machine.
        num_here: Controllers that it has memory for.
        rooms: Workers that each machine has room for.
        held: Controllers that each machine has; none where it is not named.

    Returns:
        The driver's, until it has so many. Then that of the others with the fewest for each of
        its workers; the driver's where no other machine trains.
    """
    others = [node for node, room in rooms.items() if room and node != here]
    if held.get(here, 0) < num_here or not others:
        return here
    return min(others, key=lambda node: ((held.get(node, 0) + 1) / rooms[node], node))


class _Caller:
    """Calls `fit` for groups, on the machine that it runs on."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(MOST_GROUPS)

    async def fit(self, trainer: TorchTrainer) -> ray.train.TrainingFailedError | None:
        """Run a group to its end; the error, which Ray would take for one of its own."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _fit, trainer)


def _fit(trainer: TorchTrainer) -> ray.train.TrainingFailedError | None:
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as failed:
        return failed
    return None
