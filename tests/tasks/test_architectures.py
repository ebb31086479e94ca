"""Every architecture of transformers, in every family: it trains, or one line says why not."""

import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from scaling.spec.models import FromScratch
from scaling.spec.workloads import CausalLm
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.tasks.trainable import require_trainable
from tests.recipes import (
    EVALUATION,
    TINY_LLAMA,
    part_of_speech,
    pronunciation,
    python_questions,
    spelling,
    tagging,
)

FAMILIES = {
    "CausalLM": "causal_lm",
    "SequenceClassification": "text_classification",
    "TokenClassification": "token_classification",
    "QuestionAnswering": "question_answering",
    "Seq2SeqLM": "seq2seq",
}


@dataclass(frozen=True)
class Draw:
    """A model of random small sizes for a family."""

    architecture: str
    family: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int


def draws(seed: int) -> Iterator[Draw]:
    """All architectures in the families that they have a head for, in random order.

    One in eight of the others is there too, in a family that it has no head for.
    """
    import transformers
    from transformers import CONFIG_MAPPING

    heads = {
        family: getattr(transformers, f"AutoModelFor{head}")._model_mapping._model_mapping
        for head, family in FAMILIES.items()
    }
    rng = random.Random(seed)
    pairs: list[tuple[str, str]] = []
    for architecture in sorted(CONFIG_MAPPING.keys()):
        families = [family for family, known in heads.items() if architecture in known]
        if "causal_lm" in families:
            families.append("packed")
        if not families and rng.random() < 1 / 8:
            families = [rng.choice(list(FAMILIES.values()))]
        pairs += [(architecture, family) for family in families]
    rng.shuffle(pairs)
    for architecture, family in pairs:
        num_heads = rng.choice([1, 2, 3, 4, 8])
        odd = rng.choice([0, 0, 0, 1])
        width = num_heads * rng.choice([2, 3, 4, 5, 8, 16]) + odd
        yield Draw(architecture, family, width, rng.choice([1, 1, 2, 3]), num_heads)


@pytest.fixture(scope="module")
def tasks() -> dict[str, Any]:
    """A task of each family, whose model is taken out."""
    packed = {
        "task": "causal_lm", "model": TINY_LLAMA, "packing": True,
        "data": {"source": "builtin:python_topics", "num_train": 20, "max_length": 32},
    }  # fmt: skip
    workloads = {
        "causal_lm": pronunciation(), "text_classification": part_of_speech(),
        "token_classification": tagging(), "question_answering": python_questions(),
        "seq2seq": spelling(), "packed": CausalLm.model_validate(packed),
    }  # fmt: skip
    return {name: prepare_task(workload, EVALUATION) for name, workload in workloads.items()}


def outcome(draw: Draw, tasks: dict[str, Any]) -> str:
    """`trains`, or what refused it; raises what a user would see as a traceback."""
    sizes = {
        "hidden_size": draw.hidden_size, "num_hidden_layers": draw.num_hidden_layers,
        "num_attention_heads": draw.num_attention_heads,
    }  # fmt: skip
    if draw.hidden_size % draw.num_attention_heads:
        with pytest.raises(ValidationError, match="must be a multiple of num_attention_heads"):
            FromScratch(architecture=draw.architecture, **sizes)
        return "widths"
    model = FromScratch(architecture=draw.architecture, **sizes)
    task = tasks[draw.family]
    task = replace(task, token_model=replace(task.token_model, spec=model))
    refusal: DataError | None = None
    try:
        require_trainable(task, 0)
    except DataError as error:
        refusal = error
    if refusal is None:
        train_a_step(task)
        return "trains"
    assert len(str(refusal).splitlines()) == 1, refusal
    assert refusal.path.startswith("workload."), refusal
    return refusal.path


def train_a_step(task: Task) -> None:
    model = task.new_model(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    loss = task.loss_sum(model, task.collate(np.arange(4), 0))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(weight).all() for weight in model.parameters())


def every_outcome(found: Iterator[Draw], tasks: dict[str, Any], monkeypatch: Any) -> list[str]:
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *host, **_: asked.append(host))
    outcomes = [outcome(draw, tasks) for draw in found]
    assert not asked, "something was to be fetched"
    return outcomes


@pytest.mark.filterwarnings("ignore")  # of architectures' own
def test_architectures_train_or_are_refused_in_one_line(
    tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = list(draws(seed=14))[:40]
    outcomes = every_outcome(iter(found), tasks, monkeypatch)
    assert outcomes.count("trains") > 10
    assert len(set(outcomes)) > 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", [1, 2])
def test_all_architectures_train_or_are_refused_in_one_line(
    seed: int, tasks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = every_outcome(draws(seed), tasks, monkeypatch)
    assert outcomes.count("trains") > 200
