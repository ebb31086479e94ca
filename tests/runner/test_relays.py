"""Tune's processes for trials: one that has ended waits until those of others have started."""

import asyncio

from scaling.runner.broker import Broker
from tests.runner.broker_calls import group, job, run


def test_a_trial_that_has_ended_waits_for_those_that_tune_is_starting() -> None:
    async def scenario() -> None:
        broker = Broker()
        await group(broker)
        await broker.expect("first")
        await broker.expect("second")
        await broker.submit(job("first"))
        waits = asyncio.create_task(broker.all_submitted(10.0))
        await asyncio.sleep(0.05)
        assert not waits.done()
        second = asyncio.create_task(broker.submit(job("second")))
        await asyncio.wait_for(waits, 5)
        second.cancel()

    run(scenario())


def test_a_trial_whose_relay_is_faster_than_the_driver_is_not_waited_for() -> None:
    async def scenario() -> None:
        broker = Broker()
        await group(broker)
        await broker.submit(job("first"))
        await broker.expect("first")
        await asyncio.wait_for(broker.all_submitted(100.0), 5)

    run(scenario())


def test_nobody_waits_again_for_trials_that_take_too_long_to_start() -> None:
    async def scenario() -> None:
        broker = Broker()
        await broker.expect("slow")
        await broker.all_submitted(0.01)
        await broker.expect("slow too")
        await asyncio.wait_for(broker.all_submitted(100.0), 5)

    run(scenario())


def test_trials_that_are_cancelled_are_not_waited_for() -> None:
    async def scenario() -> None:
        broker = Broker()
        await broker.expect("job")
        await broker.cancel("job")
        await asyncio.wait_for(broker.all_submitted(100.0), 5)

    run(scenario())
