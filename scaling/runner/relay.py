"""A Tune trial on the pool: it submits a job and passes the job's events on to Tune.

This module imports no torch: a Tune actor that loads it starts in a second.
"""

import contextlib
import time
from typing import Any

import ray
import ray.exceptions
from ray import tune

from scaling.runner.jobs import Event, Job

POLL_SECONDS = 10.0
BROKER_TIMEOUT_SECONDS = 120.0  # for one that died to be there again
RETRY_SECONDS = 1.0
OTHERS_SECONDS = 10.0
"""For the relays of other trials to start, before one that has ended gives its process away."""


def relay(config: dict[str, Any]) -> None:
    """Run one trial on whichever worker group is free first.

    Where Tune stops the trial, `tune.report` raises SystemExit, and the job is told to stop.
    """
    broker: Any = ray.get_actor(config["broker"])
    job: Job = config["job"]
    while not _passed_on_to_its_end(broker, job):
        _wait_for(broker)
        incident = {"kind": "restarted", "cause": "the broker of the worker groups died"}
        tune.report({"events": [{"kind": "incident", "incident": incident}]})


def _wait_for(broker: Any) -> None:
    """Return when the broker, which Ray starts again, answers."""
    deadline = time.monotonic() + BROKER_TIMEOUT_SECONDS
    while True:
        try:
            ray.get(broker.refusal.remote())
            return
        except ray.exceptions.RayActorError:
            if time.monotonic() > deadline:
                raise
            time.sleep(RETRY_SECONDS)


def _wait_for_others(broker: Any) -> None:
    """Return when the relays of other trials have started, or that is taking too long.

    Tune gives the process of a trial that ends to one whose own is still starting, which it then
    ends, and starts one for the next trial: with short trials a process for each.
    """
    with contextlib.suppress(ray.exceptions.RayActorError):
        ray.get(broker.all_submitted.remote(OTHERS_SECONDS))


def _passed_on_to_its_end(broker: Any, job: Job) -> bool:
    """Submit a job and pass its events on to Tune; False where the broker died meanwhile."""
    num_acknowledged = 0
    try:
        if not ray.get(broker.submit.remote(job)):
            raise RuntimeError("the worker pool was closed")
        while True:
            events: list[Event] | None = ray.get(
                broker.next_events.remote(job.trial_id, num_acknowledged, POLL_SECONDS)
            )
            if events is None:
                return False
            if not events:
                continue
            if any(event["kind"] == "measured" and event["at_rung"] for event in events):
                _wait_for_others(broker)  # where Tune may stop the trial
            tune.report({"events": events})
            num_acknowledged += len(events)
            broker.acknowledge.remote(job.trial_id, num_acknowledged)
            if any(event["kind"] in ("ended", "failed") for event in events):
                _wait_for_others(broker)
                return True
    except ray.exceptions.RayActorError:
        return False
    finally:
        with contextlib.suppress(ray.exceptions.RayActorError):
            ray.get(broker.cancel.remote(job.trial_id))
