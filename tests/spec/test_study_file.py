"""Study files: what a good one reads as, and what is said of every kind of bad one."""

# ruff: noqa: E501  # one case a line

import copy
import inspect
import itertools
import json
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling.spec.checks.study import CHECKS
from scaling.spec.issues import MAX_ISSUES, NO_VALUE, Issue
from scaling.spec.read import (
    SCHEMA_PATH,
    StudyFileError,
    check_study,
    read_study,
    schema_text,
    spec_schema,
    study_from_mapping,
)
from scaling.spec.study import StudySpec

LM: dict[str, Any] = yaml.safe_load("""
name: lr_vs_batch
question: How must the peak learning rate move with the batch?
seed: 0
workload:
  task: causal_lm
  model: {architecture: llama, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 4}
  data: {source: "builtin:grapheme_to_phoneme", num_train: 4000}
scientific: {global_batch_size: [16, 64, 256, 1024]}
nuisance:
  peak_lr: {log_uniform: [1.0e-4, 3.0e-2]}
  warmup_ratio: {choice: [0.0, 0.05, 0.2]}
  clip_norm: {choice: [null, 1.0]}
fixed: {optimizer: adamw, weight_decay: 0.01, schedule: constant}
budget: {examples: 40000, min_steps: 150}
evaluation: {every_examples: 2000, num_examples: 2000}
target: {metric: validation_loss, at_most: 0.70}
search: {objective: validation_loss, sampler: qmc, trials_per_cell: 6, early_stopping: null}
transfer: {base_batch_size: 64, rules: [none, sqrt, linear], num_seeds: 3}
confirm: {num_seeds: 3}
resources: {num_workers: 2, strategy: ddp, precision: fp32, executor: pool}
storage: runs/lr_vs_batch
""")

QUADRATIC: dict[str, Any] = yaml.safe_load("""
name: noisy_quadratic
question: Are S_min and E_min found again?
workload: {task: noisy_quadratic}
scientific: {global_batch_size: [4, 64]}
fixed: {optimizer: sgd}
cell_recipes:
  - {cell: {global_batch_size: 4}, fixed: {peak_lr: 0.0254}}
  - {cell: {global_batch_size: 64}, fixed: {peak_lr: 0.369}}
budget: {steps: 600}
evaluation: {growth_ratio: 1.05}
target: {at_most: 0.01}
search: {trials_per_cell: 1}
""")

JOINT: dict[str, Any] = yaml.safe_load("""
name: joint_search
question: Which recipe is best?
workload:
  task: text_classification
  model: {pretrained: distilbert-base-uncased}
  data: {source: "hub:ag_news", subset: default, hub_splits: {validation: test}}
nuisance:
  global_batch_size: {choice: [16, 64]}
  base_lr: {log_uniform: [1.0e-5, 1.0e-3]}
  lr_scaling_rule: {choice: [linear, sqrt]}
  warmup_ratio: {uniform: [0.0, 0.2]}
  clip_norm: {choice: [null, 1.0]}
fixed: {base_batch_size: 16, schedule: linear}
budget: {epochs: 2}
evaluation: {every_steps: 50}
search: {sampler: tpe, trials_per_cell: 20}
""")

DROP = object()
"""Instead of a value: leave the key out."""

Changes = Mapping[str, Any]


def as_yaml(study: Mapping[str, Any]) -> str:
    """A study as the text of a file."""
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return yaml.dump(study, Dumper=dumper, allow_unicode=True)


def changed(study: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """A study with values set, or dropped, at dotted paths."""
    result = copy.deepcopy(dict(study))
    for path, value in changes.items():
        *outer, last = path.split(".")
        section: Any = result
        for key in outer:
            section = (
                section[int(key)] if isinstance(section, list) else section.setdefault(key, {})
            )
        if value is DROP:
            del section[last]
        elif isinstance(section, list):
            section[int(last)] = value
        else:
            section[last] = value
    return result


def issues_of(tmp_path: Path, study: Mapping[str, Any], changes: Changes) -> tuple[Issue, ...]:
    """What is said of a study file with changes."""
    file = tmp_path / "study.yaml"
    file.write_text(as_yaml(changed(study, changes)), encoding="utf-8")
    with pytest.raises(StudyFileError) as caught:
        read_study(file)
    return caught.value.issues


def issues_of_text(tmp_path: Path, content: bytes) -> tuple[Issue, ...]:
    file = tmp_path / "study.yaml"
    file.write_bytes(content)
    with pytest.raises(StudyFileError) as caught:
        read_study(file)
    return caught.value.issues


# --- good files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("study", [LM, QUADRATIC, JOINT], ids=lambda study: study["name"])
def test_good_studies_read_as_they_stand(tmp_path: Path, study: dict[str, Any]) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(as_yaml(study), encoding="utf-8")
    assert read_study(file) == StudySpec.model_validate(study) == study_from_mapping(study)


def test_numbers_and_words_read_as_people_mean_them(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    text = as_yaml(changed(LM, {"nuisance.peak_lr": "PEAK", "question": "ASKED"}))
    text = text.replace("PEAK", "{log_uniform: [3e-4, 1E-2]}").replace("ASKED", "2024-01-01")
    file.write_text(text.replace("40000", "40_000"), encoding="utf-8-sig")
    spec = read_study(file)
    assert spec.nuisance.peak_lr is not None
    assert spec.nuisance.peak_lr.log_uniform == (3e-4, 1e-2)
    assert spec.budget.examples == 40_000
    assert spec.question == "2024-01-01"


@pytest.mark.parametrize(
    ("written", "read"),
    [("no", "no"), ("off", "off"), ("1:30", "1:30"), ("007", "007"), ("=", "="), ("<<", "<<")],
)
def test_yaml_1_1_surprises_stay_text(tmp_path: Path, written: str, read: str) -> None:
    file = tmp_path / "study.yaml"
    text = as_yaml(changed(LM, {"question": "ASKED"}))
    file.write_text(text.replace("ASKED", written), encoding="utf-8")
    assert read_study(file).question == read


@pytest.mark.parametrize(
    ("written", "read"), [("1e3", 1000), ("1.5e3", 1500), ("1000.0", 1000), ("2.5E+2", 250)]
)
def test_whole_numbers_may_be_written_with_an_exponent(
    tmp_path: Path, written: str, read: int
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(as_yaml(LM), encoding="utf-8")
    paths = (
        "workload.data.num_train", "workload.data.max_length", "evaluation.num_examples", "seed",
        "search.trials_per_cell", "transfer.num_seeds", "workload.model.intermediate_size",
        "resources.micro_batch_size", "scientific.global_batch_size.3",
    )  # fmt: skip
    spec = read_study(file, [f"{path}={written}" for path in paths]).model_dump()
    for path in paths:
        value: Any = spec
        for key in path.split("."):
            value = value[int(key) if key.isdigit() else key]
        assert value == read, path
        assert type(value) is int, path


@pytest.mark.parametrize("written", ["1e-3", "1.5", "1e400", "1e300", "0.1e1.0"])
def test_a_fraction_is_no_whole_number(tmp_path: Path, written: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(as_yaml(LM), encoding="utf-8")
    with pytest.raises(StudyFileError) as caught:
        read_study(file, [f"search.trials_per_cell={written}"])
    [issue] = caught.value.issues
    assert str(issue).startswith("search.trials_per_cell: must be a whole number (got ")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.txt").write_text("text\n", encoding="utf-8")
    changes = {
        "workload.model": {"pretrained": "~/model"},
        "workload.data": {
            "files": {split: f"~/{split}.txt" for split in ("train", "validation", "test")},
            "tokenizer": "~/model",
        },
        "storage": "~/runs/x",
    }
    spec = study_from_mapping(changed(LM, changes))
    workload: Any = spec.workload
    assert workload.model.pretrained == workload.data.tokenizer == str(tmp_path / "model")
    assert workload.data.files.train == str(tmp_path / "train.txt")
    assert workload.data.files.test == str(tmp_path / "test.txt")
    assert spec.storage_path == str(tmp_path / "runs/x")
    spec = study_from_mapping(changed(LM, {"storage": "file://~/runs/x"}))
    assert spec.storage_path == str(tmp_path / "runs/x")
    [issue] = issues_of(tmp_path, LM, {"workload.model": {"pretrained": "~/no"}})
    assert str(issue).startswith("workload.model.pretrained: there is no such folder")


GOOD_CHANGES: list[tuple[dict[str, Any], Changes]] = [
    (LM, {"confirm": DROP, "storage": DROP}),
    (LM, {"fixed.warmup_steps": None, "fixed.peak_lr": None}),
    (LM, {"search.sampler": "grid", "search.trials_per_cell": 12, "nuisance.peak_lr": {"choice": [1e-3, 1e-2]}}),
    (LM, {"transfer.rules": ["adam_sde", "power(0.7)"]}),
    (LM, {"transfer.rules": ["none"], "fixed.optimizer": "sgd", "fixed.momentum": 0.9}),
    (LM, {"workload.data": {"source": "builtin:python_topics", "tokenizer": "characters"}}),
    (LM, {"nuisance.warmup_ratio": DROP, "fixed.warmup_steps": 150}),
    (LM, {"target": DROP, "fixed.schedule": "cosine", "fixed.min_lr_ratio": 0.1}),
    (LM, {"budget": {"seconds": 60}, "nuisance.warmup_ratio": DROP, "fixed.warmup_steps": 10}),
    (QUADRATIC, {"cell_recipes": [], "fixed.peak_lr": 0.1}),
    (QUADRATIC, {"fixed.peak_lr": 0.1, "cell_recipes.0": {"cell": {"global_batch_size": 64}, "fixed": {"peak_lr": 1}}, "cell_recipes.1.cell.global_batch_size": 4}),
    (JOINT, {"nuisance.optimizer": {"choice": ["adamw", "sgd"]}, "nuisance.momentum": {"choice": [0, 0.9]}}),
    (JOINT, {"nuisance.lr_scaling_rule": {"choice": ["adam_sde", "sqrt"]}}),
    (LM, {"scientific": {"optimizer": ["adamw", "sgd", "lamb", "lars", "adafactor", "lion", "muon"]}, "fixed": {"global_batch_size": 64, "beta2": 0.98}, "transfer": DROP}),
    (LM, {"fixed.optimizer": "sgd", "fixed.nesterov": True, "fixed.momentum": 0.9}),
    (LM, {"fixed.schedule": "inverse_sqrt", "nuisance.warmup_ratio": DROP, "nuisance.warmup_examples": {"choice": [0, 40000]}}),
    (LM, {"target": DROP, "fixed.schedule": "wsd", "nuisance.decay_ratio": {"uniform": [0.1, 0.8]}, "fixed.decay_shape": "one_minus_sqrt", "fixed.min_lr_ratio": 0.1}),
    (JOINT, {"nuisance.batch_ramp_every_examples": {"choice": [None, 5000]}, "nuisance.batch_ramp_factor": {"choice": [2, 4]}}),
    (JOINT, {"budget": {"steps": 200}, "fixed.batch_ramp_at_examples": [5000, 6000]}),
    (LM, {"target": DROP, "budget": {"examples": 40000}, "scientific.batch_ramp_every_examples": [None, 20000], "transfer": DROP}),
    (LM, {"transfer.rules": ["surge(31)", "surge(0.5)", "sqrt"], "fixed.beta2_scaling": "token_half_life", "fixed.weight_decay_scaling": "timescale", "nuisance.warmup_ratio": DROP, "fixed.warmup_steps": 20, "fixed.warmup_scaling": "examples"}),
    (JOINT, {"nuisance.beta2_scaling": {"choice": ["none", "token_half_life"]}, "fixed.weight_decay": 0.1, "nuisance.weight_decay_scaling": {"choice": ["none", "timescale"]}}),
    (LM, {"nuisance.clip_norm": DROP, "nuisance.clip_percentile": {"choice": [None, 10, 50]}, "fixed.clip_history_steps": 100}),
    (LM, {"nuisance.clip_norm": DROP, "nuisance.clip_value": {"log_uniform": [0.01, 1.0]}, "fixed.clip_norm": None}),
    (QUADRATIC, {"fixed.clip_value": 1.0}),
    (JOINT, {"workload.model.lora": {"alpha": 4.0, "target_modules": "all-linear"}, "nuisance.lora_rank": {"choice": [4, 8]}}),
    (JOINT, {"workload.model.lora": {"target_modules": ["query", "value"], "dropout": 0.1}}),
    (LM, {"nuisance.dropout": {"choice": [None, 0.1]}, "nuisance.label_smoothing": {"uniform": [0.0, 0.2]}}),
    (LM, {"budget": {"seconds": 60}, "fixed.schedule": "inverse_sqrt", "nuisance.warmup_ratio": DROP, "fixed.warmup_examples": 999}),
]  # fmt: skip


@pytest.mark.parametrize(("study", "changes"), GOOD_CHANGES, ids=lambda part: ",".join(part))
def test_allowed_variations(study: dict[str, Any], changes: Changes) -> None:
    study_from_mapping(changed(study, changes))


# --- malformed fields ---------------------------------------------------------------------------

Case = tuple[dict[str, Any], Changes, str, str]
TRAIN = "workload.data.files.train"
UNKNOWN_SECTION = "unknown key (allowed: name, question, seed, workload, scientific, nuisance"

STRUCTURE: list[Case] = [
    # missing
    (LM, {"name": DROP}, "name", "is required (allowed: text of the form"),
    (LM, {"question": DROP}, "question", "is required"),
    (LM, {"workload": DROP}, "workload", "is required (allowed: a mapping with keys task, model, data"),
    (LM, {"workload.task": DROP}, "workload.task", "is required (allowed: causal_lm, noisy_quadratic, question_answering, seq2seq, text_classification, token_classification)"),
    (LM, {"workload.model": DROP}, "workload.model", "is required (allowed: a mapping with keys architecture"),
    (LM, {"workload.model.hidden_size": DROP}, "workload.model.hidden_size", "is required (allowed: a whole number above 0 and at most 1048576)"),
    (LM, {"budget": DROP}, "budget", "is required (allowed: a mapping with keys steps, examples"),
    (LM, {"search": {}}, "search.trials_per_cell", "is required (allowed: a whole number above 0)"),
    (LM, {"evaluation": {}}, "evaluation", "give exactly one of every_examples, every_steps, growth_ratio"),
    (LM, {"target": {"metric": "validation_loss"}}, "target.at_most", "is required (allowed: a number above 0)"),
    (LM, {"budget": {"min_steps": 3}}, "budget", "give exactly one of steps, examples, tokens, epochs, seconds"),
    (LM, {"nuisance.peak_lr": {}}, "nuisance.peak_lr", "give exactly one of log_uniform, uniform, choice"),
    (LM, {"nuisance.peak_lr": {"log_uniform": [1e-3]}}, "nuisance.peak_lr.log_uniform.1", "is required (allowed: a number above 0)"),
    (LM, {"workload.data": {"files": {"train": 3}}}, TRAIN, "must be the path of a file, a list of different paths, or {glob: PATTERN} (got 3)"),
    (LM, {"workload.data": {"files": {"train": []}}}, TRAIN, "must be the path of a file, a list"),
    (LM, {"workload.data": {"files": {"train": ["a.csv", "a.csv"]}}}, TRAIN, "a list of different paths"),
    (LM, {"workload.data": {"files": {"train": {"globs": "a"}}}}, TRAIN, "or {glob: PATTERN}"),
    (LM, {"workload.data": {"files": {"train": "table.csv"}, "encoding": "utf-99"}}, "workload.data.encoding", "must be an encoding of text"),
    (LM, {"workload.data": {"files": {"train": "table.csv"}, "encoding": "hex"}}, "workload.data.encoding", "must be an encoding of text"),
    (LM, {"workload.data.missing_texts": "skip"}, "workload.data.missing_texts", "allowed: drop, error"),
    (LM, {"workload.data": {}}, "workload.data", "give exactly one of source and files"),
    # misspelt
    (LM, {"nuisence": {}}, "nuisence", "unknown key; did you mean nuisance?"),
    (LM, {"workload.data.num_trian": 10}, "workload.data.num_trian", "unknown key; did you mean num_train?"),
    (LM, {"fixed.batch_size": 16}, "fixed.batch_size", "unknown key; did you mean global_batch_size (examples per optimizer step of all workers together)?"),
    (LM, {"nonsense": 0.1}, "nonsense", UNKNOWN_SECTION),
    (LM, {"peak_lr": 0.1}, "peak_lr", "unknown key; did you mean scientific.peak_lr or nuisance.peak_lr or fixed.peak_lr?"),
    (LM, {"workload.model.heads": 4}, "workload.model.heads", "unknown key; did you mean num_attention_heads?"),
    (LM, {"fixed.nonsense": 4}, "fixed.nonsense", "(allowed: global_batch_size, batch_ramp_every_examples, batch_ramp_at_examples, batch_ramp_factor, peak_lr, base_lr, base_batch_size, lr_scaling_rule, … (33 in all))"),
    (LM, {"workload.model.lora": {"rank": 4}}, "workload.model.lora", "unknown key"),
    (JOINT, {"workload.model.lora": {"rank": 0}}, "workload.model.lora.rank", "must be above 0"),
    (JOINT, {"workload.model.lora": {"target_modules": []}}, "workload.model.lora.target_modules", "has too few entries"),
    (JOINT, {"workload.model.hidden_size": 4, "workload.model.architecture": "bert"}, "workload.model", "has architecture, hidden_size beside pretrained: give pretrained (and lora)"),
    (JOINT, {"workload.model.n_layer": 4}, "workload.model", "has n_layer beside pretrained"),
    (JOINT, {"workload.data.hub_splits": {"trian": "x"}}, "workload.data.hub_splits.trian", "did you mean train? (got \"trian\"; allowed: train, validation, test)"),
    (LM, {"workload.task": "causal_llm"}, "workload.task", "did you mean causal_lm?"),
    (LM, {"resources.strategy": "tp", "workload.task": "causal_llm"}, "workload.task", "did you mean causal_lm?"),
    (LM, {"fixed.schedule": "cosin"}, "fixed.schedule", "did you mean cosine? (got \"cosin\"; allowed: constant, linear, cosine, inverse_sqrt, wsd)"),
    (LM, {"fixed.optimizer": "adam"}, "fixed.optimizer", "did you mean adamw? (got \"adam\"; allowed: adamw, sgd, lamb, lars, adafactor, lion, muon)"),
    (LM, {"resources.strategy": "fsdp2"}, "resources.strategy", "allowed: ddp, fsdp, zero1, zero2, zero3, tp"),
    (LM, {"search.sampler": "bayes"}, "search.sampler", "allowed: qmc, random, grid, tpe"),
    (LM, {"search.objective": "train_loss"}, "search.objective", "allowed: validation_loss, steps_to_target, examples_to_target"),
    (LM, {"target.metric": "accuracy"}, "target.metric", "allowed: validation_loss"),
    (LM, {"fixed.lr_scaling_rule": "cubic"}, "fixed.lr_scaling_rule", "must be none, sqrt, linear, adam_sde or power(EXPONENT)"),
    (LM, {"transfer.rules": ["power(x)"]}, "transfer.rules.0", "power(EXPONENT), as in power(0.7), or surge(BNOISE), as in surge(31) (got \"power(x)\")"),
    (LM, {"cell_recipes": [{"cell": {}, "fixed": {"lr": 1}}]}, "cell_recipes.0.fixed.lr", "unknown key"),
    # wrong type
    (LM, {"seed": "zero"}, "seed", "must be a whole number (got \"zero\"; allowed: a whole number at least 0 and below 2147483648)"),
    (LM, {"seed": True}, "seed", "must be a whole number (got true"),
    (LM, {"seed": 1.5}, "seed", "must be a whole number (got 1.5"),
    (LM, {"name": 3}, "name", "must be text (got 3"),
    (LM, {"question": None}, "question", "must be text (got null"),
    (LM, {"workload": 3}, "workload", "must be a mapping (got 3"),
    (LM, {"workload.task": [1]}, "workload.task", "is not a known value (got [1]; allowed: causal_lm"),
    (LM, {"workload.model": "llama"}, "workload.model", "must be a mapping (got \"llama\""),
    (LM, {"workload.data.num_train": "4000"}, "workload.data.num_train", "must be a whole number (got \"4000\""),
    (LM, {"workload.model.config": {"a": [1]}}, "workload.model.config.a", "is of the wrong type (got [1]; allowed: true or false or a whole number"),
    (LM, {"scientific.global_batch_size": 64}, "scientific.global_batch_size", "must be a list; a single value belongs under fixed (got 64"),
    (LM, {"scientific.global_batch_size": [16, True]}, "scientific.global_batch_size.1", "must be a whole number (got true"),
    (LM, {"scientific.global_batch_size": [16, 64.5]}, "scientific.global_batch_size.1", "must be a whole number (got 64.5"),
    (LM, {"nuisance": None}, "nuisance", "must be a mapping (got null"),
    (LM, {"nuisance.peak_lr": 0.01}, "nuisance.peak_lr", "must be a mapping; a single value belongs under fixed (got 0.01; allowed: a mapping with keys log_uniform, uniform, choice)"),
    (LM, {"nuisance.peak_lr": [0.01, 0.1]}, "nuisance.peak_lr", "write {choice: […]}"),
    (LM, {"nuisance.peak_lr.choice": [0.1]}, "nuisance.peak_lr", "give exactly one of log_uniform, uniform, choice"),
    (LM, {"fixed.beta2": {"choice": [0.9]}}, "fixed.beta2", "search over values under nuisance"),
    (LM, {"fixed.weight_decay": False}, "fixed.weight_decay", "must be a number (got false"),
    (LM, {"cell_recipes": {}}, "cell_recipes", "must be a list (got {}"),
    (LM, {"cell_recipes": [{"cell": {"global_batch_size": [1]}, "fixed": {}}]}, "cell_recipes.0.cell.global_batch_size", "is of the wrong type"),
    (LM, {"search.early_stopping": True}, "search.early_stopping", "must be a mapping (got true"),
    (LM, {"storage": 3}, "storage", "must be text (got 3"),
    # out of range
    (LM, {"seed": -1}, "seed", "must be at least 0 (got -1"),
    (LM, {"seed": 2**31}, "seed", "must be below 2147483648 (got 2147483648"),
    (LM, {"seed": 10**400}, "seed", "must be a whole number (got .inf"),
    (LM, {"name": "../x"}, "name", "has the wrong form (got \"../x\""),
    (LM, {"name": "x" * 101}, "name", "must not be longer than 100 characters"),
    (LM, {"question": ""}, "question", "must not be empty"),
    (LM, {"scientific.global_batch_size": []}, "scientific.global_batch_size", "has too few entries (got []"),
    (LM, {"scientific.global_batch_size": [0, 16]}, "scientific.global_batch_size.0", "must be above 0 (got 0"),
    (LM, {"scientific.global_batch_size": [16, 2**31]}, "scientific.global_batch_size.1", "must be at most 2147483647"),
    (LM, {"scientific.global_batch_size": [16, 16]}, "scientific.global_batch_size", "values must differ from each other"),
    (LM, {"fixed.beta1": 1.0}, "fixed.beta1", "must be below 1 (got 1.0"),
    (LM, {"fixed.beta1": -0.1}, "fixed.beta1", "must be at least 0 (got -0.1"),
    (LM, {"fixed.weight_decay": float("nan")}, "fixed.weight_decay", "must be a finite number (got .nan"),
    (LM, {"fixed.eps": float("inf")}, "fixed.eps", "must be a finite number (got .inf"),
    (LM, {"nuisance.peak_lr.log_uniform": [0.0, 0.1]}, "nuisance.peak_lr.log_uniform.0", "must be above 0"),
    (LM, {"nuisance.peak_lr.log_uniform": [0.1, 0.01]}, "nuisance.peak_lr", "bounds must be two rising numbers above 0"),
    (LM, {"nuisance.peak_lr.log_uniform": [0.1, 0.2, 0.3]}, "nuisance.peak_lr.log_uniform", "has too many entries"),
    (LM, {"nuisance.warmup_ratio": {"log_uniform": [0.0, 0.1]}}, "nuisance.warmup_ratio", "bounds must be two rising numbers above 0"),
    (LM, {"nuisance.clip_norm": {"uniform": [None, 0.1]}}, "nuisance.clip_norm", "bounds must be two rising numbers"),
    (LM, {"nuisance.clip_norm.choice": []}, "nuisance.clip_norm.choice", "has too few entries"),
    (LM, {"evaluation.divergence_ratio": 1}, "evaluation.divergence_ratio", "must be above 1 (got 1"),
    (LM, {"evaluation.every_steps": 5}, "evaluation", "give exactly one of"),
    (LM, {"search.trials_per_cell": 0}, "search.trials_per_cell", "must be above 0 (got 0"),
    (LM, {"budget.steps": 10}, "budget", "give exactly one of steps, examples"),
    (LM, {"resources.num_workers": 0}, "resources.num_workers", "must be above 0"),
    (LM, {"resources.micro_batch_size": "automatic"}, "resources.micro_batch_size", "(got \"automatic\""),
    (LM, {"resources.gpus_per_worker": -1}, "resources.gpus_per_worker", "must be at least 0"),
    (LM, {"workload.model.num_attention_heads": 5}, "workload.model", "hidden_size 64 must be a multiple of num_attention_heads 5"),
    (LM, {"workload.data.max_length": 1}, "workload.data.max_length", "must be at least 2"),
    (LM, {"fixed.batch_ramp_at_examples": [5, 5]}, "fixed.batch_ramp_at_examples", "values must rise"),
    (LM, {"fixed.clip_percentile": 100}, "fixed.clip_percentile", "must be below 100 (got 100"),
    (LM, {"fixed.clip_history_steps": 1}, "fixed.clip_history_steps", "must be at least 2 (got 1"),
    (LM, {"fixed.batch_ramp_factor": 1}, "fixed.batch_ramp_factor", "must be at least 2 (got 1"),
    (LM, {"workload.data.source": "grapheme_to_phoneme"}, "workload.data.source", "has the wrong form"),
    (LM, {"workload.data.prompt_column": "p"}, "workload.data", "give prompt_column and answer_column together"),
    (JOINT, {"workload.data.tags_column": "x"}, "workload.data.tags_column", "is for task token_classification, not text_classification (got \"x\"; allowed: text_column, label_column)"),
    (LM, {"workload.task": "seq2seq", "workload.data": {"source": "hub:x", "text_column": "x"}}, "workload.data.text_column", "is for task text_classification or causal_lm, not seq2seq (got \"x\"; allowed: source_column, target_column)"),
    (JOINT, {"workload.data.answer_column": "y"}, "workload.data.answer_column", "is for task causal_lm, not text_classification"),
    (LM, {"workload.data.label_names": ["a", "b"]}, "workload.data.label_names", "is for task text_classification, not causal_lm (got [\"a\", \"b\"])"),
    (LM, {"workload.data.rare_classes": "keep"}, "workload.data.rare_classes", "is for task text_classification or token_classification, not causal_lm"),
    (LM, {"workload.stride": 8}, "workload.stride", "is for task question_answering, not causal_lm (got 8)"),
    (QUADRATIC, {"workload.data": {"source": "builtin:python_topics"}}, "workload.data", "not noisy_quadratic"),
    (QUADRATIC, {"workload.num_chains": 0}, "workload.num_chains", "must be above 0"),
]  # fmt: skip

TOGETHER: list[Case] = [
    # batch
    (LM, {"resources.num_workers": 3}, "scientific.global_batch_size", "must be a multiple of resources.num_workers 3 (got 16; allowed: 15 or 18)"),
    (LM, {"scientific.global_batch_size": [64, 17]}, "scientific.global_batch_size", "(got 17; allowed: 16 or 18)"),
    (LM, {"scientific.global_batch_size": [64, 1]}, "scientific.global_batch_size", "(got 1; allowed: 2)"),
    (JOINT, {"resources.num_workers": 5}, "nuisance.global_batch_size", "(got 64; allowed: 60 or 65)"),
    (LM, {"scientific": {}, "transfer": DROP}, "fixed.global_batch_size", "no batch size is given: give it in scientific, nuisance or fixed"),
    (QUADRATIC, {"cell_recipes.0.fixed.global_batch_size": 4}, "cell_recipes.0.fixed.global_batch_size", "a cell's recipe cannot set the batch size"),
    # learning rate
    (LM, {"nuisance.peak_lr": DROP}, "fixed.peak_lr", "no learning rate is given: give peak_lr or base_lr"),
    (LM, {"fixed.peak_lr": 0.1}, "fixed.peak_lr", "is also given in nuisance; give it once (got 0.1)"),
    (LM, {"fixed.base_lr": 0.1, "fixed.base_batch_size": 16, "transfer": DROP}, "fixed.base_lr", "nuisance.peak_lr is given too"),
    (JOINT, {"fixed.base_batch_size": DROP}, "fixed.base_batch_size", "nuisance.base_lr holds at a batch size that is not given"),
    (LM, {"fixed.base_batch_size": 16}, "fixed.base_batch_size", "has no effect without base_lr"),
    (LM, {"fixed.lr_scaling_rule": "sqrt"}, "fixed.lr_scaling_rule", "has no effect without base_lr"),
    (QUADRATIC, {"cell_recipes": [{"cell": {"global_batch_size": 4}, "fixed": {"peak_lr": 1}}]}, "cell_recipes", "give a learning rate for 1 of 2 cells"),
    (QUADRATIC, {"cell_recipes.0.fixed.base_lr": 1.0}, "cell_recipes.0.fixed.base_lr", "cell_recipes.0.fixed.peak_lr is given too"),
    (JOINT, {"nuisance.lr_scaling_rule": {"choice": ["adam_sde"]}, "nuisance.global_batch_size": {"choice": [16, 256]}}, "nuisance.lr_scaling_rule", "from batch 16 to 256: adam_sde needs kappa"),
    (JOINT, {"nuisance.lr_scaling_rule": {"choice": ["adam_sde", "sqrt"]}, "fixed.optimizer": "sgd"}, "nuisance.lr_scaling_rule", "adam_sde scales Adam, not sgd"),
    (LM, {"transfer.rules": ["adam_sde"], "fixed.optimizer": "sgd"}, "transfer.rules", "adam_sde scales Adam, not sgd"),
    (LM, {"transfer.rules": ["surge(31)"], "fixed.optimizer": "sgd"}, "transfer.rules", "surge is about optimizers like Adam, not sgd (got \"surge(31)\""),
    (JOINT, {"nuisance.lr_scaling_rule": {"choice": ["none", "surge(31)"]}, "fixed.optimizer": "muon"}, "nuisance.lr_scaling_rule", "surge is about optimizers like Adam, not muon"),
    (LM, {"transfer": DROP, "fixed.beta2_scaling": "token_half_life"}, "fixed.beta2_scaling", "has no base to scale from: give base_lr, or transfer"),
    (LM, {"transfer": DROP, "fixed.weight_decay_scaling": "timescale"}, "fixed.weight_decay_scaling", "has no base to scale from"),
    (LM, {"fixed.beta2_scaling": "token_half_life", "fixed.optimizer": "lion"}, "fixed.beta2_scaling", "is of Adam's second moment, which lion lacks"),
    (LM, {"fixed.beta2_scaling": "token_half_life", "transfer.rules": ["sqrt", "adam_sde"]}, "fixed.beta2_scaling", "adam_sde moves beta2 itself (got \"token_half_life\"; allowed: none)"),
    (LM, {"fixed.weight_decay_scaling": "timescale", "fixed.optimizer": "lamb"}, "fixed.weight_decay_scaling", "the trust ratio of lamb takes the decay in"),
    (JOINT, {"fixed.weight_decay_scaling": "timescale"}, "fixed.weight_decay_scaling", "has no effect without weight_decay"),
    (LM, {"fixed.warmup_scaling": "examples"}, "fixed.warmup_scaling", "has no effect without warmup_steps"),
    # schedule
    (LM, {"fixed.warmup_steps": 10}, "nuisance.warmup_ratio", "fixed.warmup_steps is given too; give one of them"),
    (QUADRATIC, {"fixed.warmup_ratio": 0.1, "cell_recipes.1.fixed.warmup_steps": 3}, "fixed.warmup_ratio", "cell_recipes.1.fixed.warmup_steps is given too"),
    (QUADRATIC, {"fixed.warmup_steps": 601}, "fixed.warmup_steps", "outlasts the run, which has 600 steps at global_batch_size 64 (got 601; allowed: at most 600)"),
    (LM, {"nuisance.warmup_ratio": DROP, "nuisance.warmup_steps": {"choice": [0, 151]}}, "nuisance.warmup_steps", "outlasts the run, which has 150 steps at global_batch_size 1024"),
    (LM, {"fixed.schedule": "cosine"}, "fixed.schedule", "drop target, or use constant (got \"cosine\"; allowed: constant, inverse_sqrt)"),
    (LM, {"fixed.schedule": DROP, "nuisance.schedule": {"choice": ["constant", "linear"]}}, "nuisance.schedule", "steps to target depend on where a decaying schedule ends"),
    (QUADRATIC, {"cell_recipes.0.fixed.schedule": "linear"}, "cell_recipes.0.fixed.schedule", "steps to target depend on"),
    (JOINT, {"budget": {"seconds": 60}}, "fixed.schedule", "a budget in seconds does not say at which step the decay ends"),
    (JOINT, {"budget": {"seconds": 60}}, "nuisance.warmup_ratio", "a budget in seconds has no number of steps"),
    (LM, {"nuisance.min_lr_ratio": {"uniform": [0.0, 0.1]}}, "nuisance.min_lr_ratio", "has no effect with schedule constant"),
    (LM, {"fixed.warmup_examples": 100}, "fixed.warmup_examples", "nuisance.warmup_ratio is given too; give one of them"),
    (QUADRATIC, {"fixed.warmup_steps": 5, "cell_recipes.1.fixed.warmup_examples": 3}, "cell_recipes.1.fixed.warmup_examples", "fixed.warmup_steps is given too"),
    (QUADRATIC, {"fixed.warmup_examples": 2401}, "fixed.warmup_examples", "outlasts the run, which has 2400 examples at global_batch_size 4 (got 2401; allowed: at most 2400)"),
    (LM, {"fixed.schedule": "wsd"}, "fixed.schedule", "drop target, or use constant (got \"wsd\"; allowed: constant, inverse_sqrt)"),
    (JOINT, {"budget": {"seconds": 60}, "fixed.schedule": "wsd", "nuisance.warmup_ratio": DROP}, "fixed.schedule", "a budget in seconds does not say"),
    (JOINT, {"fixed.decay_ratio": 0.1}, "fixed.decay_ratio", "has no effect with schedule linear (got 0.1; allowed: only with schedule wsd)"),
    (JOINT, {"fixed.decay_shape": "cosine"}, "fixed.decay_shape", "has no effect with schedule linear"),
    (JOINT, {"fixed.schedule": "wsd", "fixed.decay_ratio": 0.9}, "nuisance.warmup_ratio", "ends after the decay of wsd starts, which takes the last 0.9 of the run's steps (got 0.2; allowed: at most 0.1)"),
    (LM, {"target": DROP, "fixed.schedule": "wsd", "nuisance.warmup_ratio": DROP, "fixed.warmup_steps": 130}, "fixed.warmup_steps", "ends after the decay of wsd starts, which takes the last 0.2 of the run's steps (got 130; allowed: at most 120)"),
    # a batch that grows
    (JOINT, {"budget": {"examples": 9000}, "fixed.batch_ramp_every_examples": 2000, "fixed.batch_ramp_at_examples": [5000]}, "fixed.batch_ramp_at_examples", "fixed.batch_ramp_every_examples is given too"),
    (JOINT, {"fixed.batch_ramp_factor": 4}, "fixed.batch_ramp_factor", "has no effect without a batch ramp (got 4"),
    (JOINT, {"budget": {"examples": 9000}, "fixed.batch_ramp_at_examples": [4000, 9024]}, "fixed.batch_ramp_at_examples", "is past the end of every run (got 9024; allowed: at most 8992)"),
    (JOINT, {"budget": {"steps": 10}, "fixed.batch_ramp_every_examples": 700}, "fixed.batch_ramp_every_examples", "is past the end of every run (got 700; allowed: at most 576)"),
    (JOINT, {"fixed.batch_ramp_at_examples": [100, 120]}, "fixed.batch_ramp_at_examples", "grows 2-fold from 64 passes two of its marks in one step"),
    (JOINT, {"budget": {"examples": 9000}, "fixed.batch_ramp_every_examples": 400}, "fixed.batch_ramp_every_examples", "passes two of its marks"),
    (JOINT, {"budget": {"seconds": 9}, "fixed.schedule": "constant", "nuisance.warmup_ratio": DROP, "fixed.batch_ramp_every_examples": 400}, "fixed.batch_ramp_every_examples", "a budget in seconds does not say how far the batch grows"),
    (LM, {"fixed.batch_ramp_every_examples": 20000}, "fixed.batch_ramp_every_examples", "the critical batch size is fitted to steps to target at constant batches"),
    # optimizer
    (LM, {"fixed.momentum": 0.9}, "fixed.momentum", "has no effect with optimizer adamw (got 0.9; allowed: only with optimizer lars or muon or sgd)"),
    (QUADRATIC, {"fixed.beta2": 0.9}, "fixed.beta2", "has no effect with optimizer sgd"),
    (LM, {"fixed.optimizer": "adafactor", "fixed.beta1": 0.9}, "fixed.beta1", "has no effect with optimizer adafactor (got 0.9; allowed: only with optimizer adamw or lamb or lion or muon)"),
    (LM, {"fixed.optimizer": "lion", "fixed.eps": 1e-6}, "fixed.eps", "only with optimizer adamw or lamb or muon"),
    (LM, {"fixed.optimizer": "muon", "fixed.nesterov": True}, "fixed.nesterov", "has no effect with optimizer muon (got true; allowed: only with optimizer sgd)"),
    (LM, {"fixed.optimizer": "sgd", "fixed.nesterov": True}, "fixed.nesterov", "nesterov needs a momentum above 0 (got true"),
    (LM, {"fixed.optimizer": "sgd", "nuisance.momentum": {"choice": [0.0, 0.9]}, "fixed.nesterov": True}, "nuisance.momentum", "nesterov needs a momentum above 0 (got [0.0, 0.9]"),
    (LM, {"transfer.rules": ["adam_sde"], "fixed.optimizer": "lamb"}, "transfer.rules", "adam_sde scales Adam, not lamb"),
    (QUADRATIC, {"search.early_stopping": {"rule": "asha", "first_rung_tokens": 100}}, "search.early_stopping.first_rung_tokens", "noisy_quadratic has no tokens (got 100; allowed: first_rung_examples)"),
    (QUADRATIC, {"fixed.optimizer": "lamb"}, "fixed.optimizer", "would couple the independent chains of noisy_quadratic (got \"lamb\"; allowed: adamw, sgd, lion)"),
    (QUADRATIC, {"cell_recipes.0.fixed.eps": 1.0e-8}, "cell_recipes.0.fixed.eps", "has no effect with optimizer sgd"),
    # clipping
    (LM, {"fixed.clip_value": 0.1}, "fixed.clip_value", "nuisance.clip_norm is given too; give one of them (got 0.1"),
    (JOINT, {"nuisance.clip_norm": DROP, "nuisance.clip_value": {"log_uniform": [0.1, 1.0]}, "fixed.clip_percentile": 10}, "fixed.clip_percentile", "nuisance.clip_value is given too"),
    (LM, {"fixed.clip_history_steps": 50}, "fixed.clip_history_steps", "has no effect without clip_percentile (got 50"),
    (QUADRATIC, {"fixed.clip_percentile": 50}, "fixed.clip_percentile", "couple the independent chains of noisy_quadratic (got 50.0; allowed: null)"),
    # regularizers
    (JOINT, {"nuisance.lora_rank": {"choice": [4, 8]}}, "nuisance.lora_rank", "has no effect without workload.model.lora (got [4, 8]; allowed: null)"),
    (LM, {"fixed.lora_rank": 4}, "fixed.lora_rank", "has no effect without workload.model.lora"),
    (JOINT, {"fixed.dropout": 0.1}, "fixed.dropout", "is set in a model from scratch, not a pretrained one (got 0.1; allowed: null)"),
    (QUADRATIC, {"fixed.dropout": 0.1}, "fixed.dropout", "noisy_quadratic has no dropout"),
    (QUADRATIC, {"fixed.label_smoothing": 0.1}, "fixed.label_smoothing", "noisy_quadratic has no labels (got 0.1; allowed: 0.0)"),
    (LM, {"nuisance.dropout": {"choice": [None, 0.1]}, "workload.model.config": {"attention_dropout": 0.2}}, "nuisance.dropout", "workload.model.config.attention_dropout is given too"),
    # cells
    (QUADRATIC, {"cell_recipes.0.cell.global_batch_size": 5}, "cell_recipes.0.cell.global_batch_size", "is not a cell of the study (got 5; allowed: 4, 64)"),
    (QUADRATIC, {"cell_recipes.0.cell": {}}, "cell_recipes.0.cell", "must name a cell exactly (got {}; allowed: global_batch_size)"),
    (QUADRATIC, {"cell_recipes.1.cell.global_batch_size": 4}, "cell_recipes.1.cell", "has a recipe already"),
    (LM, {"cell_recipes": [{"cell": {"global_batch_size": 16}, "fixed": {"peak_lr": 0.1}}]}, "cell_recipes.0.fixed.peak_lr", "nuisance decides peak_lr; a cell's recipe cannot"),
    (LM, {"scientific.weight_decay": [i / 10 for i in range(1000)], "scientific.beta1": [0.1, 0.2, 0.3, 0.4, 0.5], "fixed.weight_decay": DROP, "transfer": DROP}, "scientific", "makes 20000 cells (allowed: at most 10000)"),
    # search
    (LM, {"target": DROP, "search.objective": "steps_to_target"}, "target", "is required by search.objective steps_to_target"),
    (QUADRATIC, {"search.trials_per_cell": 2}, "search.trials_per_cell", "there is no nuisance hyperparameter to search (got 2; allowed: 1)"),
    (LM, {"search.sampler": "grid"}, "nuisance.peak_lr", "search.sampler grid needs the values listed: give choice"),
    (LM, {"search.sampler": "grid", "nuisance.peak_lr": {"choice": [1e-3, 1e-2]}}, "search.trials_per_cell", "must be the size of the grid (got 6; allowed: 12)"),
    # transfer
    (LM, {"transfer.base_batch_size": 32}, "transfer.base_batch_size", "is not a cell of the study (got 32; allowed: 16, 64, 256, 1024)"),
    (JOINT, {"transfer": {"base_batch_size": 16, "rules": ["sqrt"]}}, "scientific.global_batch_size", "transfer carries a recipe between batch sizes"),
    (JOINT, {"transfer": {"base_batch_size": 16, "rules": ["sqrt"]}}, "nuisance.base_lr", "transfer scales the rate itself: give peak_lr instead"),
    (LM, {"scientific.global_batch_size": [64]}, "scientific.global_batch_size", "transfer needs another batch size than its base"),
    (LM, {"scientific.weight_decay": [0, 0.1], "fixed.weight_decay": DROP}, "scientific.weight_decay", "global_batch_size is the only scientific axis"),
    # workload and data
    (QUADRATIC, {"fixed.clip_norm": 1.0}, "fixed.clip_norm", "couple the independent chains of noisy_quadratic (got 1.0; allowed: null)"),
    (QUADRATIC, {"resources.compile": True}, "resources.compile", "has no blocks (got true; allowed: false)"),
    (QUADRATIC, {"resources.activation_checkpointing": True}, "resources.activation_checkpointing", "has no blocks"),
    (QUADRATIC, {"resources.precision": "bf16"}, "resources.precision", "(got \"bf16\"; allowed: fp32)"),
    (LM, {"resources.strategy": "zero1", "fixed.optimizer": "lamb"}, "fixed.optimizer", "goes by each matrix, and strategy zero1 makes one vector of all (got \"lamb\"; allowed: adamw, sgd, lion)"),
    (LM, {"resources.strategy": "zero2", "resources.num_workers": "auto"}, "resources.num_workers", "must be a number under strategy zero2"),
    (LM, {"resources.strategy": "zero3", "resources.precision": "fp16"}, "resources.precision", "does not go with strategy zero3, which scales the loss by itself (got \"fp16\"; allowed: fp32, bf16)"),
    (LM, {"resources.strategy": "zero3", "resources.compile": True}, "resources.compile", "does not go with strategy zero3 (got true; allowed: false)"),
    (QUADRATIC, {"resources.strategy": "zero2"}, "resources.strategy", "noisy_quadratic is not cut among workers (got \"zero2\"; allowed: ddp)"),
    (LM, {"resources.strategy": "tp", "resources.num_workers": "auto"}, "resources.num_workers", "must be a number under strategy tp"),
    (LM, {"resources.strategy": "tp", "resources.compile": True}, "resources.compile", "does not go with strategy tp (got true; allowed: false)"),
    (LM, {"resources.strategy": "tp", "fixed.dropout": 0.1}, "fixed.dropout", "would repeat its masks"),
    (JOINT, {"resources.strategy": "tp", "workload.model.lora": {"rank": 4}}, "workload.model.lora", "does not go with strategy tp"),
    (QUADRATIC, {"resources.strategy": "tp"}, "resources.strategy", "noisy_quadratic has no matrices to cut (got \"tp\"; allowed: ddp)"),
    (QUADRATIC, {"evaluation.sharpness": {}}, "evaluation.sharpness", "noisy_quadratic has none"),
    (QUADRATIC, {"budget": {"epochs": 1}}, "budget.epochs", "has no tokens or epochs (got 1.0; allowed: steps, examples, seconds)"),
    (LM, {"workload.data.source": "builtin:grapheme_to_phonem"}, "workload.data.source", "did you mean grapheme_to_phoneme? (got"),
    (LM, {"workload.data.source": "builtin:mnist"}, "workload.data.source", "there are no such data (got \"builtin:mnist\"; allowed: builtin:grapheme_to_phoneme, builtin:python_topics"),
    (LM, {"workload.data.source": "builtin:part_of_speech"}, "workload.data.source", "is for task text_classification, not causal_lm"),
    (LM, {"workload.data.source": "builtin:part_of_speech_treebank"}, "workload.data.source", "is for task token_classification, not causal_lm"),
    (LM, {"workload.data.subset": "x"}, "workload.data.subset", "belongs to a source hub:NAME"),
    (LM, {"workload.data.text_column": "x"}, "workload.data.text_column", "built-in data have no columns to choose"),
    (LM, {"workload.task": "seq2seq", "workload.data": {"files": {"train": "text.txt"}}}, TRAIN, "has no targets"),
    (JOINT, {"workload.task": "token_classification", "workload.data": {"files": {"train": "table.csv"}}}, TRAIN, "cannot hold lists (got \"table.csv\"; allowed: *.json, *.jsonl, *.parquet)"),
    (JOINT, {"workload.task": "question_answering", "workload.data.max_length": 6}, "workload.data.max_length", "leaves no room for a context (got 6; allowed: at least 8)"),
    (JOINT, {"workload.task": "question_answering", "workload.data.max_length": 64}, "workload.stride", "two windows of max_length 64 cannot share so much (got 32; allowed: at most 28)"),
    (LM, {"workload.data.tokenizer": "subwords"}, "workload.data.tokenizer", "drops blanks, which task causal_lm has to write"),
    (LM, {"workload.data.vocab_size": 100}, "workload.data.vocab_size", "belongs to tokenizer subwords"),
    (LM, {"workload.packing": True}, "workload.packing", "a prompt and its answer stay an example of their own"),
    (LM, {"workload.data.source": "builtin:python_topics", "workload.generation": {}}, "workload.generation", "needs data with prompts: give prompt_column"),
    (JOINT, {"workload.model.pretrained": "builtin:minlm"}, "workload.model.pretrained", "did you mean minilm? (got \"builtin:minlm\"; allowed: builtin:minilm)"),
    (LM, {"workload.data": {"files": {"train": "no/such.csv"}}}, TRAIN, "there is no such file"),
    (LM, {"workload.data": {"files": {"train": "table.xlsx"}}}, TRAIN, "allowed: *.csv, *.tsv, *.json, *.jsonl, *.parquet, *.txt, and all but parquet with .gz"),
    (JOINT, {"workload.data": {"files": {"train": "text.txt"}}}, TRAIN, "has no labels"),
    (LM, {"workload.data": {"files": {"train": ["table.csv", "no/such.csv"]}}}, TRAIN, "there is no such file"),
    (LM, {"workload.data": {"files": {"train": {"glob": "no-such-*.csv"}}}}, f"{TRAIN}.glob", "no file matches (got \"no-such-*.csv\")"),
    (LM, {"workload.data": {"files": {"train": "a.parquet.gz"}}}, TRAIN, "is of an unknown kind"),
    (LM, {"workload.data.encoding": "utf-8"}, "workload.data.encoding", "belongs to files"),
    (LM, {"workload.data": {"files": {"train": "x" * 300 + ".csv"}}}, TRAIN, "cannot be read"),
    (LM, {"workload.model": {"pretrained": "./no/such/folder"}}, "workload.model.pretrained", "there is no such folder"),
    (LM, {"workload.data.tokenizer": "/no/such/folder"}, "workload.data.tokenizer", "there is no such folder"),
    (LM, {"storage": "nothing://bucket/x"}, "storage", "Protocol not known"),
]  # fmt: skip


def case_id(case: Case) -> str:
    return f"{case[2]}-{case[3][:30]}"


@pytest.mark.parametrize("case", STRUCTURE + TOGETHER, ids=case_id)
def test_malformed_field(tmp_path: Path, case: Case) -> None:
    study, changes, path, message = case
    issues = issues_of(tmp_path, study, changes)
    said = [str(issue) for issue in issues if issue.path == path]
    assert said, [str(issue) for issue in issues]
    assert any(message in line for line in said), said
    assert all("\n" not in str(issue) for issue in issues)


@pytest.mark.parametrize("case", STRUCTURE, ids=case_id)
def test_a_wrong_field_raises_no_false_alarm_elsewhere(tmp_path: Path, case: Case) -> None:
    study, changes, path, _ = case
    assert {issue.path for issue in issues_of(tmp_path, study, changes)} == {path}


def test_every_error_at_once(tmp_path: Path) -> None:
    changes = {
        "seed": -1,
        "workload.data.num_trian": 3,
        "resources.num_workers": 3,
        "search.trials_per_cell": "six",
        "fixed.schedule": "cosine",
        "fixed.momentum": 0.9,
        "scientific.global_batch_size": [64, 18],
        "storage": "s3://x",
    }
    assert [issue.path for issue in issues_of(tmp_path, LM, changes)] == [
        "seed",
        "workload.data.num_trian",
        "search.trials_per_cell",
        "scientific.global_batch_size",
        "fixed.momentum",
        "fixed.schedule",
        "storage",
    ]


def test_the_value_and_what_is_allowed_are_kept_apart(tmp_path: Path) -> None:
    [issue] = issues_of(tmp_path, LM, {"seed": -3})
    assert issue == Issue(
        "seed", "must be at least 0", -3, "a whole number at least 0 and below 2147483648"
    )
    [unknown] = issues_of(tmp_path, LM, {"workload.data.num_trian": 3})
    assert unknown.value is NO_VALUE


def test_errors_are_counted_up_to_a_limit(tmp_path: Path) -> None:
    issues = issues_of(tmp_path, LM, {"scientific.global_batch_size": ["x"] * 500})
    assert len(issues) == MAX_ISSUES + 1
    assert str(issues[-1]) == "… and further errors"


@pytest.mark.parametrize(("content", "problem"), [("", "is empty"), (None, "is not a file")])
def test_unusable_data_file(tmp_path: Path, content: str | None, problem: str) -> None:
    data = tmp_path / "train.csv"
    data.mkdir() if content is None else data.write_text(content, encoding="utf-8")
    issues = issues_of(tmp_path, LM, {"workload.data": {"files": {"train": str(data)}}})
    assert [(issue.path, issue.message) for issue in issues] == [(TRAIN, problem)]


def test_storage_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    [issue] = issues_of(tmp_path, LM, {"storage": str(tmp_path / "state")})
    assert str(issue).startswith("storage: is a file")


# --- files that are no study at all -------------------------------------------------------------

LAUGHS = "a: &a [x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in itertools.pairwise("abcdefghi")
)

TEXTS: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "study.yaml", "is empty"),
    "only a comment": (b"# nothing\n", "study.yaml", "is empty"),
    "null": (b"null\n", "study.yaml", "is empty"),
    "a list": (b"- name: x\n", "study.yaml", "must be a mapping of sections"),
    "a word": (b"hello\n", "study.yaml", "must be a mapping of sections (got \"hello\"; allowed: name,"),
    "not YAML": (b"name: [1, 2\nquestion: x\n", "study.yaml", "line 2, column 9: is not YAML"),
    "two colons": (b"name: a: b\n", "study.yaml", "line 1, column 8: is not YAML"),
    "a tab": (b"budget:\n\tsteps: 1\n", "study.yaml", "line 2, column 1: is not YAML"),
    "an open quote": (b"name: 'x\n", "study.yaml", "is not YAML"),
    "two documents": (b"name: x\n---\nname: y\n", "study.yaml", "line 2, column 1: a study file holds one document"),
    "not UTF-8": ("name: é".encode("latin-1"), "study.yaml", "is not UTF-8 text (byte 6 is 0xe9)"),
    "UTF-16": ("name: x".encode("utf-16"), "study.yaml", "is not UTF-8 text (byte 0 is 0xff)"),
    "NUL": (b"name: x\0\n", "study.yaml", "is not text (byte 7 is NUL)"),
    "a control character": (b"name: \x07\n", "study.yaml", "characters are not allowed"),
    "binary": (bytes(range(128, 256)), "study.yaml", "is not UTF-8 text"),
    "too large": (b"# " + b"x" * 300_000, "study.yaml", "is larger than 256000 bytes"),
    "an anchor": (b"name: &x lr\n", "name", "line 1, column 7: anchors (&) and aliases (*) are not allowed"),
    "an alias": (b"name: *x\n", "name", "aliases (*) are not allowed"),
    "billion laughs": (LAUGHS.encode(), "a", "anchors (&) and aliases (*) are not allowed"),
    "an endless list": (b"&x [*x]\n", "study.yaml", "anchors (&) and aliases (*) are not allowed"),
    "a Python tag": (b"name: !!python/object/apply:os.system [ls]\n", "name", "tags (!) are not allowed"),
    "a set": (b"scientific: !!set {a, b}\n", "scientific", "tags (!) are not allowed"),
    "a deep list": (b"name: " + b"[" * 500, "name.0.0", "is nested deeper than 32 levels"),
    "an abyss": (b"[" * 200_000, "", "nest"),
    "a deep mapping": (b"".join(b" " * n + b"a:\n" for n in range(60)), "a.a.a", "is nested deeper than 32 levels"),
    "a key twice": (b"name: x\nbudget: {steps: 1, steps: 2}\n", "budget.steps", "line 2, column 20: is given twice"),
    "a section twice": (b"fixed: {}\nfixed: {}\n", "fixed", "line 2, column 1: is given twice"),
    "a number as key": (b"fixed: {1: 2}\n", "fixed", "keys must be text"),
    "a list as key": (b"fixed: {[1]: 2}\n", "fixed", "keys must be text"),
    "a merge": (b"fixed:\n  <<: {peak_lr: 1}\n", "fixed.\"<<\"", "unknown key"),
    "a broken key": (b"\"a\\nb\": 1\n", "\"a\\nb\"", "unknown key"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
def test_no_study_at_all(tmp_path: Path, kind: str) -> None:
    content, path, message = TEXTS[kind]
    issues = issues_of_text(tmp_path, content)
    where = str(tmp_path / path) if path == "study.yaml" else path
    assert any(where in (issue.path, "") and message in str(issue) for issue in issues), [
        *map(str, issues)
    ]
    assert all("\n" not in str(issue) for issue in issues)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.yaml", "there is no such file"),
        ("folder", "is not a file"),
        ("pipe", "is not a file"),
        ("loop", "there is no such file"),
        ("x" * 300, "cannot be read: File name too long"),
        ("folder/a\0b", "there is no such file"),
    ],
)
def test_unreadable_path(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    path = tmp_path / name
    with pytest.raises(StudyFileError) as caught:
        read_study(path)
    assert [(issue.path, issue.message) for issue in caught.value.issues] == [(str(path), message)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_forbidden_file(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: x", encoding="utf-8")
    file.chmod(0)
    with pytest.raises(StudyFileError, match="cannot be read: Permission denied"):
        read_study(file)


# --- overrides ----------------------------------------------------------------------------------


@pytest.fixture
def lm_file(tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(as_yaml(LM), encoding="utf-8")
    return file


def test_overrides_set_single_values_in_order(lm_file: Path) -> None:
    overrides = [
        "seed=1",
        "seed=7",
        "scientific.global_batch_size.0=32",
        "workload.data.num_train=3e3",
        "workload.data.num_train=3_000",
        "fixed.beta2=95e-2",
        "transfer=null",
        "budget={steps: 200}",
        "question=a=b",
        "workload.model.config.rope_theta=1e4",
    ]
    spec = read_study(lm_file, overrides)
    assert spec.seed == 7
    assert spec.scientific.global_batch_size == (32, 64, 256, 1024)
    assert spec.workload.data.num_train == 3000  # pyright: ignore[reportAttributeAccessIssue]
    assert spec.fixed.beta2 == 0.95
    assert spec.transfer is None
    assert spec.budget.steps == 200
    assert spec.question == "a=b"


@pytest.mark.parametrize(
    ("override", "path", "message"),
    [
        ("seed", "seed", "must be dotted.key=value"),
        ("=3", '"=3"', "must be dotted.key=value"),
        ("fixed..beta1=3", '"fixed..beta1=3"', "must be dotted.key=value"),
        ("seed.x=3", "seed", "has no x to set"),
        ("scientific.global_batch_size.4=3", "scientific.global_batch_size.4", "allowed: 0 … 3"),
        ("scientific.global_batch_size.x=3", "scientific.global_batch_size.x", "allowed: 0 … 3"),
        ("cell_recipes.0.cell=3", "cell_recipes", "must be a list"),
        ("seed=[", "seed=[", "is not YAML"),
        ("seed=&x 3", "seed=&x 3", "anchors"),
        ("search.trial_per_cell=3", "search.trial_per_cell", "did you mean trials_per_cell?"),
        ("fixd.beta1=0.9", "fixd", "did you mean fixed?"),
        ("seed=one", "seed", 'must be a whole number (got "one"'),
        ("resources.num_workers=3", "scientific.global_batch_size", "allowed: 15 or 18"),
        (".".join("a" * 5000) + "=1", None, "must be dotted.key=value"),
    ],
)
def test_bad_override(lm_file: Path, override: str, path: str | None, message: str) -> None:
    with pytest.raises(StudyFileError) as caught:
        read_study(lm_file, [override])
    assert any(
        message in str(issue) and path in (None, issue.path) for issue in caught.value.issues
    ), str(caught.value)


def test_bad_overrides_are_reported_with_the_rest(lm_file: Path) -> None:
    with pytest.raises(StudyFileError) as caught:
        read_study(lm_file, ["nonsense", "seed=-1", "fixed.momentum=0.5"])
    assert [issue.path for issue in caught.value.issues] == ["nonsense", "seed", "fixed.momentum"]


# --- the parts ----------------------------------------------------------------------------------


class OnlySections:
    """A study that lets a check see the sections it says it reads, and no other."""

    def __init__(self, spec: StudySpec, sections: frozenset[str]) -> None:
        self._spec = spec
        self._sections = sections

    def model_dump(self, **options: Any) -> dict[str, Any]:
        return self._spec.model_dump(**options)  # for what is looked for in every text

    def __getattr__(self, name: str) -> Any:
        if name in StudySpec.model_fields:
            assert name in self._sections, f"{name} is read but not declared"
            return getattr(self._spec, name)
        attribute = inspect.getattr_static(StudySpec, name)
        if isinstance(attribute, property):
            assert attribute.fget is not None
            return attribute.fget(self)
        return types.MethodType(attribute, self)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("study", [LM, QUADRATIC, JOINT], ids=lambda study: study["name"])
def test_checks_read_what_they_declare(check: Any, study: dict[str, Any]) -> None:
    spec = StudySpec.model_validate(study)
    assert list(check(OnlySections(spec, CHECKS[check]))) == []


@pytest.mark.parametrize("case", TOGETHER, ids=case_id)
def test_checks_serve_specs_that_were_built_in_python(case: Case) -> None:
    study, changes, path, message = case
    issues = check_study(StudySpec.model_validate(changed(study, changes)))
    assert any(issue.path == path and message in str(issue) for issue in issues)


def test_schema_file_is_up_to_date() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema_text(), (
        "scaling/spec/study.schema.json is out of date; write it anew with: python -c "
        "'from scaling.spec.read import SCHEMA_PATH, schema_text; "
        'SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")\''
    )


def test_schema_describes_fields_and_names_no_python_types() -> None:
    schema = spec_schema()
    assert schema["$defs"]["Fixed"]["properties"]["clip_norm"]["description"]
    assert schema["properties"]["storage"]["title"] == "Storage"
    assert not [word for word in ("Annotated", "FieldInfo", "?P<") if word in json.dumps(schema)]
    for reference in _references(schema):
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if "$ref" in node else []
        return own + [r for value in node.values() for r in _references(value)]
    return [r for value in node for r in _references(value)] if isinstance(node, list) else []


def test_one_file_under_two_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a line\n", encoding="utf-8")
    names = [f"{tmp_path}/a.txt", f"{tmp_path}/./a.txt"]
    [issue] = issues_of(tmp_path, LM, {"workload.data": {"files": {"train": names}}})
    assert str(issue).startswith(f"workload.data.files.train: is the same file as {names[0]}")
