"""Sequence to sequence: an encoder reads the source, a decoder writes the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from scaling.records.metrics import Metric
from scaling.spec.evaluation import Evaluation
from scaling.spec.models import FromScratch
from scaling.spec.workloads import Seq2Seq
from scaling.tasks.baselines import IGNORED, baseline_counts, frequency_losses
from scaling.tasks.data.columns import CellReader, RowFormat
from scaling.tasks.data.overview import DataSummary, summarize
from scaling.tasks.data.ragged import IntArray, Ragged, by_length
from scaling.tasks.data.rows import SPLITS, Row, Split
from scaling.tasks.data.splits import SplitRows, read_splits
from scaling.tasks.data.tokens import Tokenizer, require_end, tokenizer_for
from scaling.tasks.errors import DataError
from scaling.tasks.extras import pretrained_folder
from scaling.tasks.loading import library_errors, require_no_custom_code
from scaling.tasks.model.architectures import build_model
from scaling.tasks.scores import (
    PERPLEXITY,
    PRONUNCIATION_METRICS,
    TEXT_METRICS,
    pronunciation_scores,
    text_scores,
)
from scaling.tasks.task import Batch, ExampleLosses, Indices, TokenModel, Written, at_least_float32
from scaling.tasks.writing import WRITING_BATCH_SIZE, both_ways, described_both_ways, write_batch

EVALUATION_BATCH_SIZE = 100
MAX_EVALUATION_LOGITS = 2**27  # half a gigabyte in float32


def row_format(workload: Seq2Seq) -> RowFormat:  # noqa: ARG001  # one for all
    """A source and its target."""
    return RowFormat(_row)


def _row(cells: CellReader, values: Mapping[str, Any]) -> Row:
    source = cells.text("source_column", values["source_column"])
    return Row(text=cells.text("target_column", values["target_column"]), prompt=source)


@dataclass(frozen=True)
class Pairs:
    """Sources and targets of one split; a target ends with the end token."""

    sources: Ragged
    targets: Ragged

    def batch(self, indices: IntArray, *, pad: int, start: int) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` [B, S], `decoder_input_ids` and `labels` [B, T].

        The decoder reads a start token and then the target but for its last token. Padding stands
        on the right, where its causal attention never looks back from.
        """
        sources_bs, read_bs = self.sources.padded(indices, pad)
        targets_bt, real_bt = self.targets.padded(indices, pad)
        starts_b1 = np.full((len(indices), 1), start)
        return {
            "input_ids": torch.from_numpy(sources_bs),
            "attention_mask": torch.from_numpy(read_bs.astype(np.int64)),
            "decoder_input_ids": torch.from_numpy(
                np.concatenate([starts_b1, targets_bt[:, :-1]], axis=1)
            ),
            "labels": torch.from_numpy(np.where(real_bt, targets_bt, IGNORED)),
        }


def prepare(workload: Seq2Seq, evaluation: Evaluation) -> "Seq2SeqTask":
    """Read, split and encode; raises DataError."""
    split = read_splits(workload.data, row_format(workload))
    tokenizer = tokenizer_for(workload.model, workload.data, split.rows["train"])
    require_end(tokenizer, workload.task)
    max_length = workload.data.max_length
    pairs = {name: _encode(rows, tokenizer, max_length) for name, rows in split.rows.items()}
    validation = split.rows["validation"]
    return Seq2SeqTask(
        workload, tokenizer, _start_id(workload, tokenizer), pairs,
        tuple(row.text for row in validation), validation[0].text_units is not None,
        evaluation.num_examples, split.content_hash, split.num_dropped,
        _summary(split, pairs, tokenizer, max_length),
    )  # fmt: skip


@dataclass(frozen=True)
class Seq2SeqTask:
    """See `scaling.tasks.task.Task` and `WritingTask`; targets are target tokens.

    The end token counts as one; source and target longer than `max_length` are truncated.
    """

    workload: Seq2Seq
    tokenizer: Tokenizer
    start_id: int
    pairs: Mapping[Split, Pairs]
    references: tuple[str, ...]
    has_phones: bool
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
            self.workload.model, self.workload.data, self.tokenizer,
            left_to_right="decoder_input_ids", other_ids=(self.start_id,),
        )  # fmt: skip

    @property
    def num_models(self) -> int:
        """One."""
        return 1

    @property
    def num_train(self) -> int:
        """Training pairs."""
        return len(self.pairs["train"].targets.lengths)

    @property
    def targets_per_example(self) -> float:
        """Mean number of tokens of a training target."""
        return float(self.pairs["train"].targets.lengths.mean())

    @property
    def tokens_per_example(self) -> float:
        """Mean number of tokens that encoder and decoder read of a training pair."""
        pairs = self.pairs["train"]
        return float((pairs.sources.lengths + pairs.targets.lengths).mean())

    def new_model(
        self, seed: int, *, dropout: float | None = None, lora_rank: int | None = None
    ) -> nn.Module:
        """An encoder-decoder with the weights that this seed starts from."""
        return build_model(
            self.workload.model, head="seq2seq_lm", tokenizer=self.tokenizer,
            max_length=self.workload.data.max_length, num_labels=0, seed=seed,
            dropout=dropout, lora_rank=lora_rank,
        )  # fmt: skip

    def num_targets(self, indices: Indices) -> int:
        """Target tokens of these training pairs."""
        return int(self.pairs["train"].targets.lengths[indices].sum())

    def num_tokens(self, indices: Indices) -> int:
        """Tokens that the encoder reads of these training pairs, and those of the decoder.

        The decoder reads as many as it predicts: a start, and the target but for its end.
        """
        return int(self.lengths(indices).sum())

    def lengths(self, indices: Indices) -> Indices:
        """Tokens of each source and its target."""
        pairs = self.pairs["train"]
        return pairs.sources.lengths[indices] + pairs.targets.lengths[indices]

    def collate(self, indices: Indices, seed: int) -> Batch:  # noqa: ARG002  # the data are fixed
        """These training pairs as tensors."""
        return self._batch("train", indices)

    def _batch(self, split: Split, indices: IntArray) -> dict[str, Tensor]:
        return self.pairs[split].batch(indices, pad=self.tokenizer.pad_id, start=self.start_id)

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
        """Cross entropy summed over target tokens, in nats."""
        return _losses(_logits(model, batch), batch, label_smoothing=label_smoothing).sum()

    def baseline_losses(self) -> dict[Split, ExampleLosses]:
        """Losses of guessing every target token by its frequency in the training split."""
        return frequency_losses(
            baseline_counts(self), self._labels_of, num_values=self.tokenizer.vocab_size
        )

    def _labels_of(self, split: Split, numbers: IntArray) -> IntArray:
        return self._batch(split, numbers)["labels"].numpy()

    def num_evaluated(self, split: Split) -> int:
        """Pairs in a split's fixed subset."""
        return min(self.num_examples, len(self.pairs[split].targets.lengths))

    def example_losses(
        self, model: nn.Module, split: Split, part: slice, device: torch.device
    ) -> ExampleLosses:
        """Losses of single pairs of the fixed subset."""
        lengths = self.pairs[split].targets.lengths
        numbers = np.arange(self.num_evaluated(split))[part]
        losses, correct = np.zeros(len(numbers)), np.zeros(len(numbers))
        for group in by_length(lengths[numbers], self._evaluation_batch_size(lengths[numbers])):
            batch = self._batch(split, numbers[group])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            logits_btv = _logits(model, batch)
            losses[group] = _losses(logits_btv, batch).sum(1).double().cpu().numpy()
            hits_bt = logits_btv.argmax(-1) == batch["labels"]
            correct[group] = hits_bt.sum(1).double().cpu().numpy()
        return ExampleLosses(losses, lengths[numbers].astype(np.float64), correct)

    def _evaluation_batch_size(self, lengths: IntArray) -> int:
        """Pairs at once, so that their logits stay within MAX_EVALUATION_LOGITS."""
        logits_each = int(lengths.max(initial=1)) * self.tokenizer.vocab_size
        return max(1, min(EVALUATION_BATCH_SIZE, MAX_EVALUATION_LOGITS // logits_each))

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Token accuracy, perplexity, and those of the texts that it writes."""
        described = {
            "accuracy": Metric(
                "token accuracy", "Share of target tokens that are the likeliest one given the "
                "source and those before them.",
                unit="fraction", direction="maximize",
            ),
            "perplexity": PERPLEXITY,
        }  # fmt: skip
        if self.workload.generation is not None and self.num_written:
            written = PRONUNCIATION_METRICS if self.has_phones else TEXT_METRICS
            described |= described_both_ways(written, self.workload.generation)
        return described

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """Accuracy of target tokens given those before them, and perplexity."""
        return {"accuracy": validation.accuracy, "perplexity": float(np.exp(validation.loss))}

    @property
    def num_written(self) -> int:
        """Validation pairs whose source the model writes a target for."""
        generation = self.workload.generation
        return 0 if generation is None else min(
            generation.num_examples, self.num_evaluated("validation")
        )  # fmt: skip

    def write(self, model: nn.Module, part: slice, device: torch.device) -> tuple[Written, ...]:
        """Targets for sources of the validation subset."""
        generation = self.workload.generation
        assert generation is not None
        numbers = np.arange(self.num_written)[part]
        written: dict[int, Written] = {}
        special_ids = {
            "eos_token_id": self.tokenizer.end_id, "pad_token_id": self.tokenizer.pad_id,
            "decoder_start_token_id": self.start_id,
        }  # fmt: skip
        for group in by_length(
            self.pairs["validation"].sources.lengths[numbers], WRITING_BATCH_SIZE
        ):
            batch = self._batch("validation", numbers[group])
            inputs = {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}
            texts = write_batch(
                model, inputs, generation, special_ids=special_ids,
                max_new_tokens=min(generation.max_new_tokens, self.workload.data.max_length),
                as_text=self.tokenizer.written,
            )  # fmt: skip
            written |= dict(zip(group.tolist(), texts, strict=True))
        return tuple(text for _, text in sorted(written.items()))

    def writing_metrics(self, written: Sequence[Written]) -> dict[str, float]:
        """Of phones, phone and word error rate; of texts, BLEU, chrF, ROUGE, word error rate."""
        scores = pronunciation_scores if self.has_phones else text_scores
        return both_ways(written, self.references, scores)


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    names = ("input_ids", "attention_mask", "decoder_input_ids")
    output = model(**{name: batch[name] for name in names}, use_cache=False)
    return at_least_float32(output.logits)


def _losses(logits_btv: Tensor, batch: Batch, *, label_smoothing: float = 0.0) -> Tensor:
    """[B, T] nats; 0 at padding."""
    return functional.cross_entropy(
        logits_btv.transpose(1, 2), batch["labels"], ignore_index=IGNORED, reduction="none",
        label_smoothing=label_smoothing,
    )  # fmt: skip


def _encode(rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> Pairs:
    return Pairs(
        Ragged.of([tokenizer.source_ids(row, max_length) for row in rows]),
        Ragged.of([tokenizer.target_ids(row, max_length) for row in rows]),
    )


def _summary(
    split: SplitRows, pairs: Mapping[Split, Pairs], tokenizer: Tokenizer, max_length: int
) -> DataSummary:
    def is_cut(row: Row, source_length: int, target_length: int) -> bool:
        return (
            source_length == max_length and len(tokenizer.source_ids(row, None)) > max_length
        ) or (target_length == max_length and len(tokenizer.target_ids(row, None)) > max_length)

    lengths: dict[Split, IntArray] = {}
    num_truncated: dict[Split, int] = {}
    for name, rows in split.rows.items():
        sources, targets = pairs[name].sources.lengths, pairs[name].targets.lengths
        lengths[name] = sources + targets
        num_truncated[name] = sum(map(is_cut, rows, sources, targets))
    return summarize(split.rows, lengths, num_truncated, split.notes)


def _start_id(workload: Seq2Seq, tokenizer: Tokenizer) -> int:
    """What the decoder reads first: the end token from scratch, else what the model learnt."""
    if isinstance(workload.model, FromScratch):
        return tokenizer.end_id
    from transformers import AutoConfig

    name, path = workload.model.pretrained, "workload.model.pretrained"
    folder = pretrained_folder(name)
    require_no_custom_code(folder, name, path)
    with library_errors(path, f"cannot load {name}"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    start = getattr(config, "decoder_start_token_id", None)
    if start is None:
        raise DataError(path, f"{name} does not say what its decoder starts with")
    return start
