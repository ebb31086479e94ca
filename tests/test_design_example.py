"""The study file that the documentation shows is a valid one, and so is every shipped one."""

from pathlib import Path

import pytest
import yaml

from scaling.space import DataFacts, planned_search
from scaling.study_file import read_study, study_from_mapping

EXAMPLE = """
name: lr_vs_batch
question: How must the peak learning rate move with the batch, and what does a large batch cost?
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
fixed: {optimizer: adamw, weight_decay: 0.01, schedule: constant, weight_average_half_life_examples: 2000}
budget: {examples: 40000, min_steps: 150}
evaluation: {every_examples: 2000, num_examples: 2000}
target: {metric: validation_loss, at_most: 0.70}
search: {objective: validation_loss, sampler: qmc, trials_per_cell: 6, early_stopping: null}
transfer: {base_batch_size: 64, rules: [none, sqrt, linear], num_seeds: 3}
confirm: {num_seeds: 3}
resources: {num_workers: 2, cpus_per_worker: 1, gpus_per_worker: 0, strategy: ddp, precision: fp32, executor: pool}
storage: runs/lr_vs_batch
"""  # noqa: E501  # as it is shown
SHIPPED = sorted((Path(__file__).parents[1] / "studies").glob("*.yaml"))


def test_the_example_plans_its_trials() -> None:
    spec = study_from_mapping(yaml.safe_load(EXAMPLE))
    trials = planned_search(spec, DataFacts(4000, 7.3))
    assert len(trials) == 24
    steps = {t.recipe.global_batch_size: t.recipe.num_steps for t in trials if t.recipe}
    assert steps == {16: 2500, 64: 625, 256: 157, 1024: 150}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_study_is_valid_and_names_its_schema(path: Path) -> None:
    assert read_study(path).name == path.stem
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=../scaling/spec.schema.json"
