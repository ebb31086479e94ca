"""A model that is kept loads outside of this package, and has the test loss that was recorded."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from scaling.tasks.own.module_task import LossModule
from scaling.tasks.prepare import prepare_task
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import (
    EVALUATION,
    changed,
    own_sequences,
    part_of_speech,
    pronunciation,
    recipe,
    tagging,
)
from tests.together import on_workers
from tests.training.adapted import adapted
from tests.training.test_checkpoint import run

CPU = torch.device("cpu")
AUTO: Mapping[str, Any] = {
    "sequence_classification": transformers.AutoModelForSequenceClassification,
    "token_classification": transformers.AutoModelForTokenClassification,
    "causal_lm": transformers.AutoModelForCausalLM,
}


def trained(task: Any, folder: Path, workers: Workers | None = None, **changes: Any) -> float:
    """The test loss of a run whose model is kept."""
    how = changed(recipe(8, 1e-2, 6, world_size=workers.world_size if workers else 1), **changes)
    kept = Supervision(model_folder=str(folder))
    _, measurements = run(task, how, kept, EVALUATION, workers)
    loss = measurements[-1].test_loss
    assert loss is not None
    return loss


def loss_of(task: Any, model: Any) -> float:
    everything = slice(0, task.num_evaluated("test"))
    with torch.inference_mode():
        return task.example_losses(model.eval(), "test", everything, CPU).loss


def loaded(task: Any, folder: Path) -> Any:
    return AUTO[task.head].from_pretrained(folder)


@pytest.mark.parametrize(
    "workload", [part_of_speech(), pronunciation(), tagging()], ids=lambda w: w.task
)
def test_a_kept_model_has_the_recorded_test_loss(workload: Any, tmp_path: Path) -> None:
    task: Any = prepare_task(workload, EVALUATION)
    expected = trained(task, tmp_path / "kept", weight_average_half_life_examples=20.0)
    model = loaded(task, tmp_path / "kept")
    assert loss_of(task, model) == pytest.approx(expected, abs=1e-6)
    assert loss_of(task, task.new_model(1)) != pytest.approx(expected, abs=1e-3)


def test_tokenizer_and_label_names_come_with_it(tmp_path: Path) -> None:
    task: Any = prepare_task(part_of_speech(), EVALUATION)
    trained(task, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    unit = task.token_model.tokenizer
    assert tokenizer("running")["input_ids"] == [unit.ids["<sep>"], *unit._encode("running")]
    assert tokenizer.pad_token_id == unit.pad_id
    config = loaded(task, tmp_path).config
    assert sorted(config.label2id) == sorted(config.id2label.values())
    assert len(config.id2label) == task.num_labels
    assert not any(name.startswith("LABEL_") for name in config.label2id)
    classify = transformers.pipeline("text-classification", model=str(tmp_path))
    [found] = classify("running")
    assert found["label"] in config.label2id


def test_weights_of_a_module_of_ones_own(tmp_path: Path) -> None:
    task: Any = prepare_task(own_sequences(num_train=40), EVALUATION)
    how = recipe(8, 1e-2, 6)
    _, measurements = run(task, how, Supervision(model_folder=str(tmp_path)), EVALUATION)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    model = task.new_model(5)
    assert isinstance(model, LossModule)
    model.module.load_state_dict(weights)
    everything = slice(0, task.num_evaluated("validation"))
    with torch.inference_mode():
        found = task.example_losses(model.eval(), "validation", everything, CPU).loss
    assert found == pytest.approx(measurements[-1].validation_loss, abs=1e-6)


@pytest.mark.skipif(find_spec("peft") is None, reason="the extra lora is missing")
def test_adapters_are_merged(tmp_path: Path) -> None:
    workload = adapted("text_classification", str(tmp_path / "from"))
    task: Any = prepare_task(workload, EVALUATION)
    expected = trained(task, tmp_path / "kept")
    model = loaded(task, tmp_path / "kept")
    assert not any("lora" in name for name, _ in model.named_parameters())
    assert loss_of(task, model) == pytest.approx(expected, abs=1e-5)


def train_in_parts(workers: Workers, folder: str, strategy: str) -> float:
    task = prepare_task(part_of_speech(), EVALUATION)
    changes = {"strategy": strategy, "weight_average_half_life_examples": 20.0}
    return trained(task, Path(folder), workers, **changes)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["fsdp", "zero1", "zero3"])
def test_weights_that_are_cut_are_kept_whole(strategy: str, tmp_path: Path) -> None:
    if strategy != "fsdp":
        pytest.importorskip("deepspeed")
    expected = on_workers(train_in_parts, str(tmp_path), strategy)
    task: Any = prepare_task(part_of_speech(), EVALUATION)
    assert loss_of(task, loaded(task, tmp_path)) == pytest.approx(expected, abs=1e-5)
