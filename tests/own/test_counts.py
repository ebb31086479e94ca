"""Targets that only the loss tells are counted in each micro-batch of a global batch."""

from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

import scaling
from scaling.tasks.own.lightning_module import Losses, WrappedBatch, without_trainer
from scaling.tasks.own.module_task import ModuleTask
from scaling.training.build import parallelize
from scaling.training.gradient import GradientOfBatch
from scaling.training.parallel.workers import Workers
from tests.recipes import recipe


class Scale(LightningModule):
    """The mean over all targets of w · target, each of which is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def training_step(self, batch: list[torch.Tensor], number: int) -> torch.Tensor:
        return (torch.cat(batch) * self.w).mean()


def task() -> ModuleTask:
    """Four examples of 1, 2, 3 and 4 targets, whose loss is a mean over them."""
    data = [torch.ones(number + 1) for number in range(4)]
    count: Any = lambda batch: sum(map(len, batch))  # noqa: E731
    own = scaling.CustomTask(
        train=data, validation=data, losses=Losses(count),
        model=lambda seed: without_trainer(Scale()),
        collate=lambda examples: WrappedBatch(examples, len(examples)),
    )  # fmt: skip
    return ModuleTask(own, path="workload", num_examples=4, code_sha256="", by_mean=True)


@pytest.mark.parametrize("measure_noise", [False, True])
@pytest.mark.parametrize("batch", [[0, 1, 3, 0], [3, 0, 0, 0]])
def test_an_example_that_stands_twice_in_a_batch(batch: list[int], measure_noise: bool) -> None:
    own = task()
    model = own.new_model(0)
    split = recipe(len(batch), 1.0, 1, micro_batch_size=2)
    gradient = GradientOfBatch(own, parallelize(model, split, Workers()), split)
    for _ in range(2):
        result = gradient(np.array(batch), measure_noise=measure_noise)
        assert result.num_targets == sum(number + 1 for number in batch)
        assert float(model.module.w.grad) == pytest.approx(1.0)
        model.zero_grad()
    assert len(own._counts) <= len(batch)
