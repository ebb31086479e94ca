"""A loss and metrics of the user's own for a text family, as Hugging Face's Trainer takes them.

Source: transformers.Trainer, its arguments compute_loss_func and compute_metrics.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scaling.records.metrics import Metric, Unit
from scaling.spec.own_training import TrainerFunctions
from scaling.tasks.baselines import IGNORED
from scaling.tasks.batch import at_least_float32
from scaling.tasks.data.ragged import IntArray
from scaling.tasks.data.rows import Split
from scaling.tasks.errors import DataError
from scaling.tasks.model.requirements import widen
from scaling.tasks.own.calling import own_code
from scaling.tasks.own.certificate import CPU, NUM_TRIED, differ, tried
from scaling.tasks.own.code import code_of, code_sha256, imported
from scaling.tasks.own.metrics import declared_numbers, own_metrics
from scaling.tasks.target_loss import in_one_piece
from scaling.tasks.task import Batch, ExampleLosses
from scaling.tasks.text_task import (
    BatchLosses,
    Examples,
    Forward,
    Objective,
    TextTask,
    shared_free_bytes,
)

LOSS, METRICS = "workload.compute_loss_func", "workload.compute_metrics"
MAX_PREDICTIONS = 2**29
"""Numbers that compute_metrics is given at once; as float32 they take 2 GiB."""
_LABELS = ("labels", "targets", "spans")
"""What families call that which a batch's outputs are compared with."""
_OF_LOSS = ("perplexity", "bits_per_byte")
"""Our metrics that say of a loss in nats what it means."""

Value = TypeVar("Value")
ComputeLoss = Callable[[Any, Tensor, Tensor], Tensor]
ComputeMetrics = Callable[[Any], Mapping[str, float]]


class TrainerTask(TextTask):
    """A text task with functions of the user's own; see `scaling.tasks.task.ScoringTask`."""

    @property
    def own(self) -> "OwnObjective":
        """The objective with the functions."""
        assert isinstance(self.objective, OwnObjective)
        return self.objective

    def without_functions(self) -> TextTask:
        """The family's own task."""
        return TextTask(**_fields_of(self, objective=self.own.ours))

    def score(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """The user's metrics on the validation subset; the model is in eval mode."""
        return self.score_of(model, self.num_evaluated("validation"), device)

    def score_of(self, model: nn.Module, count: int, device: torch.device) -> dict[str, float]:
        """The user's metrics on the first examples of the validation subset.

        Raises:
            ValueError: If there is no number for one of them, or one outside its range.
        """
        own = self.own
        if own.compute_metrics is None:
            return {}
        from transformers import EvalPrediction

        predictions: list[list[NDArray[Any]]] = []
        labels: list[list[NDArray[Any]]] = []
        at_once = self.examples_at_once(
            "validation", np.arange(count), shared_free_bytes(model, device)
        )
        for start in range(0, count, at_once):
            numbers = np.arange(start, min(start + at_once, count))
            batch = self._batch("validation", numbers, 1)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            predicted, labels_b = own.predicted(model, batch)
            predictions.append([at_least_float32(tensor).cpu().numpy() for tensor in predicted])
            labels.append([tensor.cpu().numpy() for tensor in labels_b])
        found = own.compute_metrics(EvalPrediction(_joined(predictions), _joined(labels)))
        return declared_numbers(found, own.own_metrics, "compute_metrics")


def with_trainer_functions(
    task: TextTask, workload: TrainerFunctions, forward: Forward
) -> TrainerTask:
    """A text task whose loss or metrics are the user's.

    Args:
        task: As the family has it.
        workload: Its section, which names a function at least.
        forward: How the family's model is called.

    Raises:
        DataError: If a function cannot be imported, or a metric not be recorded under its name.
    """
    help = "A metric of the study's own compute_metrics, on the validation examples."
    described = own_metrics(workload.directions, workload.ranges, "workload", help)
    loss = metrics = None
    if workload.compute_loss_func is not None:
        loss = imported(workload.compute_loss_func, workload, LOSS)
    if workload.compute_metrics is not None:
        metrics = imported(workload.compute_metrics, workload, METRICS)
    objective = OwnObjective(task.objective, forward, loss, metrics, described)
    digest = sha256((task.content_hash + code_sha256(code_of(workload))).encode()).hexdigest()
    summary = task.data_summary
    if loss is not None:
        note = f"The loss is compute_loss_func, {workload.compute_loss_func}."
        notes, in_report = (*summary.notes, note), (*summary.in_report, note)
        summary = replace(summary, notes=notes, in_report=in_report)
    if loss is not None and workload.exactness == "waived":
        waived = (
            "compute_loss_func was not tried: micro-batches and workers may change its gradient"
        )
        summary = replace(summary, waived=(waived,))
    changed = _fields_of(task, objective=objective, content_hash=digest, data_summary=summary)
    return TrainerTask(**changed)


def _fields_of(task: TextTask, **changes: Any) -> dict[str, Any]:
    return {field.name: getattr(task, field.name) for field in fields(task)} | changes


@dataclass(frozen=True)
class OwnObjective:
    """An objective with a loss or metrics of the user's own in place of its own.

    Attributes:
        ours: The family's.
        compute_loss: See `scaling.spec.own_training.TrainerFunctions`; None for the family's.
        compute_metrics: Likewise.
        own_metrics: What is said of each metric that it returns.
    """

    ours: Objective
    forward: Forward
    compute_loss: ComputeLoss | None
    compute_metrics: ComputeMetrics | None
    own_metrics: Mapping[str, Metric]

    @property
    def examples(self) -> Mapping[Split, Examples]:
        """By split."""
        return self.ours.examples

    def baseline_losses(self, counts: Mapping[Split, int]) -> dict[Split, ExampleLosses]:
        """Losses of the family's guess; none where the loss is the user's."""
        return self.ours.baseline_losses(counts) if self.compute_loss is None else {}

    def given(self, model: nn.Module, batch: Batch) -> tuple[Any, Tensor]:
        """Outputs and labels of a batch as the Trainer has them.

        Where a label is the next token's, the Trainer's labels are those of the tokens themselves,
        one more: the last place, whose logits no label is compared with, has zeros.
        """
        return self._as_given(self.forward(model, batch), batch)

    def _as_given(self, outputs: Any, batch: Batch) -> tuple[Any, Tensor]:
        labels = next(batch[name] for name in _LABELS if name in batch)
        if not self.forward.predicts_next:
            return outputs, labels
        logits = nn.functional.pad(outputs.logits, (0, 0, 0, 1))
        return type(outputs)(logits=logits), nn.functional.pad(labels, (1, 0), value=IGNORED)

    def predicted(
        self, model: nn.Module, batch: Batch
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Predictions and labels of a batch as the Trainer evaluates them, of each one or more."""
        outputs, labels = self.given(model, batch)
        found = [outputs[name] for name in self.forward.predictions]
        return found, [labels] if len(found) == 1 else labels.unbind(1)

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float) -> Tensor:
        """The user's loss times the number of targets that it is divided by."""
        if self.compute_loss is None:
            return self.ours.loss_sum(model, batch, label_smoothing=label_smoothing)
        return self._summed(*self.given(model, batch))

    def _summed(self, outputs: Any, labels: Tensor) -> Tensor:
        assert self.compute_loss is not None
        count = _num_items(labels)
        return at_least_float32(self.compute_loss(outputs, labels, count)) * count

    def evaluate(self, model: nn.Module, batch: Batch) -> BatchLosses:
        """The user's losses of single examples, and what the family's metrics read."""
        if self.compute_loss is None:
            return self.ours.evaluate(model, batch)
        made: list[Any] = []

        def recorded(**inputs: Any) -> Any:
            made.append(model(**inputs))
            return made[-1]

        # The user's loss reads all logits, so none are computed in chunks.
        ours = self.ours.evaluate(recorded, in_one_piece(batch))  # pyright: ignore[reportArgumentType]  # it is called alone
        outputs, labels = self._as_given(made[0], batch)
        losses = [
            self._summed(type(outputs)(logits=outputs.logits[n : n + 1]), labels[n : n + 1])
            for n in range(len(labels))
        ]
        return replace(ours, loss_sums=torch.stack(losses))

    @property
    def loss_unit(self) -> Unit:
        """The family's, or none that is known where the loss is the user's."""
        return self.ours.loss_unit if self.compute_loss is None else ""

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """The user's, or those of the family's that do not take the loss for nats."""
        if self.compute_metrics is None:
            return self._kept(self.ours.described_metrics)
        return self.own_metrics

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """The family's, where compute_metrics does not replace them; see `TrainerTask.score`."""
        return {} if self.compute_metrics else dict(self._kept(self.ours.metrics(validation)))

    def _kept(self, metrics: Mapping[str, Value]) -> dict[str, Value]:
        left_out = _OF_LOSS if self.compute_loss is not None else ()
        return {name: value for name, value in metrics.items() if name not in left_out}


def _num_items(labels: Tensor) -> Tensor:
    """Targets among labels: those that are not IGNORED; of numbers and marks of classes, texts."""
    if labels.is_floating_point():
        return torch.tensor(len(labels), device=labels.device)
    return (labels != IGNORED).sum().clamp(min=1)


def _joined(batches: Sequence[Sequence[NDArray[Any]]]) -> Any:
    """Arrays of all batches, one after another; a tuple where a batch has several."""
    found = tuple(_one_after_another(parts) for parts in zip(*batches, strict=True))
    return found[0] if len(found) == 1 else found


def _one_after_another(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Batches, padded on the right to the longest with IGNORED."""
    shape = np.max([part.shape[1:] for part in parts], axis=0).astype(int)
    padded: list[NDArray[Any]] = []
    for part in parts:
        missing = [(0, int(size)) for size in shape - np.array(part.shape[1:], dtype=int)]
        padded.append(np.pad(part, [(0, 0), *missing], constant_values=IGNORED))
    return np.concatenate(padded)


# --- the certificate ------------------------------------------------------------------------------


def require_functions(task: TrainerTask, seed: int) -> None:
    """Check functions of the user's own on a few real examples.

    The loss of a batch, times its number of targets, must be the sum of its parts' losses, the same
    in any order and each time, or micro-batches and workers would change the gradient.

    Raises:
        DataError: If a function raises, returns something else, or a loss is no such sum and the
            study file does not waive it.
    """
    model = task.new_model(seed)
    own = task.own
    if own.compute_loss is not None:
        numbers = tried(task.num_train, task.lengths)
        with own_code(LOSS, "compute_loss_func"):
            given = own.given(model, task.collate(numbers, seed))
            made: Any = own.compute_loss(*given, torch.tensor(1))
        _require_loss(made)
        with torch.no_grad():
            widen(model, seed)
        model.eval()
        if not task.data_summary.waived:
            with own_code(LOSS, "compute_loss_func"), torch.no_grad():
                finding = _finding(task, model, numbers, seed)
            if finding is not None:
                raise DataError(LOSS, finding)
    if own.compute_metrics is not None:
        _require_metrics(task, model.eval())


def _require_loss(made: Any) -> None:
    if not isinstance(made, Tensor) or made.numel() != 1:
        kind = f"a tensor of shape {list(made.shape)}" if isinstance(made, Tensor) else repr(made)
        raise DataError(LOSS, f"returned {kind}; allowed: a tensor of one number, the batch's loss")
    if not made.requires_grad:
        raise DataError(LOSS, "returned a loss that depends on no weight that is trained")
    if not bool(torch.isfinite(made)):
        raise DataError(LOSS, f"the loss is {float(made.detach())} before the first step")


_REMEDY = (
    "so micro-batches and workers change the gradient; return the sum over targets "
    "(reduction='sum') divided by num_items_in_batch, or accept that with "
    "workload.exactness: waived"
)


def _finding(task: TrainerTask, model: nn.Module, numbers: IntArray, seed: int) -> str | None:
    """What a loss depends on beside the example and the weights, in a sentence."""

    def loss(part: IntArray) -> Tensor:
        return task.loss_sum(model, task.collate(part, seed)).double()

    whole = loss(numbers)
    if differ(whole, loss(numbers)):
        return "the loss of the same batch differs from call to call in evaluation mode; " + _REMEDY
    if differ(whole, loss(numbers[::-1].copy())):
        return "the loss depends on the order of the examples in a batch, " + _REMEDY
    cuts = (np.array_split(numbers, 2), np.split(numbers, len(numbers)))  # halves, single examples
    if len(numbers) > 1 and any(
        differ(whole, torch.stack([loss(part) for part in cut]).sum()) for cut in cuts
    ):
        return (
            "the loss of a batch, times num_items_in_batch, is not the sum of its parts' losses, "
            + _REMEDY
        )
    return None


def _require_metrics(task: TrainerTask, model: nn.Module) -> None:
    count = task.num_evaluated("validation")
    lengths = task.own.examples["validation"].sizes.lengths[:count]
    with torch.no_grad():
        longest = task._batch("validation", lengths.argsort()[-1:], 1)
        each = sum(tensor.numel() for tensor in task.own.predicted(model, longest)[0])
        if each * count > MAX_PREDICTIONS:
            raise DataError(
                METRICS, f"the logits of {count:,} validation examples are {each * count:,} "
                f"numbers; allowed: {MAX_PREDICTIONS:,}; lower evaluation.num_examples to "
                f"{max(MAX_PREDICTIONS // each, 1):,}",
            )  # fmt: skip
        with own_code(METRICS, "compute_metrics"):
            values = task.score_of(model, min(NUM_TRIED, count), CPU)
            if not all(map(np.isfinite, values.values())):  # a few may be of one class alone
                values = task.score(model, CPU)
    for name, value in values.items():
        if not np.isfinite(value):
            raise DataError(METRICS, f"{name} is {value} at the start; it must be finite")
