"""Study files, and what is said of them with changes."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling.spec.issues import Issue, StudyFileError
from scaling.spec.read import read_study

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

TABLE: dict[str, Any] = yaml.safe_load("""
name: looked_up
question: Which search needs the fewest trials?
workload:
  task: table
  file: runs.csv
  columns: {global_batch_size: bs, peak_lr: lr}
scientific: {global_batch_size: [32, 64]}
nuisance: {peak_lr: {log_uniform: [1.0e-4, 1.0e-2]}}
budget: {steps: 100}
evaluation: {every_steps: 100}
search: {sampler: qmc, trials_per_cell: 4}
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


TRAIN = "workload.data.files.train"
Case = tuple[dict[str, Any], Changes, str, str]
"""A study, changes, and the path and code of an issue that is then found."""


def case_id(case: Case) -> str:
    """Names a case among the tests."""
    _, changes, path, code = case
    return f"{path}-{code}-{','.join(changes)}"[:80]
