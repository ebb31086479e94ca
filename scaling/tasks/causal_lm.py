"""Causal language models: predict each next token, of the answer alone where there is a prompt."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import CausalLm, CausalLmData
from scaling.tasks.baselines import IGNORED
from scaling.tasks.data.chat import FIELD, chat_row
from scaling.tasks.data.columns import CellReader, RowFormat
from scaling.tasks.data.ragged import IntArray, Ragged
from scaling.tasks.data.rows import Row, Split
from scaling.tasks.data.splits import read_splits
from scaling.tasks.data.tokenizer_choice import require_end, tokenizer_for
from scaling.tasks.data.tokens import Joined, Tokenizer
from scaling.tasks.errors import DataError
from scaling.tasks.task import TokenModel
from scaling.tasks.text_task import Forward, Sizes, TextTask, summary_of
from scaling.tasks.token_objective import TokenObjective
from scaling.tasks.writing import Writing

FORWARD = Forward(("input_ids", "position_ids"), {"use_cache": False}, predicts_next=True)


def row_format(workload: CausalLm) -> RowFormat:
    """A text, an answer and its prompt, or a chat."""
    return RowFormat(_row, is_blank=_is_blank, joins_lines=workload.packing)


def _row(cells: CellReader, values: Mapping[str, Any]) -> Row:
    if FIELD in values:
        return chat_row(cells, values[FIELD])
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
        counts: As long as `tokens`, 1 where one is predicted, of chats; None where all are but
            those of a prompt.
    """

    tokens: Ragged
    prompt_lengths: IntArray
    num_bytes: IntArray
    positions: Ragged | None = None
    counts: Ragged | None = None

    @property
    def sizes(self) -> Sizes:
        """All tokens but the last, which is only predicted, are read; a prompt's do not count."""
        lengths = self.tokens.lengths
        num_targets = lengths - self.prompt_lengths
        if self.counts is not None:
            num_targets = np.add.reduceat(self.counts.flat, self.counts.starts)
        return Sizes(lengths, num_targets, num_read=lengths - 1, predicted=lengths)

    def batch(self, indices: IntArray, pad: int) -> dict[str, Tensor]:
        """`input_ids` [B, L−1] and `labels` [B, L−1], the next token or IGNORED.

        Padding stands on the right, where causal attention never looks back from, so no
        attention mask is needed. Of packed documents there are `position_ids` [B, L−1] too,
        which start again with each and so keep its attention to itself.
        """
        values_bl, real_bl = self.tokens.padded(indices, pad)
        predicted = np.arange(values_bl.shape[1]) >= self.prompt_lengths[indices][:, None]
        if self.counts is not None:
            predicted = self.counts.padded(indices, 0)[0] > 0
        labels_bl = np.where(real_bl & predicted, values_bl, IGNORED)
        batch = {
            "input_ids": torch.from_numpy(np.ascontiguousarray(values_bl[:, :-1])),
            "labels": torch.from_numpy(np.ascontiguousarray(labels_bl[:, 1:])),
        }
        if self.positions is not None:
            positions_bl, _ = self.positions.padded(indices, 0)
            batch["position_ids"] = torch.from_numpy(np.ascontiguousarray(positions_bl[:, :-1]))
        return batch


def prepare(workload: CausalLm, evaluation: Evaluation) -> TextTask:
    """Read, split and encode; raises DataError."""
    data = workload.data
    split = read_splits(data, row_format(workload))
    tokenizer = tokenizer_for(workload.model, data, split.rows["train"])
    require_end(tokenizer, workload.task)
    sequences: dict[Split, Sequences] = {}
    num_truncated: dict[Split, int] = {}
    notes: list[str] = []
    for name, rows in split.rows.items():
        if rows[0].turns:
            sequences[name], num_truncated[name] = _encode_chats(name, rows, tokenizer, data)
            if num_left_out := len(rows) - len(sequences[name].tokens.lengths):
                notes.append(
                    f"{num_left_out} chats of the {name} data have no word of the assistant within "
                    f"max_length {data.max_length}; their rows are left out."
                )
            continue
        sequences[name] = _encode(name, rows, tokenizer, workload)
        num_truncated[name] = 0
        if rows[0].prompt is None:
            continue
        # One that lacks its end is cut, and a prompt without a sequence too.
        tokens = sequences[name].tokens
        ends = tokens.flat[tokens.starts + tokens.lengths - 1]
        num_without_room = len(rows) - len(ends)
        num_truncated[name] = int((ends != tokenizer.end_id).sum()) + num_without_room
        if num_without_room:
            notes.append(
                f"{num_without_room} prompts of the {name} data fill max_length {data.max_length} "
                "and leave no room for an answer; their rows are left out."
            )
    return TextTask(
        TokenModel(
            workload.model, data, tokenizer, left_to_right="input_ids",
            keeps_documents_apart=workload.packing,
        ),
        "causal_lm",
        TokenObjective(
            FORWARD, sequences, tokenizer.vocab_size, given="those before them",
            num_bytes=sequences["validation"].num_bytes,
        ),
        split.content_hash, split.num_dropped,
        summary_of(split, sequences, num_truncated, tuple(notes)),
        baseline="token frequencies", num_examples=evaluation.num_examples, evaluated_at_once=250,
        writing=_writing(split.rows["validation"], tokenizer, workload, evaluation),
    )  # fmt: skip


def _writing(
    rows: Sequence[Row], tokenizer: Tokenizer, workload: CausalLm, evaluation: Evaluation
) -> Writing | None:
    """Answers to the first prompts that leave room for one."""
    generation, max_length = workload.generation, workload.data.max_length
    if generation is None:
        return None
    prompts = [
        (row, joined.prompt) for row, joined in zip(rows, tokenizer.joined(rows), strict=True)
    ]
    prompts = [(row, ids) for row, ids in prompts if 0 < len(ids) < max_length]
    prompts = prompts[: min(generation.num_examples, evaluation.num_examples)]
    if not prompts:
        return None
    return Writing(
        generation, tokenizer, Ragged.of([ids for _, ids in prompts]),
        tuple(row.text for row, _ in prompts),
        has_phones=prompts[0][0].text_units is not None, max_length=max_length,
    )  # fmt: skip


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
        windows = [
            window
            for joined in tokenizer.joined(rows)
            for window in _windows(joined, tokenizer.end_id, max_length)
        ]
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


def _encode_chats(
    split: Split, rows: Sequence[Row], tokenizer: Tokenizer, data: CausalLmData
) -> tuple[Sequences, int]:
    """Chats, cut at `max_length`, and how many are; those left without a word to predict are out.

    The first token is never predicted, since nothing is read before it.
    """
    chats = [tokenizer.chat(row) for row in rows]
    ends = [_end(chat.counts[: data.max_length]) for chat in chats]
    kept = [(chat, end) for chat, end in zip(chats, ends, strict=True) if end]
    if not kept:
        raise DataError(
            "workload.data.max_length",
            f"no {split} chat has a word of the assistant within max_length {data.max_length}",
        )
    num_bytes = [sum(chat.num_bytes[:end]) for chat, end in kept]
    counts = Ragged.of([[0, *chat.counts[1:end]] for chat, end in kept])
    tokens = Ragged.of([chat.ids[:end] for chat, end in kept])
    num_truncated = sum(len(chat.ids) > data.max_length for chat in chats)
    return Sequences(
        tokens, np.ones(len(kept), dtype=np.int64), np.array(num_bytes, dtype=np.int64),
        counts=counts,
    ), num_truncated  # fmt: skip


def _end(counts: Sequence[int]) -> int:
    """Tokens up to the last one that is predicted; 0 where none is, behind the first."""
    return max((place + 1 for place, counted in enumerate(counts) if counted and place), default=0)


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


def _windows(joined: Joined, end_id: int, max_length: int) -> Iterator[Window]:
    """A row's token sequences with their prompt lengths.

    A text without a prompt is cut into windows of `max_length` tokens that share one token, so
    each token but the very first is predicted once. A prompt and its answer stay whole; what is
    longer than `max_length` is truncated on the right.
    """
    prompt = joined.prompt
    tokens = [*prompt, *joined.text, end_id]
    sizes = [*[0] * len(prompt), *joined.num_bytes, 0]
    if prompt:
        if len(prompt) < max_length:
            yield tokens[:max_length], len(prompt), sum(sizes[len(prompt) : max_length])
        return
    for start in range(0, len(tokens) - 1, max_length - 1):
        stop = start + max_length
        yield tokens[start:stop], 1, sum(sizes[start + 1 : stop])


def _packed(rows: Sequence[Row], tokenizer: Tokenizer, max_length: int) -> Iterator[Window]:
    """All texts, each with its end, as windows of exactly `max_length` tokens; see `_windows`.

    The last tokens, too few to fill one, are left out. The lines of a book are one text.
    """
    tokens: list[int] = []
    sizes: list[int] = []
    for row, joined in zip(rows, tokenizer.joined(rows), strict=True):
        end = [tokenizer.end_id] if row.ends_document else []
        tokens += [*joined.text, *end]
        sizes += [*joined.num_bytes, *(0 for _ in end)]
    for start in range(0, len(tokens) - max_length + 1, max_length - 1):
        stop = start + max_length
        yield tokens[start:stop], 1, sum(sizes[start + 1 : stop])
