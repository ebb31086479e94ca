"""The broker's promises, without Ray: who gets a job, and what a lost group means."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from scaling.runner import broker as broker_module
from scaling.runner.broker import MAX_ATTEMPTS, Broker
from tests.recipes import recipe

RECIPE = recipe(4, 0.1, 3)


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(coroutine, 20))


async def group(broker: Broker, incarnation: str = "a", size: int = 2, slot: str = "s") -> None:
    for rank in range(size):
        await broker.hello(slot, incarnation, rank, size, "cpu")


async def kinds(broker: Broker, key: str) -> list[str]:
    return [event["kind"] for event in await broker.next_events(key, 0, 1.0)]


def test_all_ranks_get_the_job_and_leave_together() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker)
        assert await broker.submit("job", RECIPE, False)
        jobs = [await broker.next_job("s", "a", rank, 0) for rank in range(2)]
        assert jobs[0] == jobs[1]
        assert jobs[0] is not None
        assert not await broker.report("job", 1, {"kind": "measured"})
        verdicts = await asyncio.gather(
            *(broker.leave("s", "a", "job", rank, None) for rank in range(2))
        )
        assert verdicts == ["clean", "clean"]
        assert await kinds(broker, "job") == ["started", "measured", "ended"]

    run(story())


def test_a_trial_waits_for_a_free_group() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        assert await broker.submit("one", RECIPE, False)
        waiting = asyncio.create_task(broker.submit("two", RECIPE, False))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await broker.next_job("s", "a", 0, 0)
        await broker.leave("s", "a", "one", 0, None)
        assert await waiting
        second = await broker.next_job("s", "a", 0, 1)
        assert second is not None
        assert second.key == "two"

    run(story())


def test_an_error_on_all_ranks_fails_the_job_and_keeps_the_group() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker)
        await broker.submit("job", RECIPE, False)
        verdicts = await asyncio.gather(
            *(broker.leave("s", "a", "job", rank, "ValueError: no") for rank in range(2))
        )
        assert verdicts == ["clean", "clean"]
        [*_, last] = await broker.next_events("job", 0, 1.0)
        assert last == {"kind": "failed", "error": "ValueError: no"}
        assert await broker.submit("next", RECIPE, False)

    run(story())


def test_one_rank_that_does_not_come_back_makes_the_group_dirty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(vars(broker_module), "EXIT_TIMEOUT_SECONDS", 0.05)

    async def story() -> None:
        broker = Broker()
        await group(broker)
        await broker.submit("job", RECIPE, False)
        assert await broker.leave("s", "a", "job", 0, "RuntimeError: gloo") == "dirty"
        # The group is started anew and the job is served again, as a further attempt.
        await group(broker, "b")
        again = await broker.next_job("s", "b", 0, 0)
        assert again is not None
        assert (again.key, again.attempt) == ("job", 2)
        # What the lost group still sends is not taken.
        assert await broker.report("job", 1, {"kind": "measured"})
        assert await kinds(broker, "job") == ["started"]
        # What the survivor of the lost group saw does not decide the second attempt.
        await asyncio.gather(*(broker.leave("s", "b", "job", rank, None) for rank in range(2)))
        assert await kinds(broker, "job") == ["started", "ended"]

    run(story())


def test_a_slot_that_ends_for_good_fails_its_job_and_releases_who_waits() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        await broker.submit("job", RECIPE, False)
        waiting = asyncio.create_task(broker.submit("next", RECIPE, False))
        await asyncio.sleep(0.05)
        await broker.slot_ended("s", "no more restarts")
        [*_, last] = await broker.next_events("job", 0, 1.0)
        assert last == {"kind": "failed", "error": "no more restarts"}
        assert not await waiting

    run(story())


def test_a_job_that_kills_every_group_fails_with_the_first_error() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, "0", size=1)
        await broker.submit("job", RECIPE, False)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            await group(broker, str(attempt), size=1)
        [*_, last] = await broker.next_events("job", 0, 1.0)
        assert last["kind"] == "failed"
        assert "died" in last["error"]
        assert await broker.submit("next", RECIPE, False)

    run(story())


def test_a_cancelled_job_is_told_at_its_next_report() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        await broker.submit("job", RECIPE, False)
        await broker.cancel("job")
        assert await broker.report("job", 1, {"kind": "measured"})

    run(story())


def test_closing_ends_ranks_and_trials_that_wait() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        rank = asyncio.create_task(broker.next_job("s", "a", 0, 0))
        other = Broker()
        trial = asyncio.create_task(other.submit("job", RECIPE, False))
        await asyncio.sleep(0.05)
        await broker.close()
        await other.close()
        assert await rank is None
        assert not await trial

    run(story())
