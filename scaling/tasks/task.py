"""What the training loop needs to know of a task, whatever its family.

Nothing here loads torch: what a plan says of a study without a model needs none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

from scaling.records.measurement import MEASURED
from scaling.records.metrics import Metric, Unit
from scaling.records.recipe import Recipe
from scaling.spec.data import TextData
from scaling.spec.evaluation import LOSS
from scaling.spec.models import ModelSpec
from scaling.tasks.data.overview import DataSummary
from scaling.tasks.data.rows import Split
from scaling.tasks.data.tokens import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

Indices: TypeAlias = "NDArray[np.int64]"
Batch: TypeAlias = "Mapping[str, Tensor]"
AnyBatch = Any
"""Tensors in mappings, lists and tuples, or an object that can be moved: see `scaling.tasks.batch`.
The families of this package have a `Batch`."""


@dataclass(frozen=True)
class ExampleLosses:
    """Losses of single examples of a split, in the split's own order.

    Attributes:
        loss_sums: [N] in the task's unit, summed over an example's targets.
        num_targets: [N] targets of each example.
        num_correct: [N] targets whose most likely value is the right one; NaN in regression.
        predictions: [N] what the model says of each example, in the form that the task's own
            metrics read, tuples and plain values, since workers exchange them as JSON; empty where
            they need no more than the numbers above.
    """

    loss_sums: NDArray[np.float64]
    num_targets: NDArray[np.float64]
    num_correct: NDArray[np.float64]
    predictions: tuple[Any, ...] = ()

    @property
    def loss(self) -> float:
        """Mean loss per target."""
        return float(self.loss_sums.sum() / self.num_targets.sum())

    @property
    def stderr(self) -> float | None:
        """Standard error of `loss` as a ratio estimate over sampled examples.

        None of one example, and of a loss that is not finite.

        Source: the ratio estimator's linearized variance, Cochran 1977, Sampling Techniques,
            eq. 6.10, without the finite population correction.
        """
        count = len(self.loss_sums)
        if count < 2 or not math.isfinite(self.loss):
            return None
        residuals = self.loss_sums - self.loss * self.num_targets
        variance = float((residuals**2).sum()) / (count - 1)
        return (variance * count) ** 0.5 / float(self.num_targets.sum())

    @property
    def accuracy(self) -> float:
        """Share of targets whose most likely value is the right one."""
        return float(self.num_correct.sum() / self.num_targets.sum())


@dataclass(frozen=True)
class TokenModel:
    """A model that reads tokens: what can be tried of it before it is trained.

    Attributes:
        data: The study file's, with the longest example and the tokenizer.
        tokenizer: Of all that the model reads.
        left_to_right: Entry of a batch whose later tokens are predicted from the earlier ones, so
            that no logit may depend on a later one; None where all are seen.
        keeps_documents_apart: Whether documents of one example must not see each other.
        other_ids: Ids that the model reads beside those of the tokenizer.
    """

    spec: ModelSpec
    data: TextData
    tokenizer: Tokenizer
    left_to_right: Literal["input_ids", "decoder_input_ids"] | None = None
    keeps_documents_apart: bool = False
    other_ids: tuple[int, ...] = ()


class TaskData(Protocol):
    """What is known of a task's data, whether or not a model is trained on them."""

    @property
    def num_train(self) -> int | None:
        """Training examples; None when every example is drawn afresh."""
        ...

    @property
    def targets_per_example(self) -> float:
        """Mean number of targets of a training example."""
        ...

    @property
    def tokens_per_example(self) -> float | None:
        """Mean number of input tokens, padding not counted, of a training example.

        None where examples have no tokens.
        """
        ...

    @property
    def content_hash(self) -> str:
        """SHA-256 of the data."""
        ...

    @property
    def num_dropped(self) -> int:
        """Rows left out since their text was on another side of the split."""
        ...

    @property
    def data_summary(self) -> DataSummary | None:
        """What a plan shows of the data; None where they are drawn afresh."""
        ...

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that can be evaluated."""
        ...

    @property
    def baseline(self) -> str | None:
        """What the task's baseline guesses by, as in class frequencies; None without one."""
        ...

    def baseline_losses(self) -> dict[Split, ExampleLosses]:
        """Losses of the held-out splits' fixed subsets under a guess that ignores the input.

        It is made of the training split alone. Empty where there is no baseline.
        """
        ...

    def num_evaluated(self, split: Split) -> int:
        """Examples in a split's fixed subset."""
        ...

    @property
    def loss_unit(self) -> Unit:
        """Unit of a loss: nats of a likelihood; empty where it has no name."""
        ...

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """What is said of each metric of the task, by name; no other may be measured."""
        ...


def described(task: TaskData) -> dict[str, Metric]:
    """What a task says of its validation loss and of its metrics, as a study's record has it."""
    return {LOSS: replace(MEASURED[LOSS], unit=task.loss_unit), **task.described_metrics}


class Task(TaskData, Protocol):
    """A model and its data, with a loss that is a sum over targets."""

    @property
    def num_models(self) -> int:
        """Independent models that are trained at once, their gradients side by side."""
        ...

    @property
    def token_model(self) -> TokenModel | None:
        """What is tried of the model before it is trained; None for one that reads no tokens."""
        ...

    def new_model(
        self, seed: int, *, dropout: float | None = None, lora_rank: int | None = None
    ) -> nn.Module:
        """A model with the weights that this seed starts from; None keeps what is its own."""
        ...

    @property
    def targets_known_ahead(self) -> bool:
        """Whether an example's targets are known before its loss has been computed."""
        ...

    def begin_batch(self) -> None:
        """Forget the targets that the losses of the global batch before told, if any."""
        ...

    def num_targets(self, indices: Indices) -> int:
        """Targets in these training examples.

        Where they are not known ahead, the examples are a micro-batch of this global batch whose
        loss was computed.
        """
        ...

    def targets_of_each(self, indices: Indices) -> NDArray[np.float64]:
        """[B] targets of each of these training examples; see `num_targets`."""
        ...

    def num_tokens(self, indices: Indices) -> int:
        """Input tokens of these training examples, padding not counted; 0 where they have none."""
        ...

    def lengths(self, indices: Indices) -> Indices:
        """[B] tokens of each of these training examples; 0 where it costs nothing of its own."""
        ...

    @property
    def draws_examples(self) -> bool:
        """Whether an example is drawn anew each time, as under augmentation.

        Then `collate` is given other numbers in each epoch; see `DataOrder.counts_epochs`.
        """
        ...

    def collate(self, indices: Indices, seed: int) -> AnyBatch:
        """The training examples of these numbers as tensors; `seed` is the trial's."""
        ...

    def loss_sum(
        self, model: nn.Module, batch: AnyBatch, *, label_smoothing: float = 0.0
    ) -> Tensor:
        """Training loss summed over the batch's targets, in `loss_unit`; shape []."""
        ...

    def example_losses(
        self, model: nn.Module, split: Split, part: slice, device: torch.device
    ) -> ExampleLosses:
        """Losses of the examples `part` of a split's fixed subset; the model is in eval mode."""
        ...

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """The task's own metrics on the validation subset."""
        ...


@runtime_checkable
class FinishedTask(TaskData, Protocol):
    """Runs that have ended: nothing is trained, and a trial's losses are looked up."""

    def look_up(self, recipe: Recipe) -> Mapping[Split, float] | None:
        """Losses at the end of a recipe's run, per target; None where it diverged."""
        ...


AnyTask = Task | FinishedTask


@dataclass(frozen=True)
class Written:
    """What the model wrote for one example, by greedy decoding and by beam search.

    Attributes:
        beam: None where there was no beam search.
    """

    greedy: str
    beam: str | None


@runtime_checkable
class ScoringTask(Task, Protocol):
    """A task with metrics that need the model, at every evaluation."""

    def score(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Metrics on the whole validation subset; the model is in eval mode."""
        ...


@runtime_checkable
class KeptTask(Task, Protocol):
    """A task whose models have a form of their own outside of this package."""

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write a model, whole and on any device, into an empty folder."""
        ...


@runtime_checkable
class PaddingTask(Task, Protocol):
    """A task that pads its examples to one length."""

    def padded_to(self, multiple: int) -> Task:
        """The same task, the lengths of its training batches multiples of a number."""
        ...


class Writes(Protocol):
    """What a model writes for the first examples of the validation subset."""

    @property
    def references(self) -> tuple[str, ...]:
        """The right text of each."""
        ...

    def write(self, model: nn.Module, part: slice, device: torch.device) -> tuple[Written, ...]:
        """Texts for the examples `part` of those; the model is in eval mode."""
        ...

    def metrics(self, written: Sequence[Written]) -> dict[str, float]:
        """How the texts compare with the references, all examples in order."""
        ...


@runtime_checkable
class WritingTask(Task, Protocol):
    """A task whose model may also write texts, once, after its last step."""

    @property
    def writing(self) -> Writes | None:
        """None where it writes none."""
        ...
