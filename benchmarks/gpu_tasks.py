"""What the checks train: random characters, read from files as a user's own would be."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scaling.records.measurement import Measurement
from scaling.records.recipe import Hyperparameters, Layout, Recipe
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import CausalLm, TextClassification, Workload
from scaling.tasks.prepare import prepare_task
from scaling.tasks.text_task import TextTask
from scaling.training.loop import Outcome, train
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Directive, Supervision

SMALL: Mapping[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
MIDDLE: Mapping[str, Any] = {
    "hidden_size": 512, "num_hidden_layers": 6, "num_attention_heads": 8,
}  # fmt: skip
# 85 million weights in its blocks and 40 million in its embeddings and head.
LARGE: Mapping[str, Any] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 2048,
}  # fmt: skip
LARGE_VOCABULARY = 26_000
_BLOCKS = ((0x4E00, 20_992), (0xAC00, 11_172))  # Chinese and Korean characters: one a token
NUM_HELD_OUT = 16
NO_EVALUATION = Evaluation(every_steps=10**6, num_examples=2)


@dataclass(frozen=True)
class Trained:
    """A task with the part of a study file that it is from."""

    task: TextTask
    workload: Workload


@cache
def language(
    sizes: str,
    *,
    architecture: str = "llama",
    length: int = 24,
    vocabulary: int = 200,
    num_train: int = 256,
    varied: bool = False,
) -> Trained:
    """Next characters of random texts.

    Args:
        sizes: SMALL, MIDDLE or LARGE.
        architecture: Of transformers.
        length: Tokens that the model reads of each text.
        vocabulary: Different characters.
        num_train: Texts.
        varied: Whether texts have any length from an eighth of that.
    """
    rng = np.random.default_rng(0)
    characters = [chr(start + i) for start, count in _BLOCKS for i in range(count)][:vocabulary]

    def rows(count: int) -> list[dict[str, Any]]:
        lengths = rng.integers(length // 8, length + 1, count) if varied else [length] * count
        drawn = (rng.integers(0, len(characters), n) for n in lengths)
        return [{"text": "".join(characters[i] for i in text)} for text in drawn]

    return _prepared(CausalLm, "causal_lm", architecture, sizes, length + 1, rows, num_train)


@cache
def classes(sizes: str, *, architecture: str = "bert", length: int = 24) -> Trained:
    """The class of random texts, by an encoder."""
    rng = np.random.default_rng(0)

    def rows(count: int) -> list[dict[str, Any]]:
        drawn = rng.integers(0, 200, (count, length - 1))
        texts = ("".join(chr(_BLOCKS[0][0] + i) for i in text) for text in drawn)
        return [{"text": text, "label": "ab"[n % 2]} for n, text in enumerate(texts)]

    name = "text_classification"
    return _prepared(TextClassification, name, architecture, sizes, length, rows, 256)


def _prepared(
    section: Any, name: str, architecture: str, sizes: str, max_length: int,
    rows: Callable[[int], list[dict[str, Any]]], num_train: int,
) -> Trained:  # fmt: skip
    model = {"architecture": architecture, **globals()[sizes]}
    if architecture == "bert":
        model["config"] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if architecture == "gpt2":
        model["config"] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    with tempfile.TemporaryDirectory() as folder:
        files: dict[str, str] = {}
        for split, count in (
            ("train", num_train), ("validation", NUM_HELD_OUT), ("test", NUM_HELD_OUT),
        ):  # fmt: skip
            files[split] = str(Path(folder, f"{split}.jsonl"))
            lines = (json.dumps(row) for row in rows(count))
            Path(files[split]).write_text("\n".join(lines), encoding="ascii")
        data = {"files": files, "max_length": max_length, "tokenizer": "characters"}
        workload = section.model_validate({"task": name, "model": model, "data": data})
        task = prepare_task(workload, Evaluation(every_steps=5, num_examples=NUM_HELD_OUT))
    assert isinstance(task, TextTask)
    return Trained(task, workload)


def recipe(
    global_batch_size: int, num_steps: int, *, peak_lr: float = 1e-3, **others: Any
) -> Recipe:
    """A recipe of AdamW with clipping; `others` are of hyperparameters or of the layout."""
    layout = {n: others.pop(n) for n in Layout.__dataclass_fields__.keys() & others.keys()}
    share = global_batch_size // layout.get("world_size", 1)
    micro = layout.pop("micro_batch_size", share)
    hparams = Hyperparameters(
        global_batch_size=global_batch_size, peak_lr=peak_lr, num_steps=num_steps,
        weight_decay=0.01, **{"clip_norm": 1.0, **others},
    )  # fmt: skip
    cut = Layout(micro_batch_size=micro, grad_accum_steps=share // micro, **layout)
    return Recipe(1, hparams, cut)


@dataclass
class Run:
    """A trial's end and what it measured on the way."""

    outcome: Outcome
    measured: list[Measurement]
    incidents: list[Any] = field(default_factory=list)

    @property
    def last(self) -> Measurement:
        """The last measurement."""
        return self.measured[-1]


def run(
    task: Any,
    how: Recipe,
    device: str | Workers,
    evaluation: Evaluation = NO_EVALUATION,
    supervision: Supervision = Supervision(),  # noqa: B008  # immutable
    on_report: Callable[[Measurement], None] = lambda _: None,
) -> Run:
    """Train a trial in this process."""
    workers = device if isinstance(device, Workers) else Workers(device=torch.device(device))
    measured: list[Measurement] = []
    incidents: list[Any] = []

    def report(measurement: Measurement, *, at_rung: bool) -> Directive:
        del at_rung
        measured.append(measurement)
        on_report(measurement)
        return "continue"

    watched = replace(supervision, note=incidents.append)
    outcome = train(task, how, evaluation, workers, report, watched)
    return Run(outcome, measured, incidents)


class Watched:
    """A task that says when a step begins and when an evaluation does."""

    def __init__(self, task: Any, step: Callable[[], None], evaluation: Callable[[], None]) -> None:
        self._task, self._step, self._evaluation = task, step, evaluation

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def begin_batch(self) -> None:
        """Of every step."""
        self._step()
        self._task.begin_batch()

    def example_losses(self, *args: Any) -> Any:
        """Of every split that is evaluated."""
        self._evaluation()
        return self._task.example_losses(*args)


def largest_difference(ours: Sequence[Measurement], theirs: Sequence[Measurement]) -> float:
    """Largest relative difference of two runs' losses and gradient norms."""
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        for name in ("train_loss", "validation_loss", "step_loss", "grad_norm"):
            own, other = getattr(a, name), getattr(b, name)
            if own is not None and other is not None:
                worst = max(worst, abs(own - other) / abs(other))
    return worst
