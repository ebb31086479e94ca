"""Dropout reaches every layer that has one; label smoothing is in the training loss alone."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scaling.spec.models import FromScratch
from scaling.tasks.errors import DataError
from scaling.tasks.model.architectures import model_config
from scaling.tasks.prepare import prepare_task
from tests.recipes import EVALUATION, part_of_speech, pronunciation, recipe
from tests.training.test_loop import run

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("llama", ["attention_dropout"]),
        ("gpt2", ["resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_first_dropout"]),
        ("bert", ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"]),
        ("mbart", ["dropout", "attention_dropout", "activation_dropout", "classifier_dropout"]),
        ("t5", ["dropout_rate", "classifier_dropout"]),
    ],
)
def test_every_dropout_of_an_architecture(architecture: str, names: list[str]) -> None:
    task: Any = prepare_task(pronunciation(), EVALUATION)
    spec = FromScratch(architecture=architecture, **SIZES)
    sizes: dict[str, Any] = {
        "tokenizer": task.token_model.tokenizer,
        "max_length": 16,
        "num_labels": 0,
    }
    sizes["head"] = "seq2seq_lm" if architecture in ("mbart", "t5") else "causal_lm"
    config = model_config(spec, **sizes, dropout=0.25)
    assert [getattr(config, name) for name in names] == [0.25] * len(names)
    found = [name for name in vars(config) if "dropout" in name or name.endswith("pdrop")]
    assert {name for name in found if getattr(config, name) == 0.25} == set(names)
    plain = model_config(spec, **sizes)
    assert getattr(plain, names[0]) != 0.25


def test_an_architecture_without_dropout_says_so() -> None:
    task: Any = prepare_task(pronunciation(), EVALUATION)
    spec = FromScratch(architecture="mamba", **SIZES)
    with pytest.raises(DataError, match="mamba has no dropout to set"):
        model_config(
            spec,
            tokenizer=task.token_model.tokenizer,
            max_length=16,
            num_labels=0,
            head="causal_lm",
            dropout=0.1,
        )


def test_dropout_acts_in_training_and_not_in_evaluation() -> None:
    workload = part_of_speech().model_copy(
        update={"model": FromScratch(architecture="bert", **SIZES)}
    )
    task = prepare_task(workload, EVALUATION)
    batch = task.collate(np.arange(8), 0)
    for dropout, differs in [(0.0, False), (0.3, True)]:
        model = task.new_model(0, dropout=dropout)
        assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {dropout}
        first, second = (task.loss_sum(model, batch).item() for _ in range(2))
        assert (first != second) == differs
        model.eval()
        first, second = (task.loss_sum(model, batch).item() for _ in range(2))
        assert first == second


@pytest.mark.parametrize("workload", [pronunciation(), part_of_speech()], ids=lambda w: w.task)
def test_label_smoothing_by_its_formula(workload: Any) -> None:
    # (1 − ε) × the loss + ε × the mean of −log p over all classes, for targets that count.
    task: Any = prepare_task(workload, EVALUATION)
    model = task.new_model(0).eval()
    batch = task.collate(np.arange(6), 0)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        logs = torch.log_softmax(model(**inputs).logits.double(), -1).flatten(0, -2)
        labels = batch["labels"].flatten()
        counted = labels != -100
        plain = -logs[counted].gather(1, labels[counted][:, None]).sum()
        spread = -logs[counted].mean(-1).sum()
        found = float(task.loss_sum(model, batch, label_smoothing=0.1))
        assert found == pytest.approx(float(0.9 * plain + 0.1 * spread), rel=1e-5)
        assert float(task.loss_sum(model, batch)) == pytest.approx(float(plain), rel=1e-5)


def test_a_smoothed_run_is_evaluated_without_smoothing() -> None:
    task: Any = prepare_task(pronunciation(), EVALUATION)
    _, plain = run(task, recipe(8, 3e-3, 5))
    _, smoothed = run(task, recipe(8, 3e-3, 5, label_smoothing=0.5))
    assert smoothed[0].validation_loss == plain[0].validation_loss
    assert smoothed[-1].step_loss != plain[-1].step_loss
    assert math.isfinite(smoothed[-1].validation_loss or math.nan)
