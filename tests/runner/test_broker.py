"""The broker's promises, without Ray: who gets a job, and how its ranks leave it."""

import asyncio
from dataclasses import replace

import pytest

from scaling.runner import broker as broker_module
from scaling.runner.broker import MAX_ATTEMPTS, Broker
from scaling.runner.jobs import RankError
from tests.runner.broker_calls import (
    ERROR,
    MICRO_BATCH_OF_2,
    NO_MEMORY,
    events,
    given,
    group,
    job,
    kinds,
    leave,
    run,
)


def test_all_ranks_get_the_job_and_leave_together() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker)
        assert await broker.submit(job())
        assert await given(broker, rank=0) == await given(broker, rank=1)
        assert await broker.report("job", 1, {"kind": "measured"}) == "continue"
        assert await leave(broker, "job", None, None) == ["clean", "clean"]
        assert await kinds(broker) == ["started", "measured", "ended"]

    run(story())


def test_a_trial_waits_for_a_free_group() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        assert await broker.submit(job("one", 1))
        waiting = asyncio.create_task(broker.submit(job("two", 1)))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await given(broker)
        await leave(broker, "one", None)
        assert await waiting
        assert (await given(broker, after=1)).job.trial_id == "two"

    run(story())


def test_trials_of_different_sizes_share_the_groups() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=2, slot="pair")
        await group(broker, size=1, slot="single")
        # The small one leaves the pair to who needs it.
        assert await broker.submit(job("small", 1))
        assert await broker.submit(job("large", 2))
        assert (await given(broker, slot="single")).job.trial_id == "small"
        assert (await given(broker, rank=1, slot="pair")).job.trial_id == "large"
        # With nothing larger waiting, the pair serves a small one on its first rank alone.
        await leave(broker, "large", None, None, slot="pair")
        assert await broker.submit(job("third", 1))
        assert (await given(broker, after=1, slot="pair")).job.trial_id == "third"
        idle = asyncio.create_task(broker.next_job("pair", "a", 1, 1))
        assert await leave(broker, "third", None, slot="pair") == ["clean"]
        await asyncio.sleep(0.05)
        assert not idle.done()
        # A freed pair goes to the largest trial that waits, although another came first.
        assert await broker.submit(job("fourth", 1))
        waiting = [
            asyncio.create_task(broker.submit(job(name, size)))
            for name, size in (("fifth", 1), ("sixth", 2))
        ]
        await asyncio.sleep(0.05)
        await leave(broker, "fourth", None, slot="pair")
        await waiting[1]
        assert not waiting[0].done()
        assert (await given(broker, rank=1, after=1, slot="pair")).job.trial_id == "sixth"
        for task in (idle, waiting[0]):
            task.cancel()

    run(story())


def test_the_cause_is_the_error_that_others_followed_from() -> None:
    async def story() -> None:
        followed = RankError("Traceback\nWorkerGoneError: left", followed=True)
        for cause, first in ((ERROR, followed), (MICRO_BATCH_OF_2, ERROR)):
            broker = Broker()
            await group(broker)
            await broker.submit(job())
            assert await leave(broker, "job", first, cause) == ["clean", "clean"]
            [_, event] = await events(broker)
            expected = "ValueError: no" if cause is ERROR else None
            assert event["incident"].get("cause") == expected

    run(story())


def test_a_job_that_raises_on_all_ranks_is_served_again_by_the_same_group() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker)
        await broker.submit(job())
        assert await leave(broker, "job", ERROR, ERROR) == ["clean", "clean"]
        assert (await given(broker, after=1)).attempt == 2
        restarted = {"kind": "restarted", "attempt": 2, "cause": "ValueError: no"}
        assert (await events(broker))[1:] == [{"kind": "incident", "incident": restarted}]
        for _ in range(MAX_ATTEMPTS - 1):
            assert await leave(broker, "job", ERROR, ERROR) == ["clean", "clean"]
        assert (await events(broker))[-1] == {"kind": "failed", "error": ERROR.traceback}
        assert await broker.submit(job("next"))

    run(story())


def test_one_rank_that_does_not_come_back_makes_the_group_dirty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(vars(broker_module), "EXIT_TIMEOUT_SECONDS", 0.05)

    async def story() -> None:
        broker = Broker()
        await group(broker)
        await broker.submit(job())
        assert await leave(broker, "job", ERROR) == ["dirty"]
        # The group is started anew and the job is served again, as a further attempt.
        await group(broker, "b")
        again = await given(broker, "b")
        assert (again.job.trial_id, again.attempt) == ("job", 2)
        # What the lost group still sends is not taken.
        assert await broker.report("job", 1, {"kind": "measured"}) == "stop"
        restarted = {"kind": "restarted", "attempt": 2, "cause": "ValueError: no"}
        assert (await events(broker))[1:] == [{"kind": "incident", "incident": restarted}]
        # What the survivor of the lost group saw does not decide the second attempt.
        assert await leave(broker, "job", None, None, incarnation="b") == ["clean", "clean"]
        assert (await kinds(broker))[-1] == "ended"

    run(story())


def test_memory_running_out_on_all_ranks_is_tried_again_with_half_the_micro_batch() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker)
        await broker.submit(job(batch=4))
        assert (await given(broker)).micro_batch_size == 2
        left = await leave(broker, "job", MICRO_BATCH_OF_2, MICRO_BATCH_OF_2)
        assert left == ["clean", "clean"]
        again = await given(broker, after=1)
        assert (again.attempt, again.micro_batch_size) == (2, 1)
        incident = {"kind": "out_of_memory", "micro_batch_size": 1}
        assert (await events(broker))[-1] == {"kind": "incident", "incident": incident}
        # One example cannot be cut.
        one = replace(NO_MEMORY, too_large=1)
        await leave(broker, "job", one, one)
        assert (await kinds(broker))[-1] == "failed"

    run(story())


def test_memory_running_out_on_one_rank_is_tried_again_by_the_next_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(vars(broker_module), "EXIT_TIMEOUT_SECONDS", 0.05)

    async def story() -> None:
        broker = Broker()
        await group(broker)
        await broker.submit(job(batch=6))
        # The other rank saw its peer leave the collective: an effect and not the cause.
        no_memory = replace(NO_MEMORY, too_large=3)
        assert await leave(broker, "job", ERROR, no_memory) == ["clean", "clean"]
        assert (await given(broker, after=1)).micro_batch_size == 1  # half of 3 divides nothing
        assert await broker.leave("s", "a", "job", 0, None) == "dirty"
        await group(broker, "b")
        assert (await given(broker, "b")).micro_batch_size == 1

    run(story())


def test_what_fitted_is_where_later_trials_begin() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker)
        await broker.submit(job("first", batch=32))
        assert (await given(broker)).micro_batch_size == 16
        # The worker had bounded it by its own memory, to no avail.
        await leave(broker, "first", ERROR, replace(NO_MEMORY, too_large=8))
        assert (await given(broker, after=1)).micro_batch_size == 4
        await leave(broker, "first", None, None)
        begins = {24: 4, 6: 3, 2: 1}  # of 12, 3 and 1 examples a worker
        for number, (batch, micro_batch_size) in enumerate(begins.items()):
            await broker.submit(job(f"job{batch}", batch=batch))
            assignment = await given(broker, after=2 + number)
            assert assignment.micro_batch_size == micro_batch_size
            await leave(broker, f"job{batch}", None, None)
        # One worker holds other parts of a batch, and adapters make another model.
        await broker.submit(job("alone", 1, batch=32))
        assert (await given(broker, after=5)).micro_batch_size == 32
        # What a worker found by itself counts too.
        incident = {"kind": "out_of_memory", "step": 3, "micro_batch_size": 8}
        await broker.report("alone", 1, {"kind": "incident", "incident": incident})
        await leave(broker, "alone", None)
        await broker.submit(job("alone too", 1, batch=32))
        assert (await given(broker, after=6)).micro_batch_size == 8

    run(story())


def test_memory_that_a_smaller_micro_batch_takes_too_ends_the_trial_at_once() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker)
        await broker.submit(job(batch=32))
        await leave(broker, "job", ERROR, NO_MEMORY)
        assert (await events(broker))[1:] == [{"kind": "failed", "error": NO_MEMORY.traceback}]

    run(story())


def test_losses_that_were_remedied_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(broker_module), "EXIT_TIMEOUT_SECONDS", 0.05)
    no_memory = replace(NO_MEMORY, too_large=16)

    async def story() -> None:
        broker = Broker()
        await group(broker)
        await broker.submit(job(batch=32))
        assert await leave(broker, "job", no_memory) == ["dirty"]
        await group(broker, "b")
        assert await broker.num_excused("s") == 1
        assert (await given(broker, "b")).micro_batch_size == 8
        assert await leave(broker, "job", ERROR, incarnation="b") == ["dirty"]
        await group(broker, "c")
        assert await broker.num_excused("s") == 1
        # The last loss that Ray Train allows: the group that comes then takes the job from here.
        assert await leave(broker, "job", replace(no_memory, too_large=8), incarnation="c") == [
            "dirty"
        ]
        await broker.group_lost("s")
        assert await broker.num_excused("s") == 2
        await group(broker, "d")
        assert (await given(broker, "d")).micro_batch_size == 4

    run(story())


def test_after_an_error_the_ranks_meet_in_another_process_group() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=4)
        groups: list[int] = []

        async def run_one(name: str, world_size: int, *, fails: bool = False) -> None:
            await broker.submit(job(name, world_size, batch=8))
            assignments = [
                await given(broker, rank=rank, after=len(groups)) for rank in range(world_size)
            ]
            assert len({assignment.group for assignment in assignments}) == 1
            groups.append(assignments[0].group)
            errors = [replace(ERROR, traceback=f"of {rank}") for rank in range(world_size)]
            await leave(broker, name, *(errors if fails else [None] * world_size))

        await run_one("first", 4)
        await run_one("alone", 1)
        await run_one("again", 4)
        assert groups == [0, 0, 0]
        await run_one("fails", 4, fails=True)
        await broker.cancel("fails")
        await leave(broker, "fails", *[None] * 4)
        groups.append(0)  # its second attempt
        await run_one("after it", 4)
        assert groups[-1] > 0
        # Of half the ranks, and of all again: who was idle must not be in an older group.
        await run_one("half", 2)
        await run_one("half again", 2)
        await run_one("whole", 4)
        assert groups[-4] < groups[-3] == groups[-2] < groups[-1]

    run(story())


def test_a_slot_that_ends_for_good_fails_its_job_and_releases_who_waits() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        await broker.submit(job("job", 1))
        waiting = asyncio.create_task(broker.submit(job("next", 1)))
        await asyncio.sleep(0.05)
        await broker.slot_ended("s", "no more restarts")
        assert (await events(broker))[-1] == {"kind": "failed", "error": "no more restarts"}
        assert not await waiting

    run(story())


def test_a_trial_that_no_slot_is_left_for_fails() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=2, slot="pair")
        await group(broker, size=1, slot="single")
        await broker.submit(job("running", 2))
        waiting = asyncio.create_task(broker.submit(job("large", 2)))
        await asyncio.sleep(0.05)
        await broker.slot_ended("pair", "no more restarts")
        assert await waiting
        assert await kinds(broker, "large") == ["failed"]
        assert await broker.submit(job("small", 1))

    run(story())


def test_a_job_that_kills_every_group_fails_with_the_cause() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, "0", size=1)
        await broker.submit(job("job", 1))
        for attempt in range(1, MAX_ATTEMPTS + 1):
            await group(broker, str(attempt), size=1)
        last = (await events(broker))[-1]
        assert last["kind"] == "failed"
        assert last["error"].startswith("its worker processes died")
        assert last["error"].endswith(f"{MAX_ATTEMPTS} times")
        assert await broker.submit(job("next", 1))

    run(story())


def test_at_a_rung_the_worker_waits_for_the_decision() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        await broker.submit(job("job", 1))
        for trial_stops in (False, True):
            asked = asyncio.create_task(broker.report("job", 1, {"kind": "measured"}, True))
            await asyncio.sleep(0.05)
            assert not asked.done()
            if trial_stops:
                await broker.cancel("job")
                assert await asked == "stop"
            else:
                await broker.acknowledge("job", len(await events(broker)))
                assert await asked == "continue"

    run(story())


def test_a_trial_whose_actor_died_takes_its_job_over() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        assert await broker.submit(job("job", 1))
        await broker.report("job", 1, {"kind": "measured"})
        assert await broker.submit(job("job", 1))
        assert await kinds(broker) == ["started", "measured"]
        await leave(broker, "job", None)
        assert await kinds(broker) == ["started", "measured", "ended"]
        assert await broker.submit(job("next", 1))

    run(story())


def test_a_cancelled_job_is_interrupted_and_then_forgotten() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        await broker.submit(job("job", 1))
        interruption = asyncio.create_task(broker.interrupted("job", 1))
        await asyncio.sleep(0.05)
        assert not interruption.done()
        await broker.cancel("job")
        assert await interruption == "stop"
        await leave(broker, "job", None)
        assert await broker.report("job", 1, {"kind": "measured"}) == "stop"
        assert await broker.submit(job("job", 1))
        assert await kinds(broker) == ["started"]

    run(story())


def test_closing_pauses_running_jobs_and_ends_who_waits() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        rank = asyncio.create_task(broker.next_job("s", "a", 0, 1))
        await broker.submit(job("job", 1))
        trial = asyncio.create_task(broker.submit(job("next", 1)))
        interruption = asyncio.create_task(broker.interrupted("job", 1))
        await asyncio.sleep(0.05)
        await broker.close()
        assert await interruption == "pause"
        assert await rank is None
        assert not await trial

    run(story())


def test_workers_that_see_other_data_end_the_study_and_every_trial_hears_why() -> None:
    async def story() -> None:
        broker = Broker()
        await group(broker, size=1)
        await broker.submit(job("running", 1))
        waiting = asyncio.create_task(broker.submit(job("waiting", 1)))
        await asyncio.sleep(0.05)
        assert await broker.refusal() is None
        await broker.refuse("the data have changed")
        await broker.refuse("another reason")
        assert await broker.refusal() == "the data have changed"
        assert not await waiting
        refused = {"kind": "refused", "reason": "the data have changed"}
        assert refused in await events(broker, "running")
        assert await broker.report("running", 1, {"kind": "measured"}) == "pause"
        assert await broker.next_job("s", "a", 0, 1) is None

    run(story())
