"""Padding to multiples changes neither a loss nor a gradient; vocabularies keep their ids."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from scaling.spec.workloads import Workload
from scaling.tasks.padding import padded_length, padded_vocabulary
from scaling.tasks.prepare import prepare_task
from scaling.tasks.text_task import TextTask
from scaling.training.evaluation import evaluate
from scaling.training.parallel.workers import Workers
from tests.recipes import (
    EVALUATION,
    part_of_speech,
    pronunciation,
    python_questions,
    spelling,
    tagging,
)


@pytest.mark.parametrize(
    ("length", "at_most", "expected"),
    [(1, 64, 8), (8, 64, 8), (9, 64, 16), (61, 64, 64), (57, 60, 57), (60, 60, 60), (30, 31, 30)],
)
def test_lengths(length: int, at_most: int, expected: int) -> None:
    assert padded_length(length, 8, at_most=at_most) == expected


@pytest.mark.parametrize(
    ("num_ids", "expected"),
    [(5, 5), (79, 79), (1023, 1023), (1024, 1024), (1025, 1088), (2000, 2048), (50257, 50304)],
)
def test_vocabularies(num_ids: int, expected: int) -> None:
    assert padded_vocabulary(num_ids) == expected


FAMILIES: list[Callable[[], Workload]] = [
    pronunciation, part_of_speech, tagging, python_questions, spelling,
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_stay(family: Callable[[], Workload]) -> None:
    task = prepare_task(family(), EVALUATION)
    assert isinstance(task, TextTask)
    model = task.new_model(0, dropout=0.0).double()
    found: list[tuple[Any, ...]] = []
    indices = np.argsort(task.lengths(np.arange(task.num_train)))[:6]  # there is room for more
    for multiple in (1, 16):
        padded = task.padded_to(multiple)
        batch = padded.collate(indices, 0)
        lengths = {entry.shape[1] for entry in batch.values() if entry.ndim == 2}
        model.zero_grad()
        loss = padded.loss_sum(model, batch)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        evaluated = evaluate(padded, model, ["validation"], Workers(), precision="fp32")
        found.append((lengths, loss.detach(), gradient, evaluated["validation"]))
    (short, loss, gradient, losses), (long, padded_loss, padded_gradient, padded_losses) = found
    assert max(long) > max(short)
    torch.testing.assert_close(padded_loss, loss, rtol=1e-9, atol=0)
    assert (padded_gradient - gradient).norm() / gradient.norm() < 1e-9
    np.testing.assert_allclose(padded_losses.loss_sums, losses.loss_sums, rtol=1e-9)
    np.testing.assert_array_equal(padded_losses.num_correct, losses.num_correct)
    assert padded_losses.predictions == losses.predictions
