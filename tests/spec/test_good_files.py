"""Study files: what a good one reads as."""

# ruff: noqa: E501  # one case a line

from pathlib import Path
from typing import Any

import pytest

from scaling.spec.issues import StudyFileError
from scaling.spec.read import read_study, study_from_mapping
from scaling.spec.study import StudySpec
from tests.spec.studies import DROP, JOINT, LM, QUADRATIC, Changes, as_yaml, changed, issues_of


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
    (LM, {"search": {"num_trials": 24, "prior_peak_lr": 0.001, "round_size": 4, "stop": None}}),
    (LM, {"search": {"num_trials": 4, "stop": {"regret_at_most": 5, "with_probability": 0.5}, "objective": "steps_to_target"}}),
    (LM, {"search": {"num_trials": 9, "prior_peak_lr": 0.01}, "nuisance.peak_lr": {"choice": [0.001, 0.01]}}),
    (JOINT, {"search": {"sampler": "surface", "num_trials": 20}}),
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
    (LM, {"workload": {"task": "custom", "factory": "density:build"}, "target": {"at_most": -1.5}}),
    (QUADRATIC, {"target": DROP, "budget": {"examples": 9600}, "fixed.schedule": "wsd", "cell_recipes.0.fixed.warmup_steps": 1900}),
    (JOINT, {"budget": {"examples": 9600}, "nuisance.warmup_ratio": DROP, "fixed.warmup_steps": 600, "fixed.warmup_scaling": "examples"}),
]  # fmt: skip


def test_the_sampler_follows_from_how_trials_are_counted() -> None:
    def search(**given: Any) -> Any:
        return study_from_mapping(changed(LM, {"search": given})).search

    joint, by_cell = search(num_trials=24), search(trials_per_cell=6)
    assert (joint.sampler, by_cell.sampler) == ("surface", "qmc")
    assert (joint.stop.regret_at_most_ratio, joint.stop.with_probability) == (0.0025, 0.9)
    assert by_cell.stop is None
    assert search(num_trials=24, stop=None).stop is None
    for one in (joint, by_cell):
        assert search(**one.model_dump()) == one  # as study.json has it


@pytest.mark.parametrize(("study", "changes"), GOOD_CHANGES, ids=lambda part: ",".join(part))
def test_allowed_variations(study: dict[str, Any], changes: Changes) -> None:
    study_from_mapping(changed(study, changes))
