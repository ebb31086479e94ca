"""What all families that read texts share: a model by transformers, batches and evaluation.

A family adds its objective: what is predicted of an example, the loss of that, and its metrics.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scaling.records.metrics import Metric, Unit
from scaling.tasks.baselines import HELD_OUT, IGNORED, frequency_losses
from scaling.tasks.batch import at_least_float32
from scaling.tasks.data.overview import DataSummary, SplitSummary
from scaling.tasks.data.ragged import IntArray, Ragged, by_length
from scaling.tasks.data.rows import SPLITS, Split
from scaling.tasks.data.splits import SplitRows
from scaling.tasks.model.architectures import Head, build_model
from scaling.tasks.model.kept import save_pretrained
from scaling.tasks.model.layers import one_document_each
from scaling.tasks.padding import LENGTH_MULTIPLE, pad_batch
from scaling.tasks.target_loss import with_target_places
from scaling.tasks.task import Batch, ExampleLosses, Indices, TokenModel
from scaling.tasks.writing import Writing

_IDS = ("input_ids", "decoder_input_ids")
_FILLS = {  # beyond an example's end in other entries [B, L]
    "attention_mask": 0, "token_type_ids": 0, "position_ids": 0, "in_context": 0, "labels": IGNORED,
}  # fmt: skip
MAX_EVALUATION_LOGITS = 2**27  # half a gigabyte in float32; of a GPU more where it has room
MAX_EVALUATION_TOKENS = 2**17  # of a batch in evaluation: 250 texts of 512
LOGIT_BYTES = 16  # in evaluation: as computed, in float32, their log softmax, a spare


@dataclass(frozen=True)
class Sizes:
    """How large the examples of a split are.

    Attributes:
        lengths: [N] tokens, by which examples take memory.
        num_targets: [N] targets.
        num_read: [N] tokens that the model reads, padding not counted.
        predicted: [N] length by which examples are put together in evaluation.
        groups: [N] which group an example is of, rising, where the fixed subset has whole groups;
            None where each stands alone.
    """

    lengths: IntArray
    num_targets: IntArray
    num_read: IntArray
    predicted: IntArray
    groups: IntArray | None = None


class Examples(Protocol):
    """The encoded examples of one split."""

    @property
    def sizes(self) -> Sizes:
        """How large they are."""
        ...

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """What the model reads of these examples and what it is to predict, padded."""
        ...


@dataclass(frozen=True)
class BatchLosses:
    """Evaluation of one batch.

    Attributes:
        loss_sums: [B] summed over an example's targets.
        num_correct: [B] targets whose most likely value is the right one; NaN in regression.
        predictions: [B] what the metrics read beside; empty where that is nothing.
    """

    loss_sums: Tensor
    num_correct: Tensor
    predictions: Sequence[Any] = ()


@dataclass(frozen=True)
class Forward:
    """How a family's model is called.

    Attributes:
        reads: Entries of a batch that the model reads, where they are there.
        options: Of the call.
        predicts_next: Whether a label is the next token's, and not that of its own place.
        predictions: Its outputs that hold what is predicted.
    """

    reads: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    options: Mapping[str, bool] = field(default_factory=dict[str, bool])
    predicts_next: bool = False
    predictions: tuple[str, ...] = ("logits",)

    def __call__(self, model: nn.Module, batch: Batch) -> Any:
        """What the model returns for a batch, with `logits`."""
        read = {name: batch[name] for name in self.reads if name in batch}
        apart = "position_ids" in read  # packed documents
        with nullcontext() if apart else one_document_each():
            return model(**read, **self.options)

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """The logits for a batch, [B, …], in a precision that a loss can be summed in."""
        return at_least_float32(self(model, batch).logits)


class Objective(Protocol):
    """What a family predicts of its examples, the loss of that, and its metrics."""

    @property
    def loss_unit(self) -> Unit:
        """Unit of its losses."""
        ...

    @property
    def examples(self) -> Mapping[Split, Examples]:
        """By split."""
        ...

    def baseline_losses(self, counts: Mapping[Split, int]) -> dict[Split, ExampleLosses]:
        """Losses of a guess on so many first examples of the held-out splits."""
        ...

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Training loss summed over the batch's targets; shape []."""
        ...

    def evaluate(self, model: nn.Module, batch: Batch) -> BatchLosses:
        """Losses of the batch's single examples; the model is in eval mode."""
        ...

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """What is said of each metric."""
        ...

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """The metrics on the validation subset."""
        ...


@dataclass(frozen=True)
class TextTask:
    """See `scaling.tasks.task.Task` and `WritingTask`.

    Attributes:
        head: What the model ends in.
        objective: What the family adds, with the examples.
        baseline: What the baseline guesses by.
        num_examples: Most examples of a split's fixed subset.
        evaluated_at_once: Most examples of a batch in evaluation.
        num_labels: Outputs of the head; 0 for one that predicts tokens.
        writing: What the model is asked to write; None for nothing.
        kept_config: What a kept model's config.json has beside the sizes: names of labels.
        length_multiple: To which batches are padded.
    """

    token_model: TokenModel
    head: Head
    objective: Objective
    content_hash: str
    num_dropped: int
    data_summary: DataSummary
    baseline: str
    num_examples: int
    evaluated_at_once: int
    num_labels: int = 0
    writing: Writing | None = None
    kept_config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    splits: tuple[Split, ...] = SPLITS
    num_models: int = 1
    targets_known_ahead: bool = True
    draws_examples: bool = False
    length_multiple: int = 1

    @cached_property
    def _sizes(self) -> Mapping[Split, Sizes]:
        return {split: examples.sizes for split, examples in self.objective.examples.items()}

    @property
    def num_train(self) -> int:
        """Training examples."""
        return len(self._sizes["train"].lengths)

    @property
    def targets_per_example(self) -> float:
        """Mean number of targets of a training example."""
        return float(self._sizes["train"].num_targets.mean())

    @property
    def tokens_per_example(self) -> float:
        """Mean number of tokens of a training example that the model reads."""
        return float(self._sizes["train"].num_read.mean())

    def new_model(
        self, seed: int, *, dropout: float | None = None, lora_rank: int | None = None
    ) -> nn.Module:
        """A model with the weights that this seed starts from."""
        return build_model(
            self.token_model.spec, head=self.head, tokenizer=self.token_model.tokenizer,
            max_length=self.token_model.data.max_length, num_labels=self.num_labels,
            seed=seed, dropout=dropout, lora_rank=lora_rank,
        )  # fmt: skip

    def save_model(self, model: nn.Module, folder: Path) -> None:
        """Write the model and its tokenizer as `from_pretrained` reads them, adapters merged."""
        save_pretrained(
            model, self.token_model.tokenizer, folder, self.kept_config,
            max_length=self.token_model.data.max_length,
            is_classifier=self.head == "sequence_classification",
        )  # fmt: skip

    def num_targets(self, indices: Indices) -> int:
        """Targets in these training examples."""
        return int(self._sizes["train"].num_targets[indices].sum())

    def targets_of_each(self, indices: Indices) -> NDArray[np.float64]:
        """[B] targets of each of these training examples."""
        return self._sizes["train"].num_targets[indices].astype(np.float64)

    def begin_batch(self) -> None:
        """Nothing: targets are known ahead."""

    def num_tokens(self, indices: Indices) -> int:
        """Tokens of these training examples that the model reads, padding not counted."""
        return int(self._sizes["train"].num_read[indices].sum())

    def lengths(self, indices: Indices) -> Indices:
        """[B] tokens of each of these training examples."""
        return self._sizes["train"].lengths[indices]

    def padded_to(self, multiple: int) -> "TextTask":
        """The same task, the lengths of its training batches multiples of a number."""
        return replace(self, length_multiple=multiple)

    def _batch(self, split: Split, numbers: IntArray, multiple: int) -> dict[str, Tensor]:
        tokenizer = self.token_model.tokenizer
        batch = self.objective.examples[split].batch(numbers, tokenizer.pad_id)
        if multiple > 1:
            fills = _FILLS | dict.fromkeys(_IDS, tokenizer.pad_id)
            batch = pad_batch(
                batch, multiple, fills=fills, at_most=self.token_model.data.max_length,
                needs_mask=self.token_model.left_to_right != "input_ids",
            )  # fmt: skip
        return batch if self.num_labels else with_target_places(batch, tokenizer.vocab_size)

    def collate(self, indices: Indices, seed: int) -> Batch:  # noqa: ARG002  # the data are fixed
        """These training examples as tensors."""
        return self._batch("train", indices, self.length_multiple)

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Training loss summed over the batch's targets; shape []."""
        return self.objective.loss_sum(model, batch, label_smoothing=label_smoothing)

    def baseline_losses(self) -> dict[Split, ExampleLosses]:
        """Losses of the held-out subsets under a guess that ignores the input."""
        counts = {split: self.num_evaluated(split) for split in HELD_OUT}
        return self.objective.baseline_losses(counts)

    def num_evaluated(self, split: Split) -> int:
        """Examples in a split's fixed subset: of whole groups, at least one."""
        sizes = self._sizes[split]
        count, groups = len(sizes.lengths), sizes.groups
        if groups is None or count <= self.num_examples:
            return min(count, self.num_examples)
        # Examples before the group that the limit cuts, or all of the first one.
        whole = int(np.searchsorted(groups, groups[self.num_examples]))
        return whole or int(np.searchsorted(groups, groups[0], side="right"))

    def example_losses(
        self, model: nn.Module, split: Split, part: slice, device: torch.device
    ) -> ExampleLosses:
        """Losses of single examples of the fixed subset."""
        sizes = self._sizes[split]
        numbers = np.arange(self.num_evaluated(split))[part]
        losses, correct = np.zeros(len(numbers)), np.zeros(len(numbers))
        predictions: dict[int, Any] = {}
        multiple = LENGTH_MULTIPLE if device.type == "cuda" else self.length_multiple
        at_once = self.examples_at_once(split, numbers, shared_free_bytes(model, device))
        for group in by_length(sizes.predicted[numbers], at_once):
            batch = self._batch(split, numbers[group], multiple)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            found = self.objective.evaluate(model, batch)
            losses[group] = found.loss_sums.double().cpu().numpy()
            correct[group] = found.num_correct.double().cpu().numpy()
            predictions |= zip(group.tolist(), found.predictions, strict=False)
        return ExampleLosses(
            losses, sizes.num_targets[numbers].astype(np.float64), correct,
            tuple(prediction for _, prediction in sorted(predictions.items())),
        )  # fmt: skip

    def examples_at_once(self, split: Split, numbers: IntArray, free_bytes: int | None) -> int:
        """How many of these examples of a split make a batch in evaluation.

        Those whose tokens are predicted stay in `max_evaluation_logits`.
        """
        sizes = self._sizes[split]
        longest = int(sizes.lengths[numbers].max(initial=1))
        most = min(self.evaluated_at_once, MAX_EVALUATION_TOKENS // longest)
        if not self.num_labels:
            longest = int(sizes.predicted[numbers].max(initial=1))
            logits_each = longest * self.token_model.tokenizer.vocab_size
            most = min(most, max_evaluation_logits(free_bytes) // logits_each)
        return max(1, most)

    @property
    def loss_unit(self) -> Unit:
        """That of the objective."""
        return self.objective.loss_unit

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """What is said of the objective's metrics, and of those of the texts that it writes."""
        written = {} if self.writing is None else self.writing.described_metrics
        return {**self.objective.described_metrics, **written}

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """The objective's metrics on the validation subset."""
        return self.objective.metrics(validation)


def max_evaluation_logits(free_bytes: int | None) -> int:
    """Most logits of a batch in evaluation, which take at most half of a GPU's free memory.

    Args:
        free_bytes: Of the GPU; None on a CPU.
    """
    if free_bytes is None:
        return MAX_EVALUATION_LOGITS
    return max(1, free_bytes // 2 // LOGIT_BYTES)


def shared_free_bytes(model: nn.Module, device: torch.device) -> int | None:
    """Free memory of the GPU that evaluates a model; None on a CPU.

    Where a model's matrices are cut among workers, which compute every batch together, the least of
    theirs: they must cut alike.
    """
    free = _free_bytes(device)
    if free is None:
        return None
    from torch import distributed  # which takes a while to load
    from torch.distributed.tensor import DTensor

    cut = next((weight for weight in model.parameters() if isinstance(weight, DTensor)), None)
    if cut is None:
        return free
    least = torch.tensor(free, device=device)
    distributed.all_reduce(least, distributed.ReduceOp.MIN, group=cut.device_mesh.get_group())
    return int(least)


def _free_bytes(device: torch.device) -> int | None:
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    # A worker may have been given a part of the GPU, which this asks of no device without a number.
    number = torch.cuda.current_device() if device.index is None else device.index
    own = int(total * torch.cuda.get_per_process_memory_fraction(number)) - allocated
    return max(0, min(free + torch.cuda.memory_reserved(device) - allocated, own))


def summary_of(
    split: SplitRows,
    examples: Mapping[Split, Examples],
    num_truncated: Mapping[Split, int],
    notes: tuple[str, ...] = (),
) -> DataSummary:
    """What a plan shows of encoded rows, of which so many are cut; `notes` are said beside."""
    parts: list[SplitSummary] = []
    for name in SPLITS:
        rows, lengths = split.rows[name], examples[name].sizes.lengths
        classes = Counter(row.label for row in rows if row.label is not None)
        classes += Counter(tag for row in rows for tag in row.tags)
        parts.append(
            SplitSummary(
                name, num_rows=len(rows), num_examples=len(lengths),
                class_counts=dict(sorted(classes.items())), tokens_min=int(lengths.min()),
                tokens_median=float(np.median(lengths)), tokens_max=int(lengths.max()),
                num_truncated=int(num_truncated[name]),
            )
        )  # fmt: skip
    return DataSummary(tuple(parts), split.notes + notes)


def read_tokens(
    tokens: Ragged, indices: IntArray, pad: int, types: Ragged | None = None
) -> dict[str, Tensor]:
    """`input_ids`, with padding `attention_mask`, and of types `token_type_ids`; all [B, L].

    Models read a mask's values back from the device to learn that it masks nothing.
    """
    values_bl, real_bl = tokens.padded(indices, pad)
    batch = {"input_ids": torch.from_numpy(values_bl)}
    if not real_bl.all():
        batch["attention_mask"] = torch.from_numpy(real_bl.astype(np.int64))
    if types is not None:
        batch["token_type_ids"] = torch.from_numpy(types.padded(indices, 0)[0])
    return batch


def label_frequency_losses(
    examples: Mapping[Split, Examples], counts: Mapping[Split, int], *, num_values: int
) -> dict[Split, ExampleLosses]:
    """Losses of predicting every label by its frequency: see `frequency_losses`."""

    def labels_of(split: Split, numbers: IntArray) -> IntArray:
        return examples[split].batch(numbers, 0)["labels"].numpy()

    num_train = len(examples["train"].sizes.lengths)
    return frequency_losses({"train": num_train, **counts}, labels_of, num_values=num_values)
