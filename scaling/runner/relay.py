"""A Tune trial on the pool: it submits a job and passes the job's events on to Tune.

This module imports no torch: a Tune actor that loads it starts in a second.
"""

from typing import Any

import ray
from ray import tune

from scaling.runner.broker import Event, Job

POLL_SECONDS = 10.0


def relay(config: dict[str, Any]) -> None:
    """Run one trial on whichever worker group is free first.

    Where Tune stops the trial, `tune.report` raises SystemExit, and the job is told to stop.
    """
    broker: Any = ray.get_actor(config["broker"])
    job: Job = config["job"]
    if not ray.get(broker.submit.remote(job)):
        raise RuntimeError("the worker pool was closed")
    num_told = 0
    try:
        while True:
            events: list[Event] = ray.get(
                broker.next_events.remote(job.trial_id, num_told, POLL_SECONDS)
            )
            if not events:
                continue
            tune.report({"events": events})
            num_told += len(events)
            broker.told.remote(job.trial_id, num_told)
            if any(event["kind"] in ("ended", "failed") for event in events):
                return
    finally:
        ray.get(broker.cancel.remote(job.trial_id))
