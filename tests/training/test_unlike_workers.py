"""What workers must agree on although their GPUs, or what they have seen, differ."""

from typing import Any

import torch

from scaling.tasks import text_task
from scaling.tasks.prepare import prepare_task
from scaling.training.build import set_up
from scaling.training.evaluation import evaluate
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION, changed, pronunciation, recipe
from tests.together import case, on_workers


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


def unlike(workers: Workers) -> None:
    """All cases."""
    with case("tp"):
        evaluated_alike(workers)


def test_workers_that_differ_evaluate_and_go_on_alike() -> None:
    on_workers(unlike)
