"""Evaluation on fixed subsets, in evaluation mode, shared among the workers."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from scaling.spec.evaluation import Evaluation
from scaling.spec.resources import Precision
from scaling.tasks.data.rows import Split
from scaling.tasks.task import ExampleLosses, ScoringTask, Task, WritingTask, Written
from scaling.training.parallel.workers import Workers


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


def precision_context(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Autocast for bf16 and fp16; nothing for fp32 and tf32: see `matmul_precision`."""
    match precision:
        case "bf16":
            return torch.autocast(device.type, dtype=torch.bfloat16)
        case "fp16":
            return torch.autocast(device.type, dtype=torch.float16)
        case "fp32" | "tf32":
            return nullcontext()


@contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """What torch may do to the inputs of float32 products, forward and backward, in this process.

    A product that autocast leaves in float32 stays one. cuDNN's convolutions and recurrent layers
    would take tf32 unasked.
    """
    before, older = [switch.fp32_precision for switch in _switches()], _older()
    is_tf32 = precision == "tf32"
    _set_precisions(
        ["tf32" if is_tf32 else "ieee"] * len(before), ("high" if is_tf32 else "highest", is_tf32)
    )
    try:
        yield
    finally:
        _set_precisions(before, older)


def _switches() -> Sequence[Any]:
    """Torch's switches of products, on a GPU and a CPU, and of cuDNN's layers."""
    backends: Any = torch.backends  # which says them to no type checker
    return backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv, backends.cudnn.rnn


def _older() -> tuple[str, bool]:
    """The older switches, of products and of cuDNN's layers; some raise where others differ."""
    products, layers = "highest", False
    with suppress(RuntimeError):
        products = "high" if torch.backends.cuda.matmul.allow_tf32 else "highest"
    with suppress(RuntimeError):
        products = torch.get_float32_matmul_precision()
    with suppress(RuntimeError):
        layers = torch.backends.cudnn.allow_tf32
    return products, layers


def _set_precisions(values: Sequence[str], older: tuple[str, bool]) -> None:
    """Set the switches, the older ones first, which change the others."""
    products, torch.backends.cudnn.allow_tf32 = older
    torch.set_float32_matmul_precision(products)
    for switch, value in zip(_switches(), values, strict=True):
        switch.fp32_precision = value


@contextmanager
def _evaluating(model: nn.Module, precision: Precision, device: torch.device) -> Iterator[None]:
    """Evaluation mode, without gradients; training mode afterwards.

    Not `torch.inference_mode`: a table that a module makes at its first forward and keeps could not
    be trained with.
    """
    model.eval()
    try:
        with torch.no_grad(), precision_context(precision, device):
            yield
    finally:
        model.train()


def evaluate(
    task: Task, model: nn.Module, splits: Sequence[Split], workers: Workers, *, precision: Precision
) -> dict[Split, ExampleLosses]:
    """Losses of every example of each split's fixed subset, the same on all workers.

    Args:
        task: Data and loss.
        model: With all its weights on every worker: workers run different numbers of forwards.
        splits: On which.
        workers: All of them call this.
        precision: Of the forwards.
    """
    losses: dict[Split, ExampleLosses] = {}
    with _evaluating(model, precision, workers.device):
        for split in splits:
            part = workers.part(task.num_evaluated(split))
            own = task.example_losses(model, split, part, workers.device)
            losses[split] = _together(own, workers)
    return losses


def scored_metrics(
    task: Task, model: nn.Module, workers: Workers, *, precision: Precision
) -> dict[str, float]:
    """Metrics that need the model, computed by the first worker; the same on all.

    The model has all its weights on every worker, as in `evaluate`.

    Raises:
        RuntimeError: On every worker, if computing them failed on the first; it says how, so that
            memory running out is recognized (`is_out_of_memory`).
    """
    if not isinstance(task, ScoringTask):
        return {}
    found: dict[str, float] = {}
    error: Exception | None = None
    if workers.rank == 0:
        try:
            with _evaluating(model, precision, workers.device):
                found = task.score(model, workers.device)
        except Exception as raised:  # noqa: BLE001  # the others wait to be told of it
            error = raised
    failure = f"metrics failed: {error!r}" if error is not None else ""
    (found, failure), *_ = workers.gather([found, failure])
    if failure:
        raise RuntimeError(failure) from error
    return found


def written_metrics(
    task: Task, model: nn.Module, workers: Workers, *, precision: Precision
) -> dict[str, float]:
    """What the model's texts are worth, the same on all workers; empty where it writes none.

    The model has all its weights on every worker, as in `evaluate`.
    """
    if not isinstance(task, WritingTask) or (writing := task.writing) is None:
        return {}
    with _evaluating(model, precision, workers.device):
        part = workers.part(len(writing.references))
        own = writing.write(model, part, workers.device)
    parts = workers.gather([[text.greedy, text.beam] for text in own])
    return writing.metrics([Written(*texts) for part in parts for texts in part])


def _together(own: ExampleLosses, workers: Workers) -> ExampleLosses:
    """The workers' parts of one split, in order, as one."""
    if workers.world_size == 1:
        return own
    loss_sums, num_targets, num_correct = (
        np.concatenate(workers.gather_array(numbers))
        for numbers in (own.loss_sums, own.num_targets, own.num_correct)
    )
    parts = workers.gather(list(own.predictions))
    predictions = tuple(_as_tuples(prediction) for part in parts for prediction in part)
    return ExampleLosses(loss_sums, num_targets, num_correct, predictions)


def _as_tuples(value: Any) -> Any:
    """JSON has lists where a prediction had tuples."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value
