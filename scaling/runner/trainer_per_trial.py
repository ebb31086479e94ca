"""The documented pattern: a Tune trial builds a TorchTrainer of its own.

Start-up costs tens of seconds a trial, so the pool is the default; this executor is for a trial
that needs a worker group to itself, and shows that the pool changes no result.
"""

from typing import Any

import ray.train
from ray import tune
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from scaling.runner.encoded_data import received_tasks
from scaling.runner.jobs import Event, Job
from scaling.runner.process_group import torch_config
from scaling.runner.serving import enter_folder, refusal_of, specs_of, workers_of
from scaling.runner.trial import bounded_micro_batch_size, checkpoints_of, run_trial
from scaling.runner.worker_pool import scaling_config
from scaling.spec.study import StudySpec
from scaling.training.supervision import Directive

MAX_GROUP_RESTARTS = 2  # a lost group goes on from the checkpoint


def train_alone(config: dict[str, Any]) -> None:
    """A Tune trial with its own worker group; its events reach Tune through Ray Train."""
    spec = StudySpec.model_validate_json(config["spec"])
    job: Job = config["job"]
    trainer = TorchTrainer(
        run_alone,
        train_loop_config=config,
        scaling_config=scaling_config(spec.resources, job.recipe.layout.world_size),
        torch_config=torch_config(spec.resources),
        run_config=ray.train.RunConfig(
            name=job.trial_id,
            storage_path=config["storage"],
            callbacks=[TuneReportCallback()],
            failure_config=ray.train.FailureConfig(max_failures=MAX_GROUP_RESTARTS),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        tune.report({"events": [{"kind": "failed", "error": str(error)}]})
    else:
        tune.report({"events": [{"kind": "ended", "error": None}]})


def run_alone(config: dict[str, Any]) -> None:
    """What each rank of the trial's worker group runs."""
    enter_folder(config["working_folder"])
    specs, job = specs_of(config), config["job"]
    spec = specs[job.size]
    workers = workers_of(spec.resources)
    channel = _Channel()
    tasks = received_tasks(specs, config["tasks"])
    reason = refusal_of(specs[0], tasks, config["content"], workers)
    if reason is not None:
        channel.send({"kind": "refused", "reason": reason})
        return
    channel.send({"kind": "started"})
    micro_batch_size = bounded_micro_batch_size(
        tasks[job.size], spec, job, workers, at_most=job.recipe.layout.micro_batch_size
    )
    run_trial(
        tasks[job.size], spec, job, workers, channel,
        checkpoints=checkpoints_of(config["checkpoints"], job.trial_id),
        micro_batch_size=micro_batch_size, send_interval_seconds=0.0,
    )  # fmt: skip


class _Channel:
    """See `scaling.runner.trial.Channel`; Ray Train tells a worker nothing back."""

    def send(self, event: Event, *, wait: bool = False) -> Directive:
        """Report to Ray Train, a collective: every rank calls it."""
        del wait
        ray.train.report({"events": [event]})
        return "continue"

    def directive(self) -> Directive:
        """To go on."""
        return "continue"
