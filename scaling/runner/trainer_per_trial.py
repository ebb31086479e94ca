"""The documented pattern: a Tune trial builds a TorchTrainer of its own.

Start-up costs tens of seconds a trial, so the pool is the default; this executor is for a trial
that needs a worker group to itself, and shows that the pool changes no result.
"""

from typing import Any

import ray.train
from ray import tune
from ray.train.torch import TorchTrainer, get_device
from ray.tune.integration.ray_train import TuneReportCallback

from scaling.records import Recipe
from scaling.runner.broker import Event
from scaling.runner.trial import run_trial
from scaling.runner.worker_pool import enter_folder, scaling_config, torch_config
from scaling.spec import StudySpec
from scaling.tasks.task import prepare_task
from scaling.training.parallel import Workers, use_threads


def train_alone(config: dict[str, Any]) -> None:
    """A Tune trial with its own worker group; its events reach Tune through Ray Train."""
    spec = StudySpec.model_validate_json(config["spec"])
    trainer = TorchTrainer(
        run_alone,
        train_loop_config=config,
        scaling_config=scaling_config(spec.resources),
        torch_config=torch_config(spec.resources),
        run_config=ray.train.RunConfig(
            name=config["trial_id"],
            storage_path=config["storage"],
            callbacks=[TuneReportCallback()],
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
    spec = StudySpec.model_validate_json(config["spec"])
    context = ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size(), get_device())

    def send(event: Event) -> bool:
        ray.train.report({"events": [event]})  # a collective: every rank calls it
        return False

    use_threads(max(1, int(spec.resources.cpus_per_worker)))
    send({"kind": "started"})
    run_trial(
        prepare_task(spec.workload, spec.evaluation), spec, Recipe(**config["recipe"]),
        workers, send, keep_example_losses=config["keep_example_losses"], send_interval_seconds=0.0,
    )  # fmt: skip
