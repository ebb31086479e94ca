"""Sequence to sequence: an encoder reads the source, a decoder writes the target."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import Seq2Seq
from scaling.tasks.baselines import IGNORED
from scaling.tasks.data.columns import CellReader, RowFormat
from scaling.tasks.data.ragged import IntArray, Ragged
from scaling.tasks.data.rows import Row, Split
from scaling.tasks.data.splits import read_splits
from scaling.tasks.data.tokenizer_choice import require_end, tokenizer_for
from scaling.tasks.data.tokens import Tokenizer
from scaling.tasks.errors import DataError
from scaling.tasks.extras import pretrained_folder
from scaling.tasks.loading import library_errors, require_no_custom_code
from scaling.tasks.task import TokenModel
from scaling.tasks.text_task import Forward, Sizes, TextTask, read_tokens, summary_of
from scaling.tasks.token_objective import TokenObjective
from scaling.tasks.writing import Writing

FORWARD = Forward(("input_ids", "attention_mask", "decoder_input_ids"), {"use_cache": False})


def row_format(workload: Seq2Seq) -> RowFormat:  # noqa: ARG001  # one for all
    """A source and its target."""
    return RowFormat(_row)


def _row(cells: CellReader, values: Mapping[str, Any]) -> Row:
    source = cells.text("source_column", values["source_column"])
    return Row(text=cells.text("target_column", values["target_column"]), prompt=source)


@dataclass(frozen=True)
class Pairs:
    """Sources and targets of one split; a target ends with the end token.

    Attributes:
        start: Id that the decoder reads before a target.
    """

    sources: Ragged
    targets: Ragged
    start: int

    @property
    def sizes(self) -> Sizes:
        """Targets are target tokens, of which the decoder reads as many as it predicts."""
        targets = self.targets.lengths
        lengths = self.sources.lengths + targets
        return Sizes(lengths, targets, num_read=lengths, predicted=targets)

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` [B, S], `decoder_input_ids` and `labels` [B, T].

        The decoder reads a start token and then the target but for its last token. Padding stands
        on the right, where its causal attention never looks back from.
        """
        targets_bt, real_bt = self.targets.padded(indices, pad)
        starts_b1 = np.full((len(indices), 1), self.start)
        read_bt = np.concatenate([starts_b1, targets_bt[:, :-1]], axis=1)
        return read_tokens(self.sources, indices, pad) | {
            "decoder_input_ids": torch.from_numpy(read_bt),
            "labels": torch.from_numpy(np.where(real_bt, targets_bt, IGNORED)),
        }


def prepare(workload: Seq2Seq, evaluation: Evaluation) -> TextTask:
    """Read, split and encode; raises DataError.

    Source and target longer than `max_length` are truncated.
    """
    data = workload.data
    split = read_splits(data, row_format(workload))
    tokenizer = tokenizer_for(workload.model, data, split.rows["train"])
    require_end(tokenizer, workload.task)
    start = _start_id(workload, tokenizer)
    pairs: dict[Split, Pairs] = {}
    num_truncated: dict[Split, int] = {}
    for name, rows in split.rows.items():
        sources = tokenizer.source_ids(rows, data.max_length)
        targets = tokenizer.target_ids(rows, data.max_length)
        pairs[name] = Pairs(Ragged.of(sources), Ragged.of(targets), start)
        full = [
            row
            for row, source, target in zip(rows, sources, targets, strict=True)
            if data.max_length in (len(source), len(target))
        ]
        num_truncated[name] = sum(
            max(len(source), len(target)) > data.max_length
            for source, target in zip(
                tokenizer.source_ids(full, None), tokenizer.target_ids(full, None), strict=True
            )
        )
    generation, validation = workload.generation, split.rows["validation"]
    writing = None
    if generation is not None:
        count = min(generation.num_examples, evaluation.num_examples)
        writing = Writing(
            generation, tokenizer, pairs["validation"].sources,
            tuple(row.text for row in validation[:count]),
            has_phones=validation[0].text_units is not None, max_length=data.max_length,
            decoder_start_id=start,
        )  # fmt: skip
    return TextTask(
        TokenModel(
            workload.model, data, tokenizer, left_to_right="decoder_input_ids", other_ids=(start,)
        ),
        "seq2seq_lm",
        TokenObjective(
            FORWARD, pairs, tokenizer.vocab_size, given="the source and those before them"
        ),
        split.content_hash, split.num_dropped, summary_of(split, pairs, num_truncated),
        baseline="token frequencies", num_examples=evaluation.num_examples,
        evaluated_at_once=100, writing=writing,
    )  # fmt: skip


def _start_id(workload: Seq2Seq, tokenizer: Tokenizer) -> int:
    """What the decoder reads first: the end token from scratch, else what the model learnt."""
    name, path = workload.model.pretrained, "workload.model.pretrained"
    if name is None:
        return tokenizer.end_id
    from transformers import AutoConfig

    folder = pretrained_folder(name)
    require_no_custom_code(folder, name, path)
    with library_errors(path, f"cannot load {name}"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    start = getattr(config, "decoder_start_token_id", None)
    if start is None:
        raise DataError(path, f"{name} does not say what its decoder starts with")
    return start
