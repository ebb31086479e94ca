"""One trial on the workers: from a recipe to events that the driver records."""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from scaling.records import Measurement, Recipe
from scaling.spec import StudySpec
from scaling.tasks.task import Task
from scaling.training.loop import Directive, train
from scaling.training.parallel import Workers

Event = dict[str, Any]
Send = Callable[[Event], bool]

# Measurements are sent together when they come faster than this.
SEND_INTERVAL_SECONDS = 0.5


class MeasurementSender:
    """Sends measurements in groups, so that frequent evaluation costs the loop nothing."""

    def __init__(self, send: Send, interval_seconds: float) -> None:
        self._send = send
        self._interval_seconds = interval_seconds
        self._unsent: list[Event] = []
        self._sent_at = 0.0

    def report(self, measurement: Measurement) -> Directive:
        """The loop's `report`."""
        self._unsent.append(asdict(measurement))
        if time.monotonic() - self._sent_at < self._interval_seconds:
            return "continue"
        return self.flush()

    def flush(self) -> Directive:
        """Send what is left."""
        event = {"kind": "measured", "measurements": self._unsent}
        self._unsent, self._sent_at = [], time.monotonic()
        return "stop" if self._send(event) else "continue"


def run_trial(
    task: Task,
    spec: StudySpec,
    recipe: Recipe,
    workers: Workers,
    send: Send,
    *,
    keep_example_losses: bool,
    send_interval_seconds: float = SEND_INTERVAL_SECONDS,
) -> None:
    """Train by a recipe; send measurements and at last how it ended.

    Args:
        task: Prepared once, used by every trial of this process.
        spec: The study: when to evaluate.
        recipe: What to train.
        workers: This process among the trial's.
        send: Takes an event; True asks the trial to stop. Called on every rank.
        keep_example_losses: Send the losses of single evaluated examples with the last event.
        send_interval_seconds: Measurements that come faster are sent together. Must be 0 where
            sending is a collective, since the workers' clocks differ.
    """
    sender = MeasurementSender(send, send_interval_seconds)
    outcome = train(task, recipe, spec.evaluation, workers, sender.report)
    sender.flush()
    example_losses = {
        split: {"loss_sums": losses.loss_sums.tolist(), "num_targets": losses.num_targets.tolist()}
        for split, losses in outcome.example_losses.items()
    }
    send(
        {
            "kind": "outcome",
            "status": outcome.status,
            "example_losses": example_losses if keep_example_losses else {},
        }
    )
