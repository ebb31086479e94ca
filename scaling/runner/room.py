"""Room for worker groups on a cluster: what its machines have, what is free, what comes and goes.

A cluster that a study joins is seldom quiet: other jobs hold a part of it, `ray up` returns before
its workers are up, and machines come and go. So groups are started by what is free, the first one
that is ready trains, and more follow when there is room. An autoscaler is told once what the whole
study could use.
"""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.autoscaler.sdk import request_resources

from scaling.runner.preflight import StartError, num_workers_on, workers_on
from scaling.spec.resources import Resources

WAIT_SECONDS = 600.0
"""For a cluster that was joined, where the study does not say."""
POLL_SECONDS = 1.0
SAY_SECONDS = 30.0
"""Between two lines that say what is waited for."""


def wait_seconds(resources: Resources, *, is_joined: bool) -> float:
    """How long to wait for resources: a cluster that was started here has all it will have."""
    if not is_joined:
        return 0.0
    asked = resources.wait_for_resources_seconds
    return WAIT_SECONDS if asked is None else asked


def wait_for_room(resources: Resources, *, is_joined: bool, note: Callable[[str], None]) -> None:
    """Return when `min_slots` groups have room; says every half minute what is missing.

    Args:
        resources: What a trial needs.
        is_joined: Whether the cluster was there before, so that others may hold a part of it.
        note: Shows a line to the user.

    Raises:
        StartError: If there is none after `wait_seconds`.
    """
    seconds = wait_seconds(resources, is_joined=is_joined)
    start, said = time.monotonic(), -SAY_SECONDS
    while missing := _missing(resources, is_joined=is_joined):
        waited = time.monotonic() - start
        if waited >= seconds:
            raise StartError(missing + (_waited_words(seconds) if is_joined else ""))
        if waited - said >= SAY_SECONDS:
            said = waited
            what = _what(resources, resources.min_slots)
            note(f"waiting for {what}, {seconds - waited:.0f} s at most: {_free()}")
        time.sleep(POLL_SECONDS)


def worker_resources(resources: Resources) -> dict[str, float]:
    """What one worker reserves in Ray."""
    return {"CPU": resources.cpus_per_worker, "GPU": resources.num_gpus}


def ask_for_machines(resources: Resources) -> None:
    """Tell an autoscaler, where there is one, to make room for all groups of a study.

    One group without `max_slots`. It stays asked for until `let_machines_go`.
    """
    num_workers = _needed(resources) * (resources.max_slots or 1)
    held = {kind: amount for kind, amount in worker_resources(resources).items() if amount}
    request_resources(bundles=[held] * num_workers)


def let_machines_go() -> None:
    """Tell an autoscaler that nothing more is asked for."""
    request_resources(bundles=[])


def machines() -> list[dict[str, float]]:
    """What each machine of the cluster has."""
    return list(alive_nodes().values())


def num_gpus() -> float:
    """GPUs of all machines."""
    return sum(machine.get("GPU", 0.0) for machine in machines())


def alive_nodes() -> dict[str, dict[str, float]]:
    """The machines that Ray hears of, by its identifiers, and what each has."""
    nodes: list[dict[str, Any]] = ray.nodes()
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


def num_free(resources: Resources) -> int:
    """Workers that have room in what nobody holds; at most, since machines are added up."""
    return workers_on(ray.available_resources(), resources)


def num_groups_now(resources: Resources, num_workers: int, *, is_joined: bool) -> int:
    """Groups to start with: what fits, and on a joined cluster what is free, one at least."""
    fitting = num_workers_on(machines(), resources) // num_workers
    if is_joined:
        fitting = max(1, min(fitting, num_free(resources) // num_workers))
    return min(fitting, resources.max_slots or fitting)


def num_groups_more(resources: Resources, num_workers: int, num_groups: int) -> int:
    """How many groups would fit beside those that there are, all of which have their workers."""
    fitting = sum(workers_on(machine, resources) for machine in machines()) // num_workers
    most = min(fitting, resources.max_slots or fitting) - num_groups
    return max(0, min(most, num_free(resources) // num_workers))


def status_words(resources: Resources, *, num_ready: int, num_groups: int) -> str:
    """How many groups train, and what the others wait for."""
    ready = f"{num_ready} of {num_groups} worker groups ready"
    if num_ready == num_groups:
        return ready
    return f"{ready}; waiting for {_what(resources)}: {_free()}"


def _missing(resources: Resources, *, is_joined: bool) -> str:
    """Why a study has no room to start now; empty where it has.

    Nobody else holds a part of a cluster that has just been started here, and what is free on it
    is not known at once.
    """
    try:
        num_workers_on(machines(), resources)
    except StartError as error:
        return str(error)
    if not is_joined or num_free(resources) >= _needed(resources) * resources.min_slots:
        return ""
    return f"resources: the study needs {_what(resources, resources.min_slots)}; {_free()}"


def _needed(resources: Resources) -> int:
    return 1 if resources.num_workers == "auto" else resources.num_workers


def _what(resources: Resources, num_groups: int = 1) -> str:
    """What some groups need, in words."""
    count = _needed(resources) * num_groups
    amounts = ((kind, count * one) for kind, one in worker_resources(resources).items() if one)
    return " and ".join(f"{amount:g} {kind}{'s' * (amount != 1)}" for kind, amount in amounts)


def _free() -> str:
    """What nobody holds, of what there is."""
    free, has = ray.available_resources(), ray.cluster_resources()
    kinds = [kind for kind in ("CPU", "GPU") if has.get(kind)]
    known = (f"{free.get(kind, 0):g} of {has[kind]:g} {kind}s are free" for kind in kinds)
    return ", ".join(known) or "no machine has any"


def _waited_words(seconds: float) -> str:
    if seconds:
        return f" (after {seconds:.0f} s)"
    return "; resources.wait_for_resources_seconds: 600 would wait for them"
