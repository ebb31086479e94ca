"""Evaluation on fixed subsets, in evaluation mode, shared among the workers."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import nn

from scaling.spec import Evaluation
from scaling.tasks.sources import Split
from scaling.tasks.task import ExampleLosses, Task, concatenate
from scaling.training.parallel import Workers


class Cadence:
    """After which steps to evaluate; a study file's `evaluation` section."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self.last_step = 0

    def is_due(self, step: int, *, examples_before: int, examples: int) -> bool:
        """Whether to evaluate after `step` steps; asked once for each step, in order.

        Args:
            step: Steps taken.
            examples_before: Examples seen before the last of them.
            examples: Examples seen after it.
        """
        due = self._reached(step, examples_before, examples)
        if due:
            self.last_step = step
        return due

    def _reached(self, step: int, examples_before: int, examples: int) -> bool:
        spec = self._evaluation
        if spec.every_examples is not None:
            return examples // spec.every_examples > examples_before // spec.every_examples
        if spec.every_steps is not None:
            return step % spec.every_steps == 0
        return step >= max(self.last_step + 1, math.ceil(self.last_step * (spec.growth_ratio or 1)))


def precision_context(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Autocast for bf16; nothing for fp32."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def evaluate(
    task: Task, model: nn.Module, splits: Sequence[Split], workers: Workers, *, precision: str
) -> dict[Split, ExampleLosses]:
    """Losses of every example of each split's fixed subset, the same on all workers."""
    model.eval()
    losses: dict[Split, ExampleLosses] = {}
    with torch.inference_mode(), precision_context(precision, workers.device):
        for split in splits:
            part = workers.part(task.num_evaluated(split))
            own = task.example_losses(model, split, part, workers.device)
            table = np.stack([own.loss_sums, own.num_targets, own.num_correct])
            parts = [ExampleLosses(*rows) for rows in workers.gather(table)]
            losses[split] = concatenate(parts)
    model.train()
    return losses
