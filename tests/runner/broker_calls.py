"""Calls to a broker without Ray, as groups of workers and trials make them."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from scaling.runner.broker import Broker
from scaling.runner.jobs import Assignment, Event, Job, RankError
from tests.recipes import recipe

ERROR = RankError("Traceback\nValueError: no")
NO_MEMORY = RankError("Traceback\nRuntimeError: can't allocate memory", out_of_memory=True)
MICRO_BATCH_OF_2 = replace(NO_MEMORY, too_large=2)


def job(name: str = "job", world_size: int = 2, batch: int = 4) -> Job:
    return Job(name, recipe(batch, 0.1, 3, world_size=world_size))


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def group(
    broker: Broker, incarnation: str = "a", size: int = 2, slot: str = "s", node: str = "node"
) -> None:
    for rank in range(size):
        await broker.hello(slot, incarnation, rank, size, "cpu", node)


async def given(
    broker: Broker, incarnation: str = "a", rank: int = 0, after: int = 0, slot: str = "s"
) -> Assignment:
    assignment = await broker.next_job(slot, incarnation, rank, after)
    assert assignment is not None
    return assignment


async def leave(
    broker: Broker,
    trial_id: str,
    *errors: RankError | None,
    incarnation: str = "a",
    slot: str = "s",
) -> list[str]:
    """One error, or None, for each rank that leaves."""
    return await asyncio.gather(
        *(broker.leave(slot, incarnation, trial_id, r, error) for r, error in enumerate(errors))
    )


async def events(broker: Broker, trial_id: str = "job") -> list[Event]:
    return await broker.next_events(trial_id, 0, 1.0) or []


async def kinds(broker: Broker, trial_id: str = "job") -> list[str]:
    return [event["kind"] for event in await events(broker, trial_id)]
