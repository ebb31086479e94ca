"""Texts that a model writes: greedy decoding and beam search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scaling.records.metrics import Metric
from scaling.spec.workloads import Generation
from scaling.tasks.data.ragged import IntArray, Ragged, by_length
from scaling.tasks.data.tokens import Tokenizer
from scaling.tasks.scores import (
    PRONUNCIATION_METRICS,
    TEXT_METRICS,
    pronunciation_scores,
    text_scores,
)
from scaling.tasks.task import Written

WRITING_BATCH_SIZE = 50

Ids = list[int]


@dataclass(frozen=True)
class Writing:
    """What a model is asked to write after its last step, and what that is compared with.

    Attributes:
        generation: How much, and with how many beams.
        prompts: What the model reads of each example.
        references: The right text of each, at least one.
        has_phones: Whether texts are phones, with blanks between them.
        max_length: Most tokens of a text; of a decoder's prompt and text together.
        decoder_start_id: What an encoder-decoder's decoder reads first; None for a decoder alone,
            which goes on with its prompt.
    """

    generation: Generation
    tokenizer: Tokenizer
    prompts: Ragged
    references: tuple[str, ...]
    has_phones: bool
    max_length: int
    decoder_start_id: int | None = None

    def write(self, model: nn.Module, part: slice, device: torch.device) -> tuple[Written, ...]:
        """Texts for the examples `part`; the model is in eval mode."""
        numbers = np.arange(len(self.references))[part]
        lengths = self.prompts.lengths[numbers]
        if self.decoder_start_id is None:
            groups = groups_of_equal_length(lengths)
        else:
            groups = by_length(lengths, WRITING_BATCH_SIZE)
        written: dict[int, Written] = {}
        for group in groups:
            texts = self._written(model, numbers[group], device)
            written |= zip(group.tolist(), texts, strict=True)
        return tuple(text for _, text in sorted(written.items()))

    def _written(self, model: nn.Module, numbers: IntArray, device: torch.device) -> list[Written]:
        """Texts for the prompts of these numbers, each up to its first end token."""
        ids_bl, real_bl = self.prompts.padded(numbers, self.tokenizer.pad_id)
        inputs = {
            "input_ids": torch.from_numpy(ids_bl).to(device),
            "attention_mask": torch.from_numpy(real_bl.astype(np.int64)).to(device),
        }
        options = {"eos_token_id": self.tokenizer.end_id, "pad_token_id": self.tokenizer.pad_id}
        room = self.max_length
        if self.decoder_start_id is None:
            room -= ids_bl.shape[1]
        else:
            options["decoder_start_token_id"] = self.decoder_start_id
        options["max_new_tokens"] = max(1, min(self.generation.max_new_tokens, room))
        greedy = self._generated(model, inputs, num_beams=1, **options)
        if self.generation.num_beams == 1:
            return [Written(text, None) for text in greedy]
        beams = self._generated(model, inputs, num_beams=self.generation.num_beams, **options)
        return [Written(ours, theirs) for ours, theirs in zip(greedy, beams, strict=True)]

    def _generated(self, model: Any, inputs: dict[str, Tensor], **options: int) -> list[str]:
        """Generated texts alone: neither the prompt nor a decoder's start."""
        # A model may have rows for more ids than its tokenizer has names for.
        head = model.get_output_embeddings()
        size = head.num_embeddings if isinstance(head, nn.Embedding) else head.out_features
        unnamed = list(range(self.tokenizer.vocab_size, size))
        ids_bl = model.generate(
            **inputs, **options, do_sample=False, suppress_tokens=unnamed or None
        )
        given = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        end = self.tokenizer.end_id
        return [self.tokenizer.written(_until(end, ids)) for ids in ids_bl[:, given:].tolist()]

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """What is said of each of `metrics`."""
        ways = ("greedy", "beam") if self.generation.num_beams > 1 else ("greedy",)
        scores = PRONUNCIATION_METRICS if self.has_phones else TEXT_METRICS
        return {
            f"{way}_{name}": replace(metric, label=f"{metric.label} ({way})", is_last_only=True)
            for way in ways
            for name, metric in scores.items()
        }

    def metrics(self, written: Sequence[Written]) -> dict[str, float]:
        """Scores of greedy decoding and of beam search, by `greedy_` and `beam_`.

        Of phones, phone and word error rate; of texts, BLEU, chrF, ROUGE, word error rate.
        """
        scores: Callable[[Sequence[str], Sequence[str]], dict[str, float]]
        scores = pronunciation_scores if self.has_phones else text_scores
        texts = {"greedy": [text.greedy for text in written]}
        texts["beam"] = [text.beam for text in written if text.beam is not None]
        return {
            f"{way}_{name}": value
            for way, found in texts.items()
            if found
            for name, value in scores(found, self.references[: len(written)]).items()
        }


def _until(end: int, ids: Ids) -> Ids:
    return ids[: ids.index(end)] if end in ids else ids


def groups_of_equal_length(lengths: IntArray) -> list[IntArray]:
    """Numbers 0…N−1 in groups whose lengths are equal, so that a decoder needs no padding."""
    return [
        numbers[i : i + WRITING_BATCH_SIZE]
        for length in np.unique(lengths)
        for numbers in [np.flatnonzero(lengths == length)]
        for i in range(0, len(numbers), WRITING_BATCH_SIZE)
    ]
