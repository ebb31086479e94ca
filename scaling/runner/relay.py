"""A Tune trial on the pool: it submits a job and passes the job's events on to Tune.

This module imports no torch: a Tune actor that loads it starts in a second.
"""

import uuid
from typing import Any

import ray
from ray import tune

from scaling.records import Recipe
from scaling.runner.broker import Event

POLL_SECONDS = 10.0


def relay(config: dict[str, Any]) -> None:
    """Run one trial on whichever worker group is free first."""
    broker: Any = ray.get_actor(config["broker"])
    key = f"{config['trial_id']}-{uuid.uuid4().hex[:8]}"
    recipe = Recipe(**config["recipe"])
    if not ray.get(broker.submit.remote(key, recipe, config["keep_example_losses"])):
        raise RuntimeError("the worker pool was closed")
    num_seen = 0
    try:
        while True:
            events: list[Event] = ray.get(broker.next_events.remote(key, num_seen, POLL_SECONDS))
            num_seen += len(events)
            if events:
                tune.report({"events": events})
            if any(event["kind"] in ("ended", "failed") for event in events):
                return
    finally:
        ray.get(broker.cancel.remote(key))
