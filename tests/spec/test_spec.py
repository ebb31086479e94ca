"""The typed form of a study: it round-trips, cannot be changed, and costs no heavy import."""

import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from scaling.spec.fields import Section, given_fields
from scaling.spec.phases import Search
from scaling.spec.sections import Fixed, Nuisance, Scientific
from scaling.spec.study import StudySpec

STUDY: dict[str, Any] = {
    "name": "lr_vs_batch",
    "question": "How must the learning rate move with the batch?",
    "workload": {
        "task": "causal_lm",
        "model": {
            "architecture": "llama",
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "config": {"tie_word_embeddings": True, "rope_theta": 1e4, "vocab_size": 40},
        },
        "data": {"source": "builtin:grapheme_to_phoneme", "num_train": 4000},
    },
    "scientific": {"global_batch_size": [1024, 16, 64], "clip_norm": [None, 1]},
    "nuisance": {
        "peak_lr": {"log_uniform": [1e-4, 3e-2]},
        "warmup_ratio": {"choice": [0, 0.05]},
        "lr_scaling_rule": {"choice": ["none", "power(0.7)"]},
    },
    "fixed": {"optimizer": "adamw", "weight_decay": 0.01},
    "cell_recipes": [
        {"cell": {"global_batch_size": 16, "clip_norm": None}, "fixed": {"beta2": 0.95}}
    ],
    "budget": {"examples": 40000, "min_steps": 150},
    "evaluation": {"every_examples": 2000},
    "target": {"at_most": 0.7},
    "search": {"trials_per_cell": 6},
    "confirm": {},
}


def test_round_trip_through_json() -> None:
    spec = StudySpec.model_validate(STUDY)
    again = StudySpec.model_validate_json(spec.model_dump_json(exclude_unset=True))
    assert again == spec
    assert again.scientific_values() == spec.scientific_values()
    assert list(given_fields(again.fixed)) == ["optimizer", "weight_decay"]


def test_round_trip_with_defaults_written_out() -> None:
    spec = StudySpec.model_validate(STUDY)
    assert StudySpec.model_validate(spec.model_dump()) == spec


def test_values_keep_their_order_and_batches_rise() -> None:
    spec = StudySpec.model_validate(STUDY)
    assert spec.scientific_values() == {
        "global_batch_size": (1024, 16, 64),
        "clip_norm": (None, 1.0),
    }
    assert spec.batch_sizes() == (16, 64, 1024)
    assert list(spec.nuisance.distributions()) == ["peak_lr", "lr_scaling_rule", "warmup_ratio"]


def test_storage_follows_the_name() -> None:
    spec = StudySpec.model_validate(STUDY)
    assert spec.storage_path == "runs/lr_vs_batch"
    assert StudySpec.model_validate({**STUDY, "storage": "/data/x"}).storage_path == "/data/x"


def test_a_spec_cannot_be_changed() -> None:
    spec = StudySpec.model_validate(STUDY)
    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 3  # pyright: ignore[reportAttributeAccessIssue]  # what is tested
    with pytest.raises(ValidationError, match="frozen"):
        spec.budget.min_steps = 3  # pyright: ignore[reportAttributeAccessIssue]  # what is tested


@pytest.mark.parametrize("name", ["num_trials", "budget_flops"])
def test_a_count_of_trials_that_is_null_is_left_out(name: str) -> None:
    by_cell = Search.model_validate({"trials_per_cell": 4, name: None})
    assert (by_cell.sampler, by_cell.stop) == ("qmc", None)
    together = Search.model_validate({"num_trials": 4, "trials_per_cell": None})
    assert together.sampler == "surface"
    assert together.stop is not None
    assert Search.model_validate({"num_trials": 4, "stop": None}).stop is None


@pytest.mark.parametrize("section", [Scientific, Nuisance])
def test_sections_know_the_same_hyperparameters(section: type[Section]) -> None:
    missing = {"batch_ramp_at_examples"}  # what a comparison or a search needs is every_examples
    missing |= {"base_batch_size"} if section is Nuisance else set()
    assert set(section.model_fields) == set(Fixed.model_fields) - missing


@pytest.mark.parametrize("module", ["scaling.spec", "scaling.spec.read"])
def test_import_loads_nothing_heavy(module: str) -> None:
    script = (
        f"import sys, {module}; "
        "heavy = {'torch', 'ray', 'optuna', 'mlflow', 'transformers', 'datasets', 'pandas', "
        "'numpy'}; print(*sorted(heavy & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""
