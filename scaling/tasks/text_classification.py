"""Text classification: one class for a text."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.records.metrics import Metric
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import TextClassification
from scaling.tasks.baselines import baseline_counts, frequency_losses
from scaling.tasks.data.columns import CellReader, Labels, RowFormat
from scaling.tasks.data.overview import DataSummary, summarize
from scaling.tasks.data.ragged import IntArray, Ragged, by_length
from scaling.tasks.data.rows import SPLITS, Row, Split
from scaling.tasks.data.splits import SplitRows, read_splits
from scaling.tasks.data.tokens import Tokenizer, tokenizer_for
from scaling.tasks.errors import DataError
from scaling.tasks.model.architectures import build_model
from scaling.tasks.scores import CLASS_METRICS, class_scores
from scaling.tasks.task import Batch, ExampleLosses, Indices, TokenModel, at_least_float32

EVALUATION_BATCH_SIZE = 250


def row_format(workload: TextClassification) -> RowFormat:
    """A text and its class."""
    data = workload.data
    labels = Labels(
        "label_column", "label_names", data.label_names, data.missing_labels, data.rare_classes
    )
    return RowFormat(_row, labels)


def _row(cells: CellReader, values: Mapping[str, Any]) -> Row:
    label = cells.label("label_column", values["label_column"])
    return Row(text=cells.text("text_column", values["text_column"]), label=label)


@dataclass(frozen=True)
class LabelledTexts:
    """Token sequences of one split and their classes, [N]."""

    tokens: Ragged
    labels: IntArray

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """`input_ids` [B, L], `attention_mask` [B, L] and `labels` [B]."""
        values_bl, real_bl = self.tokens.padded(indices, pad)
        return {
            "input_ids": torch.from_numpy(values_bl),
            "attention_mask": torch.from_numpy(real_bl.astype(np.int64)),
            "labels": torch.from_numpy(self.labels[indices]),
        }


def prepare(workload: TextClassification, evaluation: Evaluation) -> "TextClassificationTask":
    """Read, split and encode; raises DataError."""
    split = read_splits(workload.data, row_format(workload))
    if len({row.label for row in split.rows["train"]}) < 2:
        raise DataError("workload.data.label_column", "the training data have only one class")
    classes = tuple(sorted({str(row.label) for rows in split.rows.values() for row in rows}))
    tokenizer = tokenizer_for(workload.model, workload.data, split.rows["train"])
    numbers = {name: number for number, name in enumerate(classes)}
    texts: dict[Split, LabelledTexts] = {}
    for name, rows in split.rows.items():
        max_length = workload.data.max_length
        texts[name] = LabelledTexts(
            Ragged.of([tokenizer.classifier_ids(row, max_length) for row in rows]),
            np.array([numbers[str(row.label)] for row in rows], dtype=np.int64),
        )
    return TextClassificationTask(
        workload, tokenizer, classes, texts, evaluation.num_examples,
        split.content_hash, split.num_dropped, _summary(split, texts, tokenizer, workload),
    )  # fmt: skip


@dataclass(frozen=True)
class TextClassificationTask:
    """See `scaling.tasks.task.Task`; targets are examples."""

    workload: TextClassification
    tokenizer: Tokenizer
    classes: tuple[str, ...]
    texts: Mapping[Split, LabelledTexts]
    num_examples: int
    content_hash: str
    num_dropped: int
    data_summary: DataSummary
    splits: tuple[Split, ...] = SPLITS
    targets_per_example: float = 1.0
    baseline: str = "class frequencies"

    @property
    def token_model(self) -> TokenModel:
        """Its model, tokenizer and data."""
        return TokenModel(self.workload.model, self.workload.data, self.tokenizer)

    @property
    def num_models(self) -> int:
        """One."""
        return 1

    @property
    def num_train(self) -> int:
        """Training examples."""
        return len(self.texts["train"].labels)

    @property
    def tokens_per_example(self) -> float:
        """Mean number of tokens of a training text."""
        return float(self.texts["train"].tokens.lengths.mean())

    def new_model(
        self, seed: int, *, dropout: float | None = None, lora_rank: int | None = None
    ) -> nn.Module:
        """A classifier with the weights that this seed starts from."""
        return build_model(
            self.workload.model, head="sequence_classification", tokenizer=self.tokenizer,
            max_length=self.workload.data.max_length, num_labels=len(self.classes), seed=seed,
            dropout=dropout, lora_rank=lora_rank,
        )  # fmt: skip

    def num_targets(self, indices: Indices) -> int:
        """One for each example."""
        return len(indices)

    def num_tokens(self, indices: Indices) -> int:
        """Tokens of these training texts."""
        return int(self.lengths(indices).sum())

    def lengths(self, indices: Indices) -> Indices:
        """Tokens of each text."""
        return self.texts["train"].tokens.lengths[indices]

    def collate(self, indices: Indices, seed: int) -> Batch:  # noqa: ARG002  # the data are fixed
        """These training examples as `input_ids`, `attention_mask` and `labels`."""
        return self.texts["train"].batch(indices, self.tokenizer.pad_id)

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy summed over examples, in nats."""
        logits_bc = _logits(model, batch)
        return functional.cross_entropy(
            logits_bc, batch["labels"], reduction="sum", label_smoothing=label_smoothing
        )

    def baseline_losses(self) -> dict[Split, ExampleLosses]:
        """Losses of guessing every class by its frequency in the training split."""
        return frequency_losses(
            baseline_counts(self), self._labels_of, num_values=len(self.classes)
        )

    def _labels_of(self, split: Split, numbers: IntArray) -> IntArray:
        return self.texts[split].labels[numbers]

    def num_evaluated(self, split: Split) -> int:
        """Examples in a split's fixed subset."""
        return min(self.num_examples, len(self.texts[split].labels))

    def example_losses(
        self, model: nn.Module, split: Split, part: slice, device: torch.device
    ) -> ExampleLosses:
        """Losses of single examples of the fixed subset."""
        texts = self.texts[split]
        numbers = np.arange(self.num_evaluated(split))[part]
        losses, classes = np.zeros(len(numbers)), np.zeros(len(numbers), dtype=np.int64)
        for group in by_length(texts.tokens.lengths[numbers], EVALUATION_BATCH_SIZE):
            batch = texts.batch(numbers[group], self.tokenizer.pad_id)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            logits_bc = _logits(model, batch)
            loss_b = functional.cross_entropy(logits_bc, batch["labels"], reduction="none")
            losses[group] = loss_b.double().cpu().numpy()
            classes[group] = logits_bc.argmax(-1).cpu().numpy()
        correct = (classes == texts.labels[numbers]).astype(np.float64)
        predictions = tuple(int(predicted) for predicted in classes)
        return ExampleLosses(losses, np.ones(len(numbers)), correct, predictions)

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Accuracy, macro-F1 and Matthews' correlation coefficient."""
        accuracy = Metric(
            "accuracy", "Share of texts whose likeliest class is the right one.",
            unit="fraction", direction="maximize",
        )  # fmt: skip
        return {"accuracy": accuracy, **CLASS_METRICS}

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """Accuracy, macro-F1 and Matthews' correlation coefficient."""
        predicted = validation.predictions
        labels = self.texts["validation"].labels[: len(predicted)].tolist()
        return {"accuracy": validation.accuracy, **class_scores(labels, predicted)}


def _summary(
    split: SplitRows,
    texts: Mapping[Split, LabelledTexts],
    tokenizer: Tokenizer,
    workload: TextClassification,
) -> DataSummary:
    max_length = workload.data.max_length
    lengths = {name: part.tokens.lengths for name, part in texts.items()}
    num_truncated = {
        name: sum(
            length == max_length and len(tokenizer.classifier_ids(row, None)) > max_length
            for row, length in zip(rows, lengths[name], strict=True)
        )
        for name, rows in split.rows.items()
    }
    return summarize(split.rows, lengths, num_truncated, split.notes)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return at_least_float32(model(**inputs).logits)
