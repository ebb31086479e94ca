"""Groups that the broker loses, or whose machine is taken back: what becomes of their jobs."""

import asyncio

import pytest

from scaling.runner.broker import MACHINE_LOST, MAX_ATTEMPTS, Broker
from tests.runner.broker_calls import (
    ERROR,
    events,
    given,
    group,
    job,
    kinds,
    leave,
    run,
)


def test_a_lost_group_s_job_is_the_first_that_another_group_gets() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1, slot="one")
        await broker.submit(job("running", 1))
        await group(broker, size=1, slot="two")
        await broker.submit(job("other", 1))
        waiting = asyncio.create_task(broker.submit(job("waiting", 1)))
        await asyncio.sleep(0.05)
        idle = asyncio.create_task(broker.next_job("one", "a", 0, 1))
        await broker.keep_placement_group("one", "what Ray keeps for it")
        assert await broker.group_lost("one") == "what Ray keeps for it"
        assert await broker.group_lost("one") is None
        # What may be left of the lost group ends, and is not listened to.
        assert await idle is None
        assert await broker.leave("one", "a", "running", 0, ERROR) == "dirty"
        assert await broker.report("running", 1, {"kind": "measured"}) == "stop"
        assert len(await broker.devices()) == 1
        assert not waiting.done()
        await leave(broker, "other", None, slot="two")
        again = await given(broker, slot="two", after=1)
        assert (again.job.trial_id, again.attempt) == ("running", 2)
        restarted = {
            "kind": "restarted", "attempt": 2, "cause": "the controller of its workers died",
        }  # fmt: skip
        assert {"kind": "incident", "incident": restarted} in await events(broker, "running")
        # The slot's next group takes the one that waited.
        await group(broker, "b", size=1, slot="one")
        assert await waiting
        assert (await given(broker, "b", slot="one")).job.trial_id == "waiting"

    run(story())


def test_a_group_may_be_lost_more_often_than_a_job_may_fail() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, "0", size=1)
        await broker.submit(job("job", 1))
        last = 2 * MAX_ATTEMPTS
        for number in range(1, last + 1):
            await broker.group_lost("s")
            await group(broker, str(number), size=1)
            assert (await given(broker, str(number))).attempt == number + 1
        assert await leave(broker, "job", None, incarnation=str(last)) == ["clean"]
        assert (await kinds(broker))[-1] == "ended"
        await broker.group_lost("unknown")

    run(story())


def test_a_broker_that_was_started_again_knows_neither_jobs_nor_groups() -> None:
    async def story() -> None:
        broker = Broker()
        assert await broker.next_events("job", 0, 0.01) is None
        assert await broker.next_job("s", "a", 0, 1) is None
        assert await broker.leave("s", "a", "job", 0, None) == "dirty"
        await broker.group_lost("s")
        await broker.cancel("job")
        # The trial submits its job again, and the group says hello again.
        waiting = asyncio.create_task(broker.submit(job()))
        await group(broker, "b")
        assert await waiting
        assert (await given(broker, "b")).job.trial_id == "job"

    run(story())


PAUSED = {"kind": "outcome", "status": "paused", "example_losses": {}}


def test_a_group_whose_machine_is_taken_back_saves_its_job_for_another_one() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker)
        assert await broker.submit(job())
        await given(broker)
        interrupted = asyncio.create_task(broker.interrupted("job", 1))
        await broker.vacate("s", "another incarnation")
        await asyncio.sleep(0)
        assert not interrupted.done()
        await broker.vacate("s", "a")
        assert await interrupted == "pause"
        # A rank that has not taken the job yet takes it, and leaves it with the others.
        assert await broker.next_job("s", "a", 1, 0) is not None
        assert await broker.report("job", 1, PAUSED) == "pause"
        assert await leave(broker, "job", None, None) == ["clean", "clean"]
        assert await broker.next_job("s", "a", 0, 1) is None
        assert await broker.next_job("s", "a", 1, 1) is None
        assert await broker.nodes() == {}

        await group(broker, "b", slot="other")
        assert (await given(broker, "b", slot="other")).attempt == 2
        assert await broker.report("job", 2, {"kind": "measured"}) == "continue"
        await leave(broker, "job", None, None, incarnation="b", slot="other")
        assert await kinds(broker) == ["started", "incident", "started", "measured", "ended"]
        [incident] = [e["incident"] for e in await events(broker) if e["kind"] == "incident"]
        assert incident["cause"] == "a machine of its workers is taken back"

    run(story())


def test_a_group_that_leaves_between_jobs_gets_none() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker)
        waiting = asyncio.create_task(broker.next_job("s", "a", 0, 0))
        await broker.vacate("s", "a")
        assert await waiting is None
        submitted = asyncio.create_task(broker.submit(job()))
        await asyncio.sleep(0.05)
        assert not submitted.done()
        await group(broker, "b", slot="other")
        assert await submitted

    run(story())


def test_a_machine_that_is_taken_back_or_lost_is_no_fault_of_its_group() -> None:
    async def story() -> None:
        broker = Broker()
        for number in range(12):
            await group(broker, f"left {number}", node=f"node {number}")
            for _ in range(2):  # each rank is asked
                await broker.vacate("s", f"left {number}")
            await broker.group_lost("s", MACHINE_LOST)  # and seen to be gone
            assert await broker.num_excused("s") == number + 1
        await group(broker, "b")
        await broker.group_lost("s", MACHINE_LOST)
        assert await broker.num_excused("s") == 13
        await group(broker, "c")
        await broker.group_lost("s")  # its controller died
        assert await broker.num_excused("s") == 13

    run(story())


def test_a_machine_that_asks_its_group_to_end_again_and_again_is_excused_once() -> None:
    """As a daemon does that looks after memory: else restarts would have no bound."""

    async def story() -> None:
        broker = Broker()
        for number in range(3):
            await group(broker, f"left {number}")
            await broker.vacate("s", f"left {number}")
            await broker.group_lost("s")
        assert await broker.num_excused("s") == 1

    run(story())


def test_a_trial_that_ends_while_its_group_leaves_has_ended() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker)
        assert await broker.submit(job())
        await given(broker)
        await broker.vacate("s", "a")
        await broker.report("job", 1, PAUSED | {"status": "done"})
        await leave(broker, "job", None, None)
        assert await kinds(broker) == ["started", "outcome", "ended"]

    run(story())


def test_a_job_that_fails_while_it_moves_is_not_moved_again() -> None:
    async def scenario() -> list[str]:
        broker = Broker()
        for slot in ("s", "other"):
            await group(broker, size=1, slot=slot)
        await broker.submit(job(world_size=1))
        await given(broker)
        await broker.vacate("s", "a")
        assert await broker.interrupted("job", 1) == "pause"
        await leave(broker, "job", ERROR)
        again = await given(broker, slot="other")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(broker.interrupted("job", again.attempt), 0.05)
        outcome = {"kind": "outcome", "status": "done", "example_losses": {}}
        assert await broker.report("job", again.attempt, outcome) == "continue"
        await leave(broker, "job", None, slot="other")
        return await kinds(broker)

    assert run(scenario()) == ["started", "incident", "started", "outcome", "ended"]
