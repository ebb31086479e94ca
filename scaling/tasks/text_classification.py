"""Text classification: one class of a text or of a pair, any number of classes, or a number."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scaling.records.metrics import Metric, Unit
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import TextClassification
from scaling.tasks.data.columns import CellReader, Labels, RowFormat, UnfitRowError
from scaling.tasks.data.ragged import IntArray, Ragged
from scaling.tasks.data.rows import Row, Split
from scaling.tasks.data.splits import read_splits
from scaling.tasks.data.tokenizer_choice import tokenizer_for
from scaling.tasks.errors import DataError
from scaling.tasks.model.kept import label_names
from scaling.tasks.scores import (
    CLASS_METRICS,
    MULTI_LABEL_METRICS,
    REGRESSION_METRICS,
    class_scores,
    multi_label_f1,
    regression_scores,
    share,
)
from scaling.tasks.task import Batch, ExampleLosses, TokenModel
from scaling.tasks.text_task import (
    BatchLosses,
    Forward,
    Objective,
    Sizes,
    TextTask,
    label_frequency_losses,
    read_tokens,
    summary_of,
)

FORWARD = Forward()
_UNIT = "Losses are squared errors, in the square of the label's unit."


def row_format(workload: TextClassification) -> RowFormat:
    """A text or a pair, and its class, classes or number."""
    data = workload.data
    columns = tuple(name for name in data.columns if name.startswith("label_"))
    labels = Labels(
        columns, "label_names", data.label_names, data.missing_labels, data.rare_classes,
        may_be_blank=data.label_separator is not None,
    )  # fmt: skip

    def row(cells: CellReader, values: Mapping[str, Any]) -> Row:
        text = cells.text("text_column", values["text_column"])
        pair = None
        if data.text_pair_column is not None:
            pair = cells.text("text_pair_column", values["text_pair_column"])
        match workload.problem_type:
            case "single_label_classification":
                label = cells.label("label_column", values["label_column"])
                return Row(text=text, pair=pair, label=label)
            case "multi_label_classification":
                return Row(text=text, pair=pair, tags=_classes(cells, values, data.label_separator))
            case "regression":
                number = cells.number("label_column", values["label_column"])
                return Row(text=text, pair=pair, number=number)
            case _:
                assert_never(workload.problem_type)

    return RowFormat(row, labels)


def _classes(
    cells: CellReader, values: Mapping[str, Any], separator: str | None
) -> tuple[str, ...]:
    """The classes of a text: those whose column says so, those of a list, or of a cut-up cell."""
    if "label_column" not in values:
        marked = {n: value for n, value in values.items() if n.startswith("label_columns.")}
        there = (cells.columns[n] for n, value in marked.items() if cells.is_true(n, value))
        return tuple(sorted(there))
    cell = values["label_column"]
    if isinstance(cell, str) and separator is not None:
        cell = [part for part in cell.split(separator) if part.strip()]
    if not isinstance(cell, list):
        raise UnfitRowError(
            "label_column", f"has {type(cell).__name__} in column "
            f"{cells.columns['label_column']!r}; allowed: a list of classes, or text with "
            "label_separator",
        )  # fmt: skip
    named = (
        cells.label("label_column", label, f" place {n} of") for n, label in enumerate(cell, 1)
    )
    return tuple(sorted(set(named)))


@dataclass(frozen=True)
class LabelledTexts:
    """Token sequences of one split and what is predicted of them.

    Attributes:
        labels: [N] classes, [N, C] 1 for each class that a text has and 0 for the others, or [N]
            numbers.
        types: As long as `tokens`, which text of a pair a token is of; None where the model is not
            told.
    """

    tokens: Ragged
    labels: NDArray[Any]
    types: Ragged | None = None

    @property
    def sizes(self) -> Sizes:
        """A target each."""
        lengths = self.tokens.lengths
        return Sizes(lengths, np.ones_like(lengths), num_read=lengths, predicted=lengths)

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """`input_ids` [B, L], `attention_mask` [B, L], and `labels` [B] or `targets` [B] or [B, C].

        And `token_type_ids` [B, L] of pairs, for some models.
        """
        name = "labels" if self.labels.dtype == np.int64 else "targets"
        labels = torch.from_numpy(self.labels[indices])
        return read_tokens(self.tokens, indices, pad, self.types) | {name: labels}


def prepare(workload: TextClassification, evaluation: Evaluation) -> TextTask:
    """Read, split and encode; raises DataError."""
    data = workload.data
    split = read_splits(data, row_format(workload))
    problem = _problem(workload, [row for rows in split.rows.values() for row in rows])
    classes = problem.classes
    labels = {
        name: np.array([problem.label_of(row) for row in rows], dtype=problem.label_type)
        for name, rows in split.rows.items()
    }
    if len(np.unique(labels["train"], axis=0)) < 2:
        field = "label_column" if data.label_columns is None else "label_columns"
        raise DataError(f"workload.data.{field}", problem.too_few)
    tokenizer = tokenizer_for(workload.model, data, split.rows["train"])
    texts: dict[Split, LabelledTexts] = {}
    num_truncated: dict[Split, int] = {}
    for name, rows in split.rows.items():
        found = tokenizer.classifier_ids(rows, data.max_length)
        types = [of_tokens for _, of_tokens in found if of_tokens is not None]
        tokens = Ragged.of([ids for ids, _ in found])
        texts[name] = LabelledTexts(tokens, labels[name], Ragged.of(types) if types else None)
        full = [rows[number] for number in np.flatnonzero(tokens.lengths == data.max_length)]
        num_truncated[name] = sum(
            len(ids) > data.max_length for ids, _ in tokenizer.classifier_ids(full, None)
        )
    summary = summary_of(split, texts, num_truncated)
    if workload.problem_type == "regression":
        summary = replace(summary, in_report=(_UNIT,))
    return TextTask(
        TokenModel(workload.model, data, tokenizer), "sequence_classification",
        problem.objective(texts), split.content_hash, split.num_dropped, summary,
        baseline=problem.baseline, num_examples=evaluation.num_examples, evaluated_at_once=250,
        num_labels=len(classes) or 1,
        kept_config={"problem_type": workload.problem_type, **label_names(classes)},
    )  # fmt: skip


class _Problem(NamedTuple):
    """What is predicted of a text.

    Attributes:
        classes: All of them, sorted or as their columns are; none in regression.
        label_of: A row's label, of `label_type`; see `LabelledTexts.labels`.
        baseline: What its baseline guesses by.
        too_few: What is said where all training texts have the same label.
    """

    classes: tuple[str, ...]
    label_of: Callable[[Row], Any]
    label_type: type[np.generic]
    objective: Callable[[Mapping[Split, LabelledTexts]], Objective]
    baseline: str
    too_few: str


def _problem(workload: TextClassification, rows: Sequence[Row]) -> _Problem:
    match workload.problem_type:
        case "single_label_classification":
            classes = tuple(sorted({str(row.label) for row in rows}))
            numbers = {name: number for number, name in enumerate(classes)}
            return _Problem(
                classes, lambda row: numbers[str(row.label)], np.int64,
                partial(ClassObjective, classes), "class frequencies",
                "the training data have only one class",
            )  # fmt: skip
        case "multi_label_classification":
            found = sorted({name for row in rows for name in row.tags})
            classes = workload.data.label_columns or tuple(found)
            return _Problem(
                classes, lambda row: [name in row.tags for name in classes], np.float32,
                ClassesObjective, "frequency of each class",
                "all training texts have the same classes",
            )  # fmt: skip
        case "regression":
            return _Problem(
                (), lambda row: row.number, np.float32, NumberObjective, "mean label",
                "all training texts have the same number",
            )  # fmt: skip
        case _:
            assert_never(workload.problem_type)


# --- one class ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassObjective:
    """The class of a text; see `scaling.tasks.text_task.Objective`. Targets are texts."""

    classes: tuple[str, ...]
    examples: Mapping[Split, LabelledTexts]
    loss_unit: Unit = "nats"

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Cross entropy summed over texts, in nats."""
        logits_bc = FORWARD.logits(model, batch)
        return functional.cross_entropy(
            logits_bc, batch["labels"], reduction="sum", label_smoothing=label_smoothing
        )

    def baseline_losses(self, counts: Mapping[Split, int]) -> dict[Split, ExampleLosses]:
        """Losses of guessing every class by its frequency in the training split."""
        return label_frequency_losses(self.examples, counts, num_values=len(self.classes))

    def evaluate(self, model: nn.Module, batch: Batch) -> BatchLosses:
        """Losses of single texts; predictions are each one's class."""
        logits_bc = FORWARD.logits(model, batch)
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


# --- any number of classes ------------------------------------------------------------------------


@dataclass(frozen=True)
class ClassesObjective:
    """Each class of a text by a sigmoid of its own; see `scaling.tasks.text_task.Objective`.

    Targets are texts: the loss of one is the sum over all classes, the negative log-likelihood of
    its set of classes where each is independent of the others given the text.
    """

    examples: Mapping[Split, LabelledTexts]
    loss_unit: Unit = "nats"

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Binary cross entropy summed over classes and texts, in nats.

        Smoothing takes from each class as from one of two, to the other one.
        """
        targets_bc = batch["targets"] * (1 - label_smoothing) + label_smoothing / 2
        return _binary_losses(FORWARD.logits(model, batch), targets_bc).sum()

    def baseline_losses(self, counts: Mapping[Split, int]) -> dict[Split, ExampleLosses]:
        """Losses of guessing each class by its frequency in the training split.

        Each is counted once more as there and once as not (Laplace's rule of succession).
        """
        train = self.examples["train"].labels.astype(np.float64)
        shares_c = (train.sum(0) + 1) / (len(train) + 2)
        return {
            split: _of_shares(self.examples[split].labels[:count] > 0.5, shares_c)
            for split, count in counts.items()
        }

    def evaluate(self, model: nn.Module, batch: Batch) -> BatchLosses:
        """Losses of single texts; predictions are 1 for each class above one half."""
        logits_bc, targets_bc = FORWARD.logits(model, batch), batch["targets"]
        loss_b = _binary_losses(logits_bc, targets_bc).sum(1)
        marks_bc = logits_bc > 0
        is_right_b = (marks_bc == (targets_bc > 0.5)).all(1)
        return BatchLosses(loss_b, is_right_b, [tuple(row) for row in marks_bc.int().tolist()])

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Exact match, micro-F1 and macro-F1."""
        return MULTI_LABEL_METRICS

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """Exact match, micro-F1 and macro-F1."""
        predicted = np.array(validation.predictions, dtype=bool)
        labels = self.examples["validation"].labels[: len(predicted)] > 0.5
        return {"exact_match": validation.accuracy, **multi_label_f1(labels, predicted)}


def _binary_losses(logits_bc: Tensor, targets_bc: Tensor) -> Tensor:
    """[B, C] nats."""
    return functional.binary_cross_entropy_with_logits(
        logits_bc, targets_bc.to(logits_bc.dtype), reduction="none"
    )


def _of_shares(labels: NDArray[np.bool_], shares_c: NDArray[np.float64]) -> ExampleLosses:
    """Losses of predicting each class with its share."""
    nats = -np.where(labels, np.log(shares_c), np.log1p(-shares_c)).sum(1)
    hits = (labels == (shares_c > 0.5)).all(1)
    return ExampleLosses(nats, np.ones(len(labels)), hits.astype(np.float64))


# --- a number -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NumberObjective:
    """A number for a text; see `scaling.tasks.text_task.Objective`. Targets are texts.

    The loss is the squared error, in the square of the label's unit.
    """

    examples: Mapping[Split, LabelledTexts]
    loss_unit: Unit = ""  # the square of the label is in its own unit

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        label_smoothing: float,  # noqa: ARG002  # refused: a number has no classes
    ) -> Tensor:
        """Squared error summed over texts."""
        return _squared_errors(FORWARD.logits(model, batch), batch).sum()

    def baseline_losses(self, counts: Mapping[Split, int]) -> dict[Split, ExampleLosses]:
        """Losses of guessing the mean label of the training split."""
        mean = self.examples["train"].labels.astype(np.float64).mean()
        losses: dict[Split, ExampleLosses] = {}
        for split, count in counts.items():
            errors = np.square(self.examples[split].labels[:count].astype(np.float64) - mean)
            # Of single numbers, of which none is right or wrong.
            losses[split] = ExampleLosses(errors, np.ones(count), np.full(count, np.nan))
        return losses

    def evaluate(self, model: nn.Module, batch: Batch) -> BatchLosses:
        """Losses of single texts; predictions are each one's number."""
        logits_b1 = FORWARD.logits(model, batch)
        loss_b = _squared_errors(logits_b1, batch)
        return BatchLosses(loss_b, torch.full_like(loss_b, torch.nan), logits_b1[:, 0].tolist())

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Root mean squared error, Pearson's and Spearman's correlation."""
        return REGRESSION_METRICS

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """Root mean squared error, Pearson's and Spearman's correlation."""
        predicted = np.array(validation.predictions, dtype=np.float64)
        labels = self.examples["validation"].labels[: len(predicted)].astype(np.float64)
        return regression_scores(labels, predicted)


def _squared_errors(logits_b1: Tensor, batch: Batch) -> Tensor:
    """[B]."""
    return (logits_b1[:, 0] - batch["targets"].to(logits_b1.dtype)).square()
