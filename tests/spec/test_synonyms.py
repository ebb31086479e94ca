"""Keys and values of other tools: what is said names the field of ours that is meant."""

from typing import Any

import pytest
import yaml

from scaling.spec.issues import StudyFileError
from scaling.spec.read import study_from_mapping
from scaling.spec.schema import places_of_fields
from scaling.spec.synonyms import SYNONYMS

STUDY = """
name: brought_along
question: Is what is meant said?
workload:
  task: causal_lm
  model: {architecture: llama, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4}
  data: {source: "builtin:python_topics"}
fixed: {global_batch_size: 16, peak_lr: 1.0e-3}
budget: {steps: 100}
evaluation: {every_steps: 10}
search: {trials_per_cell: 1}
"""


def lines_of(*keys: str, value: Any = 1, without: str = "") -> list[str]:
    """What is said of the study with a key at a place, and without another one there."""
    study = yaml.safe_load(STUDY)
    holder = study
    for key in keys[:-1]:
        holder = holder.setdefault(key, {})
    holder.pop(without, None)
    holder[keys[-1]] = value
    with pytest.raises(StudyFileError) as caught:
        study_from_mapping(study)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "fixed.peak_lr"),
        ("learning_rate", "fixed.peak_lr"),
        ("learning-rate", "fixed.peak_lr"),
        ("batch_size", "fixed.global_batch_size"),
        ("bs", "fixed.global_batch_size"),
        ("train_batch_size", "fixed.global_batch_size"),
        ("per_device_train_batch_size", "resources.micro_batch_size"),
        ("micro_batch", "resources.micro_batch_size"),
        ("gradient_accumulation_steps", "resources.micro_batch_size (accumulation follows"),
        ("max_grad_norm", "fixed.clip_norm"),
        ("gradient_clip_val", "fixed.clip_norm"),
        ("warmup", "fixed.warmup_steps"),
        ("num_warmup_steps", "fixed.warmup_steps"),
        ("lr_scheduler_type", "fixed.schedule"),
        ("adam_beta1", "fixed.beta1"),
        ("adam_beta2", "fixed.beta2"),
        ("adam_epsilon", "fixed.eps"),
        ("num_train_epochs", "budget.epochs"),
        ("max_epochs", "budget.epochs"),
        ("max_steps", "budget.steps"),
        ("eval_steps", "evaluation.every_examples (in examples; every_steps for steps)"),
        ("n_trials", "search.num_trials (of all cells together)"),
        ("num_samples", "search.num_trials"),
        ("points_to_evaluate", "search.prior_peak_lr"),
        ("max_seq_length", "workload.data.max_length (in tokens)"),
        ("model_name_or_path", "workload.model.pretrained"),
        ("dataset_name", "workload.data.source"),
        ("label_smoothing_factor", "fixed.label_smoothing"),
        ("optim", "fixed.optimizer"),
        ("fp16", "resources.precision"),
        ("bf16", "resources.precision"),
        ("devices", "resources.num_workers"),
        ("accelerator", "resources.gpus_per_worker"),
        ("output_dir", "storage"),
        # our own names, elsewhere than they belong
        ("weight_decay", "scientific.weight_decay or nuisance.weight_decay or fixed.weight_decay"),
        ("num_beams", "workload.generation.num_beams"),
        ("precision", "resources.precision"),
    ],
)
def test_a_key_at_the_top_is_said_where_it_belongs(key: str, meant: str) -> None:
    [line] = lines_of(key)
    assert line.startswith((f"{key}: unknown key; did you mean {meant}", f'"{key}": unknown key'))
    assert meant in line


@pytest.mark.parametrize(
    ("section", "key", "meant"),
    [
        ("fixed", "learning_rate", "peak_lr"),
        ("nuisance", "learning_rate", "peak_lr"),
        ("scientific", "learning_rate", "peak_lr"),
        ("fixed", "epochs", "budget.epochs"),
        ("fixed", "seed", "seed"),
        ("budget", "max_steps", "steps"),
        ("evaluation", "eval_steps", "every_examples"),
        ("search", "n_trials", "num_trials"),
        ("resources", "fp16", "precision"),
        ("budget", "learning_rate", "fixed.peak_lr"),
    ],
)
def test_a_key_in_a_section_is_said_in_its_words(section: str, key: str, meant: str) -> None:
    [line] = lines_of(section, key)
    said = line.removeprefix(f"{section}.{key}: unknown key; did you mean ")
    assert said.rstrip("?").split(" (")[0] == meant


def test_a_misspelt_key_is_not_missing_too() -> None:
    [line] = lines_of("search", "trial_per_cell", without="trials_per_cell")
    assert line == "search.trial_per_cell: unknown key; did you mean trials_per_cell?"
    [line] = lines_of("serch", value={"trials_per_cell": 1}, without="search")
    assert line == "serch: unknown key; did you mean search?"
    [line] = lines_of("fixed", "learning_rate", without="peak_lr")
    assert line == "fixed.learning_rate: unknown key; did you mean peak_lr?"
    [line] = lines_of("learning_rate", value=0.1, without="fixed")
    assert line == "learning_rate: unknown key; did you mean fixed.peak_lr?"


@pytest.mark.parametrize("value", [0, 1.5, "x", True, [1], {}])
def test_a_value_that_may_be_of_two_types_is_one_error(value: Any) -> None:
    for key in ("num_workers", "micro_batch_size"):
        [line] = lines_of("resources", key, value=value)
        assert line.startswith(f"resources.{key}: ")


@pytest.mark.parametrize(
    ("keys", "value", "meant"),
    [
        (("fixed", "optimizer"), "adamw_torch_fused", "adamw"),
        (("fixed", "schedule"), "cosine_with_restarts", "cosine"),
        (("fixed", "schedule"), "constant_with_warmup", "constant"),
        (("resources", "precision"), "16-mixed", "fp16"),
        (("resources", "strategy"), "deepspeed_stage_2", "zero2"),
        (("search", "sampler"), "bayes", "tpe"),
        (("search", "sampler"), "gaussian_process", "surface"),
    ],
)
def test_a_value_of_another_tool_is_known(keys: tuple[str, ...], value: str, meant: str) -> None:
    [line] = lines_of(*keys, value=value)
    assert f"{'.'.join(keys)}: is not a known value; did you mean {meant}?" in line


def test_a_task_of_another_tool_is_known() -> None:
    [line] = lines_of("workload", "task", value="text-classification")
    assert "did you mean text_classification?" in line


def test_trained_weights_beside_sizes_are_one_error() -> None:
    [line] = lines_of("workload", "model", "pretrained", value="some/model")
    assert line.startswith(
        "workload.model: has architecture, hidden_size, num_hidden_layers, num_attention_heads "
        "beside pretrained: give pretrained"
    )


def test_every_name_stands_for_a_field_that_there_is() -> None:
    paths = {path for places in places_of_fields().values() for path in places}
    assert {meant.path for meant in SYNONYMS.values()} <= paths


def test_a_long_list_of_keys_is_cut() -> None:
    [line] = lines_of("fixed", "nonsense")
    assert line.endswith(", … (33 in all))")
    assert len(line) < 250
