"""Token classification: a tag for each word of a text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scaling.records.metrics import Metric, Unit
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import TokenClassification
from scaling.tasks.baselines import IGNORED
from scaling.tasks.data.columns import CellReader, Labels, RowFormat, UnfitRowError
from scaling.tasks.data.conll import sentences
from scaling.tasks.data.ragged import IntArray, Ragged
from scaling.tasks.data.rows import Row, Split, tagged
from scaling.tasks.data.splits import read_splits
from scaling.tasks.data.tokenizer_choice import aligned_tokenizer_for
from scaling.tasks.data.tokens import TrainedTokenizer
from scaling.tasks.errors import DataError
from scaling.tasks.model.kept import label_names
from scaling.tasks.scores import (
    ENTITY_METRICS,
    MACRO_F1,
    entity_scheme,
    entity_scores,
    macro_f1,
    share,
)
from scaling.tasks.target_loss import token_losses
from scaling.tasks.task import Batch, ExampleLosses, TokenModel
from scaling.tasks.text_task import (
    BatchLosses,
    Forward,
    Sizes,
    TextTask,
    label_frequency_losses,
    read_tokens,
    summary_of,
)

FORWARD = Forward()


def row_format(workload: TokenClassification) -> RowFormat:
    """A sentence's words and their tags."""
    data = workload.data
    labels = Labels(
        ("tags_column",), "tag_names", data.tag_names, data.missing_labels, data.rare_classes
    )
    return RowFormat(_row, labels, is_blank=_is_blank, text_records=sentences)


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

    Attributes:
        sentences: [N] which sentence each is of, or is a part of; rising.
    """

    tokens: Ragged
    labels: Ragged
    sentences: IntArray

    @property
    def sizes(self) -> Sizes:
        """Targets are labelled words."""
        counted = np.concatenate(([0], np.cumsum(self.labels.flat != IGNORED)))
        starts = self.labels.starts
        num_targets = counted[starts + self.labels.lengths] - counted[starts]
        lengths = self.tokens.lengths
        return Sizes(
            lengths, num_targets, num_read=lengths, predicted=lengths, groups=self.sentences
        )  # fmt: skip

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """`input_ids`, `labels` and, with padding, `attention_mask`, all [B, L]."""
        labels_bl = torch.from_numpy(self.labels.padded(indices, IGNORED)[0])
        return read_tokens(self.tokens, indices, pad) | {"labels": labels_bl}


def prepare(workload: TokenClassification, evaluation: Evaluation) -> TextTask:
    """Read, split and encode; raises DataError.

    An example is a sentence, or a part of one that is longer than `max_length`: it is cut
    between words, so that every word is predicted once.
    """
    data = workload.data
    split = read_splits(data, row_format(workload))
    if len({tag for row in split.rows["train"] for tag in row.tags}) < 2:
        raise DataError("workload.data.tags_column", "the training data have only one tag")
    tags = tuple(
        sorted({tag for rows in split.rows.values() for row in rows for tag in row.tags})
    )  # fmt: skip
    numbers = {tag: number for number, tag in enumerate(tags)}
    tokenizer = aligned_tokenizer_for(workload.model, data, split.rows["train"], reads_words=True)
    encoded = {
        name: _encode(rows, tokenizer, numbers, data.max_length)
        for name, rows in split.rows.items()
    }
    texts = {name: of_split for name, (of_split, _) in encoded.items()}
    num_truncated = {name: count for name, (_, count) in encoded.items()}
    notes = ()
    if all(tag.isdecimal() for tag in tags):
        notes = ("Tags are numbers; give tag_names to have entities scored, if they mark any.",)
    return TextTask(
        TokenModel(workload.model, data, tokenizer), "token_classification",
        TagObjective(tags, texts), split.content_hash, split.num_dropped,
        summary_of(split, texts, num_truncated, notes), baseline="tag frequencies",
        num_examples=evaluation.num_examples, evaluated_at_once=100, num_labels=len(tags),
        kept_config=label_names(tags),
    )  # fmt: skip


@dataclass(frozen=True)
class TagObjective:
    """The tags of a text's words; see `scaling.tasks.text_task.Objective`."""

    tags: tuple[str, ...]
    examples: Mapping[Split, TaggedTexts]
    loss_unit: Unit = "nats"

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Cross entropy summed over labelled words, in nats."""
        logits_blc = FORWARD.logits(model, batch)
        return token_losses(logits_blc, batch, label_smoothing=label_smoothing).sum()

    def baseline_losses(self, counts: Mapping[Split, int]) -> dict[Split, ExampleLosses]:
        """Losses of guessing every tag by its frequency in the training split."""
        return label_frequency_losses(self.examples, counts, num_values=len(self.tags))

    def evaluate(self, model: nn.Module, batch: Batch) -> BatchLosses:
        """Losses of single examples; predictions are each one's tags."""
        logits_blc = FORWARD.logits(model, batch)
        predicted_bl = logits_blc.argmax(-1)
        counted_bl = batch["labels"] != IGNORED
        hits_bl = (predicted_bl == batch["labels"]) & counted_bl
        return BatchLosses(
            token_losses(logits_blc, batch).sum(1), hits_bl.sum(1),
            [
                tuple(row_l[counted_l].tolist())
                for row_l, counted_l in zip(predicted_bl, counted_bl, strict=True)
            ],
        )  # fmt: skip

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Accuracy of words, and F1: of entities where the tags mark them, else macro."""
        accuracy = share("accuracy", "Share of words whose likeliest tag is the right one.")
        of_tags = {"macro_f1": MACRO_F1} if entity_scheme(self.tags) is None else ENTITY_METRICS
        return {"accuracy": accuracy, **of_tags}

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """Accuracy of words, and F1: of entities where the tags mark them, else macro."""
        predicted = validation.predictions
        labels = self._labels("validation", len(predicted))
        if (scheme := entity_scheme(self.tags)) is not None:
            scores = entity_scores(self._sentences(labels), self._sentences(predicted), scheme)
        else:
            flat = [tag for sentence in labels for tag in sentence]
            scores = {"macro_f1": macro_f1(flat, [tag for tags in predicted for tag in tags])}
        return {"accuracy": validation.accuracy, **scores}

    def _labels(self, split: Split, count: int) -> list[list[int]]:
        """The tags of the labelled words of a split's first examples."""
        labels_bl, _ = self.examples[split].labels.padded(np.arange(count), IGNORED)
        return [row_l[row_l != IGNORED].tolist() for row_l in labels_bl]

    def _sentences(self, examples: Sequence[Sequence[int]]) -> list[list[str]]:
        """The tags of whole sentences of the validation subset; an entity may be in two parts."""
        whole: dict[int, list[str]] = {}
        of = self.examples["validation"].sentences[: len(examples)].tolist()
        for sentence, example in zip(of, examples, strict=True):
            whole.setdefault(sentence, []).extend(self.tags[number] for number in example)
        return list(whole.values())


def _encode(
    rows: Sequence[Row], tokenizer: TrainedTokenizer, numbers: Mapping[str, int], max_length: int
) -> tuple[TaggedTexts, int]:
    """Sentences in parts that fit, and how many have a word that is longer than all the room."""
    room = max_length - tokenizer.tokenizer.num_special_tokens_to_add()
    tokens: list[list[int]] = []
    labels: list[list[int]] = []
    sentences: list[int] = []
    num_truncated = 0
    for sentence, row in enumerate(rows):
        words = list(row.text_units or ())
        sizes = tokenizer.word_sizes(words)
        num_truncated += max(sizes) > room
        for part in _parts(sizes, room):
            tags = [numbers[tag] for tag in row.tags[part]]
            ids, of_ids = _aligned(words[part], tags, tokenizer, max_length)
            if any(label != IGNORED for label in of_ids):
                tokens.append(ids)
                labels.append(of_ids)
                sentences.append(sentence)
    if not tokens:
        raise DataError("workload.data.max_length", f"{max_length} has no room for a word")
    whole = TaggedTexts(Ragged.of(tokens), Ragged.of(labels), np.array(sentences, dtype=np.int64))
    return whole, num_truncated


def _parts(sizes: Sequence[int], room: int) -> Iterator[slice]:
    """Cuts between words of so many tokens each, so that parts have room beside special tokens."""
    start = used = 0
    for place, size in enumerate(sizes):
        if place > start and used + size > room:
            yield slice(start, place)
            start, used = place, 0
        used += size
    yield slice(start, len(sizes))


def _aligned(
    words: list[str], tags: list[int], tokenizer: TrainedTokenizer, max_length: int
) -> tuple[list[int], list[int]]:
    """Token ids and labels; a word that is longer than all the room keeps its beginning."""
    encoding = tokenizer.tokenizer(
        words, is_split_into_words=True, truncation=True, max_length=max_length
    )
    labels: list[int] = []
    previous: int | None = None
    for word in encoding.word_ids():
        is_first = word is not None and word != previous
        labels.append(tags[word] if is_first and word is not None else IGNORED)
        previous = word
    return encoding["input_ids"], labels
