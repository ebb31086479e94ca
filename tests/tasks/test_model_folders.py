"""Trained models from a folder: their own ids, and no code of theirs is run."""

import json
from pathlib import Path
from typing import Any

import pytest

from scaling.spec.read import read_study
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.trainable import require_trainable
from tests.tasks.tiny_tasks import classifying, refused, write_texts
from tests.tasks.trained_models import save_tokenizer, trained_folder


def write_study(tmp_path: Path, model: str, **data: Any) -> Path:
    """A study of a trained model on a few texts."""
    study = {
        "name": "study", "question": "Which batch?",
        "workload": {
            "task": "text_classification", "model": {"pretrained": model},
            "data": {"files": write_texts(tmp_path / "rows.jsonl"), **data},
        },
        "scientific": {"global_batch_size": [4, 8]},
        "nuisance": {"peak_lr": {"log_uniform": [1e-4, 1e-2]}},
        "budget": {"examples": 100}, "evaluation": {"every_examples": 50},
        "search": {"sampler": "qmc", "trials_per_cell": 2},
    }  # fmt: skip
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps(study), encoding="utf-8")
    return path


@pytest.mark.parametrize("tokenizer", ["characters", "subwords"])
def test_a_trained_model_keeps_its_own_ids(tokenizer: str, tmp_path: Path) -> None:
    folder = trained_folder(tmp_path / "model", "bert")
    read_study(write_study(tmp_path, folder))
    with pytest.raises(ValueError, match="numbers tokens anew") as raised:
        read_study(write_study(tmp_path, folder, tokenizer=tokenizer))
    [line] = str(raised.value).splitlines()
    assert line.startswith("workload.data.tokenizer: ")
    assert "allowed: null" in line


def test_a_home_folder_may_be_written_as_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_folder(tmp_path / "model", "bert")
    monkeypatch.setenv("HOME", str(tmp_path))
    spec = read_study(write_study(tmp_path, "~/model", tokenizer="~/model"))
    require_trainable(prepare_task(spec.workload, spec.evaluation), 0)
    for name in ("~/other", "~no-such-user/model"):
        with pytest.raises(
            ValueError, match=r"workload\.model\.pretrained: there is no such folder"
        ):
            read_study(write_study(tmp_path, name))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("field", ["model", "tokenizer"])
def test_code_in_a_folder_is_never_run(
    file: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on the terminal"))
    good = trained_folder(tmp_path / "good", "bert")
    folder = Path(trained_folder(tmp_path / "custom", "bert"))
    trace = tmp_path / "it ran"
    (folder / "own.py").write_text(
        f"from pathlib import Path\nPath({str(trace)!r}).touch()\n"
        "from transformers import BertConfig as C, BertForSequenceClassification as M\n"
        "from transformers import PreTrainedTokenizerFast as T\n"
    )
    options = json.loads((folder / file).read_text(encoding="utf-8"))
    if file == "config.json":
        options["auto_map"] = {
            "AutoConfig": "own.C", "AutoModelForSequenceClassification": "own.M",
        }  # fmt: skip
    else:
        options["auto_map"] = {"AutoTokenizer": ["own.T", "own.T"]}
    (folder / file).write_text(json.dumps(options), encoding="utf-8")
    pretrained, tokenizer = (str(folder), None) if field == "model" else (good, str(folder))
    with pytest.raises(DataError, match=f"auto_map in {file}") as raised:
        classifying(tmp_path, {"pretrained": pretrained}, tokenizer=tokenizer)
    assert raised.value.path == (
        "workload.model.pretrained" if field == "model" else "workload.data.tokenizer"
    )
    assert len(str(raised.value).splitlines()) == 1
    assert not trace.exists()


def test_an_unknown_architecture_with_code_is_refused_with_its_own_tokenizer(
    tmp_path: Path,
) -> None:
    save_tokenizer(tmp_path / "tokenizer")
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"model_type": "my_own", "auto_map": {"AutoConfig": "own.C"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('it ran')")
    task = classifying(tmp_path, {"pretrained": str(folder)}, tokenizer=str(tmp_path / "tokenizer"))
    refused(task, "workload.model.pretrained", "auto_map in config.json")


@pytest.mark.parametrize(
    ("text", "match"),
    [("{", "cannot load"), ("[]", "cannot load"), ("{}", "cannot load"),
     ('{"model_type": "bert", "hidden_size": "wide"}', "cannot load"),
     ('{"model_type": "vit"}', "has no vit")],
)  # fmt: skip
def test_a_broken_folder_is_said_in_one_line(text: str, match: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_tokenizer(tmp_path / "tokenizer")
    folder.mkdir()
    (folder / "config.json").write_text(text)
    task = classifying(tmp_path, {"pretrained": str(folder)}, tokenizer=str(tmp_path / "tokenizer"))
    refused(task, "workload.model.pretrained", match)
