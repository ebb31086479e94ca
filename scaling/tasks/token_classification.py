"""Token classification: a tag for each word of a text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.records.metrics import Metric
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import TokenClassification
from scaling.tasks.baselines import IGNORED, baseline_counts, frequency_losses
from scaling.tasks.data.columns import CellReader, Labels, RowFormat, UnfitRowError
from scaling.tasks.data.overview import DataSummary, summarize
from scaling.tasks.data.ragged import IntArray, Ragged, by_length
from scaling.tasks.data.rows import SPLITS, Row, Split, tagged
from scaling.tasks.data.splits import SplitRows, read_splits
from scaling.tasks.data.tokens import TrainedTokenizer, aligned_tokenizer_for
from scaling.tasks.errors import DataError
from scaling.tasks.model.architectures import build_model
from scaling.tasks.scores import ENTITY_METRICS, MACRO_F1, entity_scheme, entity_scores, macro_f1
from scaling.tasks.task import Batch, ExampleLosses, Indices, TokenModel, at_least_float32

EVALUATION_BATCH_SIZE = 100


def row_format(workload: TokenClassification) -> RowFormat:
    """A sentence's words and their tags."""
    data = workload.data
    labels = Labels(
        "tags_column", "tag_names", data.tag_names, data.missing_labels, data.rare_classes
    )
    return RowFormat(_row, labels, is_blank=_is_blank)


def _row(cells: CellReader, values: Mapping[str, Any]) -> Row:
    words, tags = values["tokens_column"], values["tags_column"]
    for field, value in (("tokens_column", words), ("tags_column", tags)):
        if not isinstance(value, list):
            raise UnfitRowError(field, f"has {type(value).__name__} and not a list")
    if len(words) != len(tags):
        raise UnfitRowError("tags_column", f"has {len(tags)} tags for {len(words)} words")
    return tagged(
        [cells.text("tokens_column", w, f" place {n} of") for n, w in enumerate(words, 1)],
        [cells.label("tags_column", tag, f" place {n} of") for n, tag in enumerate(tags, 1)],
    )


def _is_blank(values: Mapping[str, Any]) -> bool:
    """True for a sentence without words."""
    return values["tokens_column"] == [] and values["tags_column"] == []


@dataclass(frozen=True)
class TaggedTexts:
    """Token sequences of one split and, as long, the tag of each token or IGNORED.

    A word's tag is at its first sub-token; its others and special tokens have none.
    """

    tokens: Ragged
    labels: Ragged

    @cached_property
    def num_targets(self) -> IntArray:
        """[N] labelled words of each sequence."""
        counted = np.concatenate(([0], np.cumsum(self.labels.flat != IGNORED)))
        starts = self.labels.starts
        return counted[starts + self.labels.lengths] - counted[starts]

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels`, all [B, L]."""
        values_bl, real_bl = self.tokens.padded(indices, pad)
        labels_bl, _ = self.labels.padded(indices, IGNORED)
        return {
            "input_ids": torch.from_numpy(values_bl),
            "attention_mask": torch.from_numpy(real_bl.astype(np.int64)),
            "labels": torch.from_numpy(labels_bl),
        }


def prepare(workload: TokenClassification, evaluation: Evaluation) -> "TokenClassificationTask":
    """Read, split and encode; raises DataError."""
    split = read_splits(workload.data, row_format(workload))
    if len({tag for row in split.rows["train"] for tag in row.tags}) < 2:
        raise DataError("workload.data.tags_column", "the training data have only one tag")
    all_rows = [row for rows in split.rows.values() for row in rows]
    tags = tuple(sorted({tag for row in all_rows for tag in row.tags}))
    numbers = {tag: number for number, tag in enumerate(tags)}
    tokenizer = aligned_tokenizer_for(
        workload.model, workload.data, split.rows["train"], reads_words=True
    )
    texts = {
        name: _encode(rows, tokenizer, numbers, workload.data.max_length)
        for name, rows in split.rows.items()
    }
    return TokenClassificationTask(
        workload, tokenizer, tags, texts, evaluation.num_examples,
        split.content_hash, split.num_dropped, _summary(split, texts, tokenizer, workload),
    )  # fmt: skip


@dataclass(frozen=True)
class TokenClassificationTask:
    """See `scaling.tasks.task.Task`; targets are labelled words.

    An example is a sentence, or a part of one that is longer than `max_length`: it is cut
    between words, so that every word is predicted once.
    """

    workload: TokenClassification
    tokenizer: TrainedTokenizer
    tags: tuple[str, ...]
    texts: Mapping[Split, TaggedTexts]
    num_examples: int
    content_hash: str
    num_dropped: int
    data_summary: DataSummary
    splits: tuple[Split, ...] = SPLITS
    baseline: str = "tag frequencies"

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
        return len(self.texts["train"].tokens.lengths)

    @property
    def targets_per_example(self) -> float:
        """Mean number of labelled words of a training example."""
        return float(self.texts["train"].num_targets.mean())

    @property
    def tokens_per_example(self) -> float:
        """Mean number of tokens of a training example, special ones included."""
        return float(self.texts["train"].tokens.lengths.mean())

    def new_model(
        self, seed: int, *, dropout: float | None = None, lora_rank: int | None = None
    ) -> nn.Module:
        """A tagger with the weights that this seed starts from."""
        return build_model(
            self.workload.model, head="token_classification", tokenizer=self.tokenizer,
            max_length=self.workload.data.max_length, num_labels=len(self.tags), seed=seed,
            dropout=dropout, lora_rank=lora_rank,
        )  # fmt: skip

    def num_targets(self, indices: Indices) -> int:
        """Labelled words of these training examples."""
        return int(self.texts["train"].num_targets[indices].sum())

    def num_tokens(self, indices: Indices) -> int:
        """Tokens of these training examples."""
        return int(self.lengths(indices).sum())

    def lengths(self, indices: Indices) -> Indices:
        """Tokens of each text."""
        return self.texts["train"].tokens.lengths[indices]

    def collate(self, indices: Indices, seed: int) -> Batch:  # noqa: ARG002  # the data are fixed
        """These training examples as `input_ids`, `attention_mask` and `labels`."""
        return self.texts["train"].batch(indices, self.tokenizer.pad_id)

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy summed over labelled words, in nats."""
        return _losses(_logits(model, batch), batch, label_smoothing=label_smoothing).sum()

    def baseline_losses(self) -> dict[Split, ExampleLosses]:
        """Losses of guessing every tag by its frequency in the training split."""
        return frequency_losses(baseline_counts(self), self._labels_of, num_values=len(self.tags))

    def _labels_of(self, split: Split, numbers: IntArray) -> IntArray:
        return self.texts[split].labels.padded(numbers, IGNORED)[0]

    def num_evaluated(self, split: Split) -> int:
        """Examples in a split's fixed subset."""
        return min(self.num_examples, len(self.texts[split].tokens.lengths))

    def example_losses(
        self, model: nn.Module, split: Split, part: slice, device: torch.device
    ) -> ExampleLosses:
        """Losses of single examples of the fixed subset; predictions are each one's tags."""
        texts = self.texts[split]
        numbers = np.arange(self.num_evaluated(split))[part]
        losses, correct = np.zeros(len(numbers)), np.zeros(len(numbers))
        predictions: list[tuple[int, ...]] = [()] * len(numbers)
        for group in by_length(texts.tokens.lengths[numbers], EVALUATION_BATCH_SIZE):
            batch = texts.batch(numbers[group], self.tokenizer.pad_id)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            logits_blc = _logits(model, batch)
            losses[group] = _losses(logits_blc, batch).sum(1).double().cpu().numpy()
            predicted_bl = logits_blc.argmax(-1)
            counted_bl = batch["labels"] != IGNORED
            hits_bl = (predicted_bl == batch["labels"]) & counted_bl
            correct[group] = hits_bl.sum(1).double().cpu().numpy()
            for place, row_l, counted_l in zip(group, predicted_bl, counted_bl, strict=True):
                predictions[place] = tuple(row_l[counted_l].tolist())
        num_targets = texts.num_targets[numbers].astype(np.float64)
        return ExampleLosses(losses, num_targets, correct, tuple(predictions))

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Accuracy of words, and F1: of entities where the tags mark them, else macro."""
        accuracy = Metric(
            "accuracy", "Share of words whose likeliest tag is the right one.",
            unit="fraction", direction="maximize",
        )  # fmt: skip
        of_tags = {"macro_f1": MACRO_F1} if entity_scheme(self.tags) is None else ENTITY_METRICS
        return {"accuracy": accuracy, **of_tags}

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """Accuracy of words, and F1: of entities where the tags mark them, else macro."""
        predicted = validation.predictions
        labels = self._labels("validation", len(predicted))
        if (scheme := entity_scheme(self.tags)) is not None:
            scores = entity_scores(self._named(labels), self._named(predicted), scheme)
        else:
            flat = [tag for sentence in labels for tag in sentence]
            scores = {"macro_f1": macro_f1(flat, [tag for tags in predicted for tag in tags])}
        return {"accuracy": validation.accuracy, **scores}

    def _labels(self, split: Split, count: int) -> list[list[int]]:
        """The tags of the labelled words of a split's first examples."""
        labels_bl, _ = self.texts[split].labels.padded(np.arange(count), IGNORED)
        return [row_l[row_l != IGNORED].tolist() for row_l in labels_bl]

    def _named(self, sentences: Sequence[Sequence[int]]) -> list[list[str]]:
        return [[self.tags[number] for number in sentence] for sentence in sentences]


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return at_least_float32(model(**inputs).logits)


def _losses(logits_blc: Tensor, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
    """[B, L] nats; 0 where there is no labelled word."""
    return functional.cross_entropy(
        logits_blc.transpose(1, 2), batch["labels"], ignore_index=IGNORED, reduction="none",
        label_smoothing=label_smoothing,
    )  # fmt: skip


def _encode(
    rows: Sequence[Row], tokenizer: TrainedTokenizer, numbers: Mapping[str, int], max_length: int
) -> TaggedTexts:
    pairs = [
        _aligned(words, tags, tokenizer, numbers, max_length)
        for row in rows
        for words, tags in _parts(row, tokenizer, max_length)
    ]
    pairs = [(tokens, labels) for tokens, labels in pairs if any(n != IGNORED for n in labels)]
    if not pairs:
        raise DataError("workload.data.max_length", f"{max_length} has no room for a word")
    return TaggedTexts(
        Ragged.of([tokens for tokens, _ in pairs]), Ragged.of([labels for _, labels in pairs])
    )


def _summary(
    split: SplitRows,
    texts: Mapping[Split, TaggedTexts],
    tokenizer: TrainedTokenizer,
    workload: TokenClassification,
) -> DataSummary:
    """A sentence of which something is cut has a word that is longer than all the room."""
    max_length = workload.data.max_length
    room = max_length - tokenizer.tokenizer.num_special_tokens_to_add()
    lengths = {name: part.tokens.lengths for name, part in texts.items()}
    num_truncated = {
        name: sum(
            lengths[name].max() == max_length
            and max(tokenizer.word_sizes(row.text_units or ())) > room
            for row in rows
        )
        for name, rows in split.rows.items()
    }
    tags = {tag for rows in split.rows.values() for row in rows for tag in row.tags}
    notes = split.notes
    if all(tag.isdecimal() for tag in tags):
        notes += ("Tags are numbers; give tag_names to have entities scored, if they mark any.",)
    return summarize(split.rows, lengths, num_truncated, notes)


def _parts(
    row: Row, tokenizer: TrainedTokenizer, max_length: int
) -> Iterator[tuple[list[str], list[str]]]:
    """A sentence's words and tags in parts that fit into `max_length` with special tokens."""
    room = max_length - tokenizer.tokenizer.num_special_tokens_to_add()
    words: list[str] = []
    tags: list[str] = []
    used = 0
    for word, tag, size in zip(
        row.text_units or (), row.tags, tokenizer.word_sizes(row.text_units or ()), strict=True
    ):
        if words and used + size > room:
            yield words, tags
            words, tags, used = [], [], 0
        words.append(word)
        tags.append(tag)
        used += size
    yield words, tags


def _aligned(
    words: list[str],
    tags: list[str],
    tokenizer: TrainedTokenizer,
    numbers: Mapping[str, int],
    max_length: int,
) -> tuple[list[int], list[int]]:
    """Token ids and labels; a word that is longer than all the room keeps its beginning."""
    encoding = tokenizer.tokenizer(
        words, is_split_into_words=True, truncation=True, max_length=max_length
    )
    labels: list[int] = []
    previous: int | None = None
    for word in encoding.word_ids():
        is_first = word is not None and word != previous
        labels.append(numbers[tags[word]] if is_first and word is not None else IGNORED)
        previous = word
    return encoding["input_ids"], labels
