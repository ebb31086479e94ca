"""What a rank left queued when it raised does not reach the next trial."""

import time

import pytest
import torch
import torch.distributed as dist

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation
from scaling.spec.resources import Strategy
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training.loop import train
from scaling.training.parallel.workers import Meeting, Workers
from scaling.training.supervision import Directive
from tests.recipes import changed, pronunciation, recipe
from tests.together import case, on_workers

EVALUATION = Evaluation(every_steps=2, num_examples=21)


def losses_of(task: Task, how: Recipe, workers: Workers, *, raises_at: int | None) -> list[float]:
    """Losses of a run in which, after some step, the last rank queues a sum and raises."""
    losses: list[float] = []

    def report(measurement: Measurement, *, at_rung: bool) -> Directive:
        del at_rung
        assert measurement.validation_loss is not None
        losses.append(measurement.validation_loss)
        if measurement.step == raises_at and workers.rank == 1:
            seven = torch.full((1,), 7.0, dtype=torch.float64)  # as a directive is agreed on
            queued = dist.all_reduce(seven, async_op=True)
            assert queued is not None
            raise RuntimeError("no more")
        return "continue"

    train(task, how, EVALUATION, workers, report)
    return losses


def train_after_an_error(workers: Workers, strategy: Strategy) -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    how = changed(recipe(8, 1e-2, 6, world_size=2), strategy=strategy)
    meeting = Meeting()
    expected = losses_of(task, how, workers, raises_at=None)
    for group in (1, 2):
        started = time.monotonic()
        error = ""
        try:
            losses_of(task, how, workers, raises_at=2)
        except Exception as raised:  # noqa: BLE001  # of the other rank whatever it comes to
            error = str(raised)
        with case(strategy, group, error):
            assert (error == "no more") == (workers.rank == 1)
            assert error
            assert meeting.leave()
            assert time.monotonic() - started < 60  # the other did not wait for its time limit
            meeting.join(group, workers)
            assert losses_of(task, how, workers, raises_at=None) == expected


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "tp"])
def test_the_next_trial_equals_an_undisturbed_one(strategy: Strategy) -> None:
    on_workers(train_after_an_error, strategy)
