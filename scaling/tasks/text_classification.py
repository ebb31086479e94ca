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
from scaling.tasks.data.columns import CellReader, Labels, RowFormat
from scaling.tasks.data.ragged import IntArray, Ragged
from scaling.tasks.data.rows import Row, Split
from scaling.tasks.data.splits import read_splits
from scaling.tasks.data.tokens import tokenizer_for
from scaling.tasks.errors import DataError
from scaling.tasks.scores import CLASS_METRICS, class_scores, share
from scaling.tasks.task import Batch, ExampleLosses, TokenModel
from scaling.tasks.text_task import (
    BatchLosses,
    Sizes,
    TextTask,
    label_frequency_losses,
    logits_of,
    read_tokens,
    summary_of,
)


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

    @property
    def sizes(self) -> Sizes:
        """A target each."""
        lengths = self.tokens.lengths
        return Sizes(lengths, np.ones_like(lengths), num_read=lengths, predicted=lengths)

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """`input_ids` [B, L], `attention_mask` [B, L] and `labels` [B]."""
        labels_b = torch.from_numpy(self.labels[indices])
        return read_tokens(self.tokens, indices, pad) | {"labels": labels_b}


def prepare(workload: TextClassification, evaluation: Evaluation) -> TextTask:
    """Read, split and encode; raises DataError."""
    data = workload.data
    split = read_splits(data, row_format(workload))
    if len({row.label for row in split.rows["train"]}) < 2:
        raise DataError("workload.data.label_column", "the training data have only one class")
    classes = tuple(sorted({str(row.label) for rows in split.rows.values() for row in rows}))
    tokenizer = tokenizer_for(workload.model, data, split.rows["train"])
    numbers = {name: number for number, name in enumerate(classes)}
    texts: dict[Split, LabelledTexts] = {}
    num_truncated: dict[Split, int] = {}
    for name, rows in split.rows.items():
        texts[name] = LabelledTexts(
            Ragged.of([tokenizer.classifier_ids(row, data.max_length) for row in rows]),
            np.array([numbers[str(row.label)] for row in rows], dtype=np.int64),
        )
        num_truncated[name] = sum(
            length == data.max_length and len(tokenizer.classifier_ids(row, None)) > length
            for row, length in zip(rows, texts[name].tokens.lengths, strict=True)
        )
    return TextTask(
        TokenModel(workload.model, data, tokenizer), "sequence_classification",
        ClassObjective(classes, texts), split.content_hash, split.num_dropped,
        summary_of(split, texts, num_truncated), baseline="class frequencies",
        num_examples=evaluation.num_examples, evaluated_at_once=250, num_labels=len(classes),
    )  # fmt: skip


@dataclass(frozen=True)
class ClassObjective:
    """The class of a text; see `scaling.tasks.text_task.Objective`. Targets are texts."""

    classes: tuple[str, ...]
    examples: Mapping[Split, LabelledTexts]

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Cross entropy summed over texts, in nats."""
        return functional.cross_entropy(
            logits_of(model, batch),
            batch["labels"],
            reduction="sum",
            label_smoothing=label_smoothing,
        )

    def baseline_losses(self, counts: Mapping[Split, int]) -> dict[Split, ExampleLosses]:
        """Losses of guessing every class by its frequency in the training split."""
        return label_frequency_losses(self.examples, counts, num_values=len(self.classes))

    def evaluate(self, model: nn.Module, batch: Batch) -> BatchLosses:
        """Losses of single texts; predictions are each one's class."""
        logits_bc = logits_of(model, batch)
        loss_b = functional.cross_entropy(logits_bc, batch["labels"], reduction="none")
        classes_b = logits_bc.argmax(-1)
        return BatchLosses(loss_b, classes_b == batch["labels"], classes_b.tolist())

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Accuracy, macro-F1 and Matthews' correlation coefficient."""
        accuracy = share("accuracy", "Share of texts whose likeliest class is the right one.")
        return {"accuracy": accuracy, **CLASS_METRICS}

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """Accuracy, macro-F1 and Matthews' correlation coefficient."""
        predicted = validation.predictions
        labels = self.examples["validation"].labels[: len(predicted)].tolist()
        return {"accuracy": validation.accuracy, **class_scores(labels, predicted)}
