"""Texts that a model writes: greedy decoding and beam search."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from scaling.records.metrics import Metric
from scaling.spec.workloads import Generation
from scaling.tasks.task import Written

WRITING_BATCH_SIZE = 50

Ids = list[int]


def write_batch(
    model: nn.Module,
    inputs: dict[str, Tensor],
    generation: Generation,
    *,
    special_ids: dict[str, int],
    max_new_tokens: int,
    as_text: Callable[[Sequence[int]], str],
) -> list[Written]:
    """What a model writes for a batch, each example ending at its first end token.

    Args:
        model: A transformers model that generates, in eval mode.
        inputs: `input_ids` and `attention_mask`, [B, L]; a decoder's have no padding.
        generation: How many beams.
        special_ids: `eos_token_id`, `pad_token_id` and an encoder-decoder's
            `decoder_start_token_id`.
        max_new_tokens: Most tokens to write.
        as_text: The text of generated ids.
    """
    greedy = _generated(model, inputs, special_ids, max_new_tokens, num_beams=1)
    if generation.num_beams == 1:
        return [Written(as_text(ids), None) for ids in greedy]
    beam = _generated(model, inputs, special_ids, max_new_tokens, generation.num_beams)
    return [
        Written(as_text(ours), as_text(theirs)) for ours, theirs in zip(greedy, beam, strict=True)
    ]


def _generated(
    model: Any,
    inputs: dict[str, Tensor],
    special_ids: dict[str, int],
    max_new_tokens: int,
    num_beams: int,
) -> list[Ids]:
    """Generated ids alone: neither the prompt nor a decoder's start."""
    ids_bl = model.generate(
        **inputs, **special_ids, max_new_tokens=max_new_tokens, num_beams=num_beams,
        do_sample=False,
    )  # fmt: skip
    given = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    return [_until_end(ids, special_ids["eos_token_id"]) for ids in ids_bl[:, given:].tolist()]


def _until_end(ids: Ids, end: int) -> Ids:
    return ids[: ids.index(end)] if end in ids else ids


def groups_of_equal_length(lengths: Sequence[int]) -> list[list[int]]:
    """Numbers 0…N−1 in groups whose lengths are equal, so that a decoder needs no padding."""
    of_length: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        of_length.setdefault(int(length), []).append(number)
    return [
        numbers[i : i + WRITING_BATCH_SIZE]
        for _, numbers in sorted(of_length.items())
        for i in range(0, len(numbers), WRITING_BATCH_SIZE)
    ]


def both_ways(
    written: Sequence[Written],
    references: Sequence[str],
    scores: Callable[[Sequence[str], Sequence[str]], dict[str, float]],
) -> dict[str, float]:
    """Scores of greedy decoding and of beam search, by `greedy_` and `beam_`."""
    references = references[: len(written)]
    metrics = {
        f"greedy_{name}": value
        for name, value in scores([text.greedy for text in written], references).items()
    }
    beams = [text.beam for text in written if text.beam is not None]
    if beams:
        metrics |= {f"beam_{name}": value for name, value in scores(beams, references).items()}
    return metrics


def described_both_ways(metrics: Mapping[str, Metric], generation: Generation) -> dict[str, Metric]:
    """What is said of the metrics of `both_ways`, from what is said of the scores."""
    ways = ("greedy", "beam") if generation.num_beams > 1 else ("greedy",)
    return {
        f"{way}_{name}": replace(metric, label=f"{metric.label} ({way})")
        for way in ways
        for name, metric in metrics.items()
    }


def on_device(ids_bl: Tensor, device: torch.device) -> dict[str, Tensor]:
    """Prompts of equal length as a decoder's inputs."""
    ids_bl = ids_bl.to(device)
    return {"input_ids": ids_bl, "attention_mask": torch.ones_like(ids_bl)}
