"""One trial on the workers: from a recipe to events that the driver records."""

import time
from dataclasses import asdict, replace
from typing import Any, Protocol

from scaling.files.names import MODELS, file_name
from scaling.records.measurement import Measurement
from scaling.runner.jobs import Event, Job
from scaling.spec.study import StudySpec
from scaling.tasks.task import AnyTask, FinishedTask
from scaling.training.checkpoint import CheckpointStore
from scaling.training.finished import look_up
from scaling.training.loop import train
from scaling.training.memory.estimate import fitting_micro_batch_size
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Directive, Supervision

# Measurements are sent together when they come faster than this.
SEND_INTERVAL_SECONDS = 0.5


class Channel(Protocol):
    """A trial's line to whoever records it; every rank has one and uses it alike."""

    def send(self, event: Event, *, wait: bool = False) -> Directive:
        """Send an event; with `wait` the answer is the decision on it."""
        ...

    def directive(self) -> Directive:
        """What is wanted of the trial; the first rank's answer counts."""
        ...


class MeasurementSender:
    """Sends measurements in groups, so that frequent evaluation costs the loop nothing."""

    def __init__(self, channel: Channel, interval_seconds: float) -> None:
        self._channel = channel
        self._interval_seconds = interval_seconds
        self._unsent: list[dict[str, Any]] = []
        self._sent_at = 0.0

    def report(self, measurement: Measurement, *, at_rung: bool) -> Directive:
        """The loop's `report`."""
        self._unsent.append(asdict(measurement))
        if at_rung:
            return self.flush(at_rung=True)
        if time.monotonic() - self._sent_at < self._interval_seconds:
            return "continue"
        return self.flush()

    def flush(self, *, at_rung: bool = False) -> Directive:
        """Send what is left; `at_rung` waits for the decision on the last of them."""
        event = {"kind": "measured", "measurements": self._unsent, "at_rung": at_rung}
        self._unsent, self._sent_at = [], time.monotonic()
        return self._channel.send(event, wait=at_rung)


def run_trial(
    task: AnyTask,
    spec: StudySpec,
    job: Job,
    workers: Workers,
    channel: Channel,
    *,
    checkpoints: str,
    micro_batch_size: int,
    send_interval_seconds: float = SEND_INTERVAL_SECONDS,
) -> None:
    """Train by a recipe; send measurements and at last how it ended.

    Args:
        task: Prepared once, used by every trial of this process.
        spec: The study: when to evaluate, when to stop early, how often to save.
        job: What to train.
        workers: This process among the trial's.
        channel: Where events go.
        checkpoints: Folder or URL of this trial's checkpoints.
        micro_batch_size: The recipe's, or a smaller one after memory ran out.
        send_interval_seconds: Measurements that come faster are sent together. Must be 0 where
            sending is a collective, since the workers' clocks differ.
    """
    sender = MeasurementSender(channel, send_interval_seconds)
    saved = spec.checkpoints
    supervision = Supervision(
        early_stopping=spec.search.early_stopping if job.may_stop_early else None,
        checkpoints=CheckpointStore(checkpoints, keep=saved.keep) if saved else None,
        checkpoint_seconds=saved.every_seconds if saved else 0.0,
        directive=channel.directive,
        note=lambda incident: _note(channel, incident),
        model_folder=models_beside(checkpoints) if job.keep_model else None,
    )
    layout = job.recipe.layout
    share = job.recipe.hyperparameters.global_batch_size // layout.data_parallel_size
    layout = replace(
        layout, micro_batch_size=micro_batch_size, grad_accum_steps=share // micro_batch_size
    )
    recipe = replace(job.recipe, layout=layout)
    if isinstance(task, FinishedTask):
        outcome = look_up(task, recipe, sender.report)
    else:
        outcome = train(task, recipe, spec.evaluation, workers, sender.report, supervision)
    sender.flush()
    example_losses = {
        split: {"loss_sums": losses.loss_sums.tolist(), "num_targets": losses.num_targets.tolist()}
        for split, losses in outcome.example_losses.items()
    }
    channel.send(
        {
            "kind": "outcome",
            "status": outcome.status,
            "example_losses": example_losses if job.keep_example_losses else {},
        }
    )


def bounded_micro_batch_size(
    task: AnyTask, spec: StudySpec, job: Job, workers: Workers, *, at_most: int
) -> int:
    """A trial's micro-batch, within the memory of its workers' devices; called by all of them."""
    if isinstance(task, FinishedTask):
        return at_most
    return fitting_micro_batch_size(
        task, spec.workload, spec.resources, job.recipe, workers, at_most=at_most
    )


def _note(channel: Channel, incident: Any) -> None:
    channel.send({"kind": "incident", "incident": dict(incident)})


def models_beside(checkpoints: str) -> str:
    """Folder or URL of a trial's model, by that of its checkpoints: STORAGE/models/TRIAL."""
    storage, _, trial = checkpoints.rsplit("/", 2)
    return f"{storage}/{MODELS}/{trial}"


def checkpoints_of(root: str, trial_id: str) -> str:
    """Folder or URL of one trial's checkpoints, in a study's."""
    return f"{root}/{file_name(trial_id)}"
