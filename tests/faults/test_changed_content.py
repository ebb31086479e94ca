"""What a study trains on changes while it runs, or its checkpoints do: nothing is trained on it."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.faults.disturbed import (
    Losses,
    Running,
    incidents,
    losses,
    records,
    started,
    wait_for_checkpoints,
)
from tests.tasks.trained_models import save_model, save_tokenizer

pytestmark = [pytest.mark.ray, pytest.mark.slow]
WORKER = "ray::RayTrainWorker"
END_SECONDS = 500.0
DATA: dict[str, Any] = {
    "files": {"train": "words.csv"}, "text_column": "word", "label_column": "kind",
    "num_train": 400, "num_validation": 60, "num_test": 60,
}  # fmt: skip
CHANGES: dict[str, Any] = {
    "workload": {
        "task": "text_classification", "model": {"pretrained": "model"}, "data": DATA,
    },
    "confirm": None,
}  # fmt: skip


def write_words(folder: Path, seed: int) -> None:
    """Letters and whether more are vowels than consonants, others with another seed."""
    chance = random.Random(seed)
    words = {"".join(chance.choices("abcdefghijk", k=chance.randint(3, 9))) for _ in range(700)}
    kinds = {word: 2 * sum(c in "aei" for c in word) > len(word) for word in words}
    lines = [
        f"{' '.join(word)},{'more' if kind else 'less'}" for word, kind in sorted(kinds.items())
    ]
    (folder / "words.csv").write_text("\n".join(["word,kind", *lines]) + "\n")


def write_model(folder: Path, seed: int) -> None:
    model = folder / "model"
    save_model(
        model, "bert", vocab_size=save_tokenizer(model), seed=seed, hidden_size=32,
        intermediate_size=64, hidden_dropout_prob=0.1,
    )  # fmt: skip


def write_all(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    write_words(folder, 1)
    write_model(folder, 1)


@pytest.fixture(scope="module")
def unchanged(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    folder = tmp_path_factory.mktemp("unchanged")
    write_all(folder)
    study = started(folder, changes=CHANGES)
    assert study.end(END_SECONDS) == 0, study.output
    return losses(folder)


def assert_ends_by_change(study: Running, folder: Path, what: str, unchanged: Losses) -> None:
    """One line and how to go on; nothing was trained on what is there now."""
    assert study.end(END_SECONDS) == 1, study.output
    last = [line for line in study.output.splitlines() if line.strip()][-2:]
    assert last[0].startswith(what)
    assert "since the study was started, and nothing was trained on it; put back" in last[0]
    assert last[1].endswith("To go on: python -m scaling.study faulty.yaml --resume")
    assert "Traceback" not in study.output
    assert " failed" not in study.output
    ended = losses(folder)
    assert ended
    assert len(ended) < len(unchanged)
    assert ended == {name: unchanged[name] for name in ended}


def assert_refused_until_put_back(
    folder: Path, what: str, put_back: Callable[[], object], unchanged: Losses
) -> None:
    study = started(folder, "--resume")
    assert study.end(END_SECONDS) == 2
    assert what in study.output.splitlines()[-1]
    put_back()
    study = started(folder, "--resume")
    assert study.end(END_SECONDS) == 0, study.output
    assert losses(folder) == unchanged


@pytest.mark.parametrize("executor", ["pool", "per_trial"])
def test_data_change_and_a_worker_dies(executor: str, tmp_path: Path, unchanged: Losses) -> None:
    """Workers have the data that the study was started on, whatever the file holds by then."""
    write_all(tmp_path)
    resources = {"num_workers": 2, "executor": executor}
    study = started(tmp_path, changes=CHANGES | {"resources": resources})
    study.wait_for("[2/6]" if executor == "pool" else "[1/6]", 600)
    write_words(tmp_path, 2)
    if executor == "pool":  # else the next trial starts a group anyway
        study.wait_until(lambda: bool(study.processes(WORKER)))
        random.choice(study.processes(WORKER)).kill()
    assert study.end(END_SECONDS) == 0, study.output
    assert losses(tmp_path) == unchanged


def test_the_weights_change_that_trials_start_from(tmp_path: Path, unchanged: Losses) -> None:
    write_all(tmp_path)
    shutil.copytree(tmp_path / "model", tmp_path / "kept")
    study = started(tmp_path, changes=CHANGES)
    study.wait_for("[1/6]", 400)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/words.csv").write_bytes((tmp_path / "words.csv").read_bytes())
    write_model(tmp_path / "other", 2)
    weights = "model/model.safetensors"
    (tmp_path / "other" / weights).replace(tmp_path / weights)
    what = "model/model.safetensors has changed"
    assert_ends_by_change(study, tmp_path, what, unchanged)

    def put_back() -> None:
        shutil.copy(tmp_path / "kept/model.safetensors", tmp_path / weights)

    assert_refused_until_put_back(tmp_path, what, put_back, unchanged)


@pytest.mark.parametrize("wrong", ["a list", "not a number"])
def test_the_newest_checkpoint_is_wrong(wrong: str, tmp_path: Path, undisturbed: Losses) -> None:
    study = started(tmp_path)
    study.wait_for("[2/6]", 400)
    of_trial = wait_for_checkpoints(study, at_least=2)
    study.kill_and_wait()  # workers may write another one meanwhile
    newest = max(of_trial.glob("*.pt"))
    state: Any = torch.load(newest, weights_only=True)
    if wrong == "a list":
        state = [state]
    else:
        next(iter(state["model"].values())).fill_(float("nan"))
    torch.save(state, newest)
    study = started(tmp_path, "--resume")
    assert study.end(END_SECONDS) == 0, study.output
    assert losses(tmp_path) == undisturbed
    assert incidents(tmp_path)["checkpoint_passed_over"] == 1
    [trial] = [t for t in records(tmp_path) if t.trial_id == of_trial.name]
    assert {"checkpoint_passed_over", "resumed"} <= {i["kind"] for i in trial.incidents}
