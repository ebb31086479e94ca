"""What workers must agree on although their GPUs, or what they have seen, differ."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scaling.spec.evaluation import Evaluation
from scaling.tasks import text_task
from scaling.tasks.prepare import prepare_task
from scaling.training import supervision as supervision_module
from scaling.training.build import set_up
from scaling.training.evaluation import evaluate
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import EVALUATION, changed, pronunciation, recipe
from tests.together import case, on_workers
from tests.training.test_checkpoint import paused_often
from tests.training.test_own_modules import own_task, run


def evaluated_alike(workers: Workers) -> None:
    """Under tp each forward needs all workers, and one of them has less memory."""
    task: Any = prepare_task(pronunciation(), EVALUATION)
    setup = set_up(task, changed(recipe(8, 1e-2, 2), strategy="tp", world_size=2), workers)
    longest = int(task._sizes["validation"].predicted.max())
    of_one = longest * task.token_model.tokenizer.vocab_size * text_task.LOGIT_BYTES * 2
    text_task._free_bytes = lambda device: of_one * (20 - workers.rank) + 1
    least = text_task.shared_free_bytes(setup.model, torch.device("cpu"))
    assert workers.gather(least) == [19 * of_one + 1] * 2
    own = setup.parallel.data_workers
    loss = evaluate(task, setup.model, ["validation"], own, precision="fp32")["validation"].loss
    text_task._free_bytes = lambda device: None
    at_once = evaluate(task, setup.model, ["validation"], own, precision="fp32")["validation"].loss
    assert abs(loss - at_once) < 1e-5


class Normed(nn.Module):
    """Keeps running statistics of the examples that its worker has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.line = nn.BatchNorm1d(4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(self.norm(x))


def goes_on_with_the_same_statistics(workers: Workers, folder: str) -> None:
    task = own_task(Normed, accepts_inexact=True)
    how = changed(recipe(8, 0.1, 6, world_size=2, micro_batch_size=4), strategy="ddp", world_size=2)
    seldom = Evaluation(every_steps=2, num_examples=16)
    _, whole = run(task, how, Supervision(), seldom, workers)
    starts, parts, _ = paused_often(task, how, folder, seldom, workers)
    assert starts > 1
    for one, other in zip(whole, parts, strict=True):
        assert other.validation_loss == pytest.approx(one.validation_loss, rel=1e-6)


def keeps_one_copy(workers: Workers, folder: str) -> None:
    """Only the first worker builds it, in the host's memory."""
    task, built = own_task(), list[int]()
    new_model = task.new_model
    task.new_model = lambda *args, **options: built.append(1) or new_model(*args, **options)
    how = changed(recipe(8, 0.1, 2, world_size=2, micro_batch_size=4), strategy="fsdp")
    keeps = Supervision(model_folder=f"{folder}/kept")
    _, measurements = run(task, how, keeps, Evaluation(every_steps=2, num_examples=16), workers)
    first, second = workers.gather(len(built))
    assert first == second + 1
    if workers.rank == 0:
        model: Any = task.new_model(0)
        model.module.load_state_dict(torch.load(f"{folder}/kept/weights.pt", weights_only=True))
        loss = evaluate(task, model, ["validation"], workers.alone(), precision="fp32")
        assert loss["validation"].loss == pytest.approx(measurements[-1].validation_loss)


def unlike(workers: Workers, folder: str) -> None:
    """All cases."""
    supervision_module.CHECK_SECONDS = 0.0
    with case("tp"):
        evaluated_alike(workers)
    with case("statistics"):
        goes_on_with_the_same_statistics(workers, f"{folder}/statistics")
    with case("kept"):
        keeps_one_copy(workers, folder)


def test_workers_that_differ_evaluate_and_go_on_alike(tmp_path: Path) -> None:
    on_workers(unlike, str(tmp_path))
