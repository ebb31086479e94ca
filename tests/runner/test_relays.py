"""Tune's processes for trials: one that has ended waits until those of others have started."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

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


_AT_A_RUNG = """
import sys, threading
from pathlib import Path
import ray
from scaling.runner.broker import Broker
from scaling.runner.cluster import connect, disconnect
from scaling.runner.relay import relay
from tests.runner.broker_calls import job

connect(None, Path(sys.argv[1]))
broker = ray.remote(Broker).options(name="broker", num_cpus=0, max_concurrency=10).remote()
for trial in ("first", "second"):
    ray.get(broker.expect.remote(trial))
config = {"broker": "broker", "job": job("first", 1)}
threading.Thread(target=relay, args=(config,), daemon=True).start()
ray.get(broker.hello.remote("slot", "a", 0, 1, None, "node"))
ray.get(broker.next_job.remote("slot", "a", 0, 0))
measured = {"kind": "measured", "measurements": [], "at_rung": True}
judged = broker.report.remote("first", 1, measured, True)
assert ray.wait([judged], timeout=2)[0] == []
submitted = broker.submit.remote(job("second", 1))
assert ray.get(judged, timeout=30) == "continue"
disconnect()
print("judged")
"""


@pytest.mark.slow
@pytest.mark.ray
def test_a_trial_is_not_judged_before_those_that_tune_is_starting_have_begun(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AT_A_RUNG, str(tmp_path / "ray.log")],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "judged"), done.stderr
