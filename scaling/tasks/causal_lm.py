"""Causal language models: predict each next token, of the answer alone where there is a prompt."""

import math
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
from scaling.spec.workloads import CausalLm
from scaling.tasks.baselines import IGNORED, baseline_counts, frequency_losses
from scaling.tasks.data.columns import CellReader, RowFormat
from scaling.tasks.data.overview import DataSummary, summarize
from scaling.tasks.data.ragged import IntArray, Ragged, by_length
from scaling.tasks.data.rows import SPLITS, Row, Split
from scaling.tasks.data.splits import SplitRows, read_splits
from scaling.tasks.data.tokens import Tokenizer, require_end, tokenizer_for
from scaling.tasks.errors import DataError
from scaling.tasks.model.architectures import build_model
from scaling.tasks.scores import (
    PERPLEXITY,
    PRONUNCIATION_METRICS,
    TEXT_METRICS,
    pronunciation_scores,
    text_scores,
)
from scaling.tasks.task import Batch, ExampleLosses, Indices, TokenModel, Written, at_least_float32
from scaling.tasks.writing import (
    both_ways,
    described_both_ways,
    groups_of_equal_length,
    on_device,
    write_batch,
)

EVALUATION_BATCH_SIZE = 250
MAX_EVALUATION_LOGITS = 2**27  # half a gigabyte in float32


def row_format(workload: CausalLm) -> RowFormat:
    """A text, or an answer and its prompt."""
    return RowFormat(_row, is_blank=_is_blank, joins_lines=workload.packing)


def _row(cells: CellReader, values: Mapping[str, Any]) -> Row:
    if "prompt_column" in values:
        prompt = cells.text("prompt_column", values["prompt_column"])
        return Row(text=cells.text("answer_column", values["answer_column"]), prompt=prompt)
    return Row(text=cells.text("text_column", values["text_column"]))


def _is_blank(values: Mapping[str, Any]) -> bool:
    """True for a blank text that stands alone."""
    text = values.get("text_column")
    return isinstance(text, str) and not text.strip()


@dataclass(frozen=True)
class Sequences:
    """Token sequences of one split and how much of each is a prompt.

    Attributes:
        prompt_lengths: [N] tokens that are read and not predicted (at least the first one).
        num_bytes: [N] UTF-8 bytes of text that the predicted tokens stand for; an end has none.
        positions: As long as `tokens`, the place of each in its own document, where a sequence
            holds several; None where it holds one.
    """

    tokens: Ragged
    prompt_lengths: IntArray
    num_bytes: IntArray
    positions: Ragged | None = None

    @cached_property
    def num_targets(self) -> IntArray:
        """[N] tokens that count in the loss."""
        return self.tokens.lengths - self.prompt_lengths

    @property
    def num_read(self) -> IntArray:
        """[N] tokens that the model reads: all but the last, which is only predicted."""
        return self.tokens.lengths - 1

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """`input_ids` [B, L−1] and `labels` [B, L−1], the next token or IGNORED.

        Padding stands on the right, where causal attention never looks back from, so no
        attention mask is needed. Of packed documents there are `position_ids` [B, L−1] too,
        which start again with each and so keep its attention to itself.
        """
        values_bl, real_bl = self.tokens.padded(indices, pad)
        predicted = np.arange(values_bl.shape[1]) >= self.prompt_lengths[indices][:, None]
        labels_bl = np.where(real_bl & predicted, values_bl, IGNORED)
        batch = {
            "input_ids": torch.from_numpy(np.ascontiguousarray(values_bl[:, :-1])),
            "labels": torch.from_numpy(np.ascontiguousarray(labels_bl[:, 1:])),
        }
        if self.positions is not None:
            positions_bl, _ = self.positions.padded(indices, 0)
            batch["position_ids"] = torch.from_numpy(np.ascontiguousarray(positions_bl[:, :-1]))
        return batch


def prepare(workload: CausalLm, evaluation: Evaluation) -> "CausalLmTask":
    """Read, split and encode; raises DataError."""
    split = read_splits(workload.data, row_format(workload))
    tokenizer = tokenizer_for(workload.model, workload.data, split.rows["train"])
    require_end(tokenizer, workload.task)
    sequences = {
        name: _encode(name, rows, tokenizer, workload) for name, rows in split.rows.items()
    }
    return CausalLmTask(
        workload, tokenizer, sequences, _answers(split.rows["validation"], tokenizer, workload),
        evaluation.num_examples, split.content_hash, split.num_dropped,
        _summary(split, sequences, tokenizer, workload.data.max_length),
    )  # fmt: skip


@dataclass(frozen=True)
class CausalLmTask:
    """See `scaling.tasks.task.Task` and `WritingTask`; targets are the tokens that count.

    Attributes:
        answers: Rows of the validation split that the model writes answers for.
    """

    workload: CausalLm
    tokenizer: Tokenizer
    sequences: Mapping[Split, Sequences]
    answers: tuple[Row, ...]
    num_examples: int
    content_hash: str
    num_dropped: int
    data_summary: DataSummary
    splits: tuple[Split, ...] = SPLITS
    baseline: str = "token frequencies"

    @property
    def token_model(self) -> TokenModel:
        """Its model, tokenizer and data."""
        return TokenModel(
            self.workload.model, self.workload.data, self.tokenizer, left_to_right="input_ids",
            keeps_documents_apart=self.workload.packing,
        )  # fmt: skip

    @property
    def num_models(self) -> int:
        """One."""
        return 1

    @property
    def num_train(self) -> int:
        """Training sequences."""
        return len(self.sequences["train"].prompt_lengths)

    @property
    def targets_per_example(self) -> float:
        """Mean number of tokens that count in a training sequence."""
        return float(self.sequences["train"].num_targets.mean())

    @property
    def tokens_per_example(self) -> float:
        """Mean number of tokens of a training sequence that the model reads."""
        return float(self.sequences["train"].num_read.mean())

    def new_model(
        self, seed: int, *, dropout: float | None = None, lora_rank: int | None = None
    ) -> nn.Module:
        """A causal language model with the weights that this seed starts from."""
        return build_model(
            self.workload.model, head="causal_lm", tokenizer=self.tokenizer,
            max_length=self.workload.data.max_length, num_labels=0, seed=seed,
            dropout=dropout, lora_rank=lora_rank,
        )  # fmt: skip

    def num_targets(self, indices: Indices) -> int:
        """Tokens that count in these training sequences."""
        return int(self.sequences["train"].num_targets[indices].sum())

    def num_tokens(self, indices: Indices) -> int:
        """Tokens of these training sequences that the model reads, those of prompts included."""
        return int(self.sequences["train"].num_read[indices].sum())

    def lengths(self, indices: Indices) -> Indices:
        """Tokens of each sequence."""
        return self.sequences["train"].tokens.lengths[indices]

    def collate(self, indices: Indices, seed: int) -> Batch:  # noqa: ARG002  # the data are fixed
        """These training sequences as `input_ids` and `labels`."""
        return self.sequences["train"].batch(indices, self.tokenizer.pad_id)

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy summed over the tokens that count, in nats."""
        logits_blv = at_least_float32(_logits(model, batch))
        return functional.cross_entropy(
            logits_blv.flatten(0, 1), batch["labels"].flatten(),
            ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing,
        )  # fmt: skip

    def baseline_losses(self) -> dict[Split, ExampleLosses]:
        """Losses of guessing every target token by its frequency in the training split."""
        return frequency_losses(
            baseline_counts(self), self._labels_of, num_values=self.tokenizer.vocab_size
        )

    def _labels_of(self, split: Split, numbers: IntArray) -> IntArray:
        return self.sequences[split].batch(numbers, self.tokenizer.pad_id)["labels"].numpy()

    def num_evaluated(self, split: Split) -> int:
        """Sequences in a split's fixed subset."""
        return min(self.num_examples, len(self.sequences[split].prompt_lengths))

    def example_losses(
        self, model: nn.Module, split: Split, part: slice, device: torch.device
    ) -> ExampleLosses:
        """Losses of single sequences of the fixed subset."""
        sequences = self.sequences[split]
        numbers = np.arange(self.num_evaluated(split))[part]
        losses, correct = np.zeros(len(numbers)), np.zeros(len(numbers))
        lengths = sequences.tokens.lengths[numbers]
        for group in by_length(lengths, self._evaluation_batch_size(lengths)):
            batch = sequences.batch(numbers[group], self.tokenizer.pad_id)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            labels_bl, logits_blv = batch["labels"], _logits(model, batch)
            loss_bl = functional.cross_entropy(
                at_least_float32(logits_blv).transpose(1, 2), labels_bl,
                ignore_index=IGNORED, reduction="none",
            )  # fmt: skip
            losses[group] = loss_bl.sum(1).double().cpu().numpy()
            hits_bl = (logits_blv.argmax(-1) == labels_bl) & (labels_bl != IGNORED)
            correct[group] = hits_bl.sum(1).double().cpu().numpy()
        return ExampleLosses(losses, sequences.num_targets[numbers].astype(np.float64), correct)

    def _evaluation_batch_size(self, lengths: IntArray) -> int:
        """Sequences at once, so that their logits stay within MAX_EVALUATION_LOGITS."""
        logits_each = int(lengths.max(initial=1)) * self.tokenizer.vocab_size
        return max(1, min(EVALUATION_BATCH_SIZE, MAX_EVALUATION_LOGITS // logits_each))

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Token accuracy, perplexity, bits per byte, and those of the texts that it writes."""
        described = {
            "accuracy": Metric(
                "token accuracy", "Share of target tokens that are the likeliest one given those "
                "before them.",
                unit="fraction", direction="maximize",
            ),
            "perplexity": PERPLEXITY,
            "bits_per_byte": Metric(
                "bits per byte", "Validation loss in bits over the bytes of the predicted text: "
                "comparable between tokenizers.",
                unit="bits/byte", direction="minimize",
            ),
        }  # fmt: skip
        if self.workload.generation is not None and self.num_written:
            written = PRONUNCIATION_METRICS if self.has_phones else TEXT_METRICS
            described |= described_both_ways(written, self.workload.generation)
        return described

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """Token accuracy, perplexity, and bits per byte of predicted text.

        Bits per byte can be compared between tokenizers. The bytes are those of the predicted
        text, which lacks the first token where there is no prompt; the nats of ends count too.
        """
        num_bytes = int(self.sequences["validation"].num_bytes[: len(validation.loss_sums)].sum())
        bits = float(validation.loss_sums.sum()) / math.log(2)
        return {
            "accuracy": validation.accuracy,
            "perplexity": float(np.exp(validation.loss)),
            **({"bits_per_byte": bits / num_bytes} if num_bytes else {}),
        }

    @property
    def num_written(self) -> int:
        """Validation prompts that the model writes an answer to."""
        generation = self.workload.generation
        if generation is None:
            return 0
        return min(generation.num_examples, self.num_examples, len(self.answers))

    @property
    def has_phones(self) -> bool:
        """Whether answers are phones, with blanks between them."""
        return self.answers[0].text_units is not None

    def write(self, model: nn.Module, part: slice, device: torch.device) -> tuple[Written, ...]:
        """Answers to prompts of the validation split, in batches of prompts of equal length."""
        generation = self.workload.generation
        assert generation is not None
        prompts = [self.tokenizer.prompt_ids(row) for row in self.answers[: self.num_written][part]]
        written: dict[int, Written] = {}
        for group in groups_of_equal_length([len(prompt) for prompt in prompts]):
            room = self.workload.data.max_length - len(prompts[group[0]])
            texts = write_batch(
                model, on_device(torch.tensor([prompts[n] for n in group]), device), generation,
                special_ids={
                    "eos_token_id": self.tokenizer.end_id, "pad_token_id": self.tokenizer.pad_id,
                },
                max_new_tokens=max(1, min(generation.max_new_tokens, room)),
                as_text=self.tokenizer.written,
            )  # fmt: skip
            written |= dict(zip(group, texts, strict=True))
        return tuple(text for _, text in sorted(written.items()))

    def writing_metrics(self, written: Sequence[Written]) -> dict[str, float]:
        """Of phones, phone and word error rate; of texts, BLEU, chrF, ROUGE, word error rate."""
        scores = pronunciation_scores if self.has_phones else text_scores
        return both_ways(written, [row.text for row in self.answers], scores)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """[B, L−1, V]."""
    names = ("input_ids", "position_ids")
    return model(**{name: batch[name] for name in names if name in batch}, use_cache=False).logits


Window = tuple[list[int], int, int]
"""Tokens, how many of them are a prompt, and the bytes of the others."""


def _encode(
    split: Split, rows: Sequence[Row], tokenizer: Tokenizer, workload: CausalLm
) -> Sequences:
    max_length = workload.data.max_length
    if workload.packing:
        windows = list(_packed(rows, tokenizer, max_length))
        missing = f"the {split} texts joined have no {max_length} tokens to fill max_length"
    else:
        windows = [window for row in rows for window in _windows(row, tokenizer, max_length)]
        missing = f"no {split} example has a token to predict within max_length {max_length}"
    if not windows:
        raise DataError("workload.data.max_length", missing)
    tokens = Ragged.of([tokens for tokens, _, _ in windows])
    return Sequences(
        tokens,
        np.array([prompt_length for _, prompt_length, _ in windows], dtype=np.int64),
        np.array([num_bytes for _, _, num_bytes in windows], dtype=np.int64),
        _positions(tokens, tokenizer.end_id) if workload.packing else None,
    )


def _positions(tokens: Ragged, end: int) -> Ragged:
    """The place of each token in its document: an end is the first one of the next document.

    So an end is predicted from its own document, the first token of the next one from the end
    alone, and each token counts once.
    """
    places = np.arange(len(tokens.flat))
    is_first = tokens.flat == end
    is_first[tokens.starts] = True
    first = np.maximum.accumulate(np.where(is_first, places, 0))
    return Ragged(places - first, tokens.starts, tokens.lengths)


def _windows(row: Row, tokenizer: Tokenizer, max_length: int) -> Iterator[Window]:
    """A row's token sequences with their prompt lengths.

    A text without a prompt is cut into windows of `max_length` tokens that share one token, so
    each token but the very first is predicted once. A prompt and its answer stay whole; what is
    longer than `max_length` is truncated on the right.
    """
    prompt = tokenizer.prompt_ids(row)
    tokens = [*prompt, *tokenizer.text_ids(row), tokenizer.end_id]
    sizes = [*[0] * len(prompt), *tokenizer.text_bytes(row), 0]
    if prompt:
        if len(prompt) < max_length:
            yield tokens[:max_length], len(prompt), sum(sizes[len(prompt) : max_length])
        return
    for start in range(0, len(tokens) - 1, max_length - 1):
        stop = start + max_length
        yield tokens[start:stop], 1, sum(sizes[start + 1 : stop])


def _packed(rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> Iterator[Window]:
    """All texts, each with its end, as windows of exactly `max_length` tokens.

    Windows share one token, so each token but the very first is predicted once; the last tokens,
    too few to fill a window, are left out. A token sees none of the texts before its own; the lines
    of a book are one text, without ends between them.
    """
    tokens: list[int] = []
    sizes: list[int] = []
    for row in rows:
        end = [tokenizer.end_id] if row.ends_document else []
        tokens += [*tokenizer.text_ids(row), *end]
        sizes += [*tokenizer.text_bytes(row), *(0 for _ in end)]
    for start in range(0, len(tokens) - max_length + 1, max_length - 1):
        stop = start + max_length
        yield tokens[start:stop], 1, sum(sizes[start + 1 : stop])


def _summary(
    split: SplitRows, sequences: Mapping[Split, Sequences], tokenizer: Tokenizer, max_length: int
) -> DataSummary:
    """Of rows with a prompt, one that lacks its end is cut, and one without a sequence too."""
    lengths = {name: part.tokens.lengths for name, part in sequences.items()}
    num_truncated = dict.fromkeys(lengths, 0)
    notes: list[str] = []
    for name, rows in split.rows.items():
        if rows[0].prompt is None:
            continue
        tokens = sequences[name].tokens
        ends = tokens.flat[tokens.starts + tokens.lengths - 1]
        num_without_room = len(rows) - len(ends)
        num_truncated[name] = int((ends != tokenizer.end_id).sum()) + num_without_room
        if num_without_room:
            notes.append(
                f"{num_without_room} prompts of the {name} data fill max_length {max_length} and "
                "leave no room for an answer; their rows are left out."
            )
    return summarize(split.rows, lengths, num_truncated, split.notes + tuple(notes))


def _answers(rows: Sequence[Row], tokenizer: Tokenizer, workload: CausalLm) -> tuple[Row, ...]:
    """The rows to write answers for: with a prompt that leaves room for one."""
    if workload.generation is None:
        return ()
    max_length = workload.data.max_length
    return tuple(row for row in rows if 0 < len(tokenizer.prompt_ids(row)) < max_length)
