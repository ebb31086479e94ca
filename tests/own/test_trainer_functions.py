"""A loss and metrics as Hugging Face's Trainer takes them, in place of ours."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaling.spec.read import read_study
from scaling.spec.workloads import CausalLm, TextClassification, Workload
from scaling.tasks import target_loss
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.trainable import require_trainable
from scaling.tasks.trainer_functions import TrainerTask
from scaling.training.evaluation import evaluate, scored_metrics
from scaling.training.parallel.workers import Workers
from tests.recipes import EVALUATION, TINY_BERT, TINY_LLAMA, questions
from tests.tasks.examples import CPU, squad_rows, write_lines

SOURCE = """
import numpy as np
import torch
from torch.nn import functional as F

def summed(outputs, labels, num_items_in_batch):
    return F.cross_entropy(outputs.logits, labels, reduction="sum") / num_items_in_batch

def next_token(outputs, labels, num_items_in_batch=None):
    logits, labels = outputs["logits"][:, :-1], labels[:, 1:]
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100,
                           reduction="sum")
    return loss / num_items_in_batch

def mean_of_means(outputs, labels, num_items_in_batch=None):
    logits, labels = outputs.logits[:, :-1], labels[:, 1:]
    each = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
    return (each.sum(1) / (labels != -100).sum(1).clamp(min=1)).mean()

def noisy(outputs, labels, num_items_in_batch):
    return summed(outputs, labels, num_items_in_batch) * (1 + torch.rand(()))

def first_counts_twice(outputs, labels, num_items_in_batch):
    each = F.cross_entropy(outputs.logits, labels, reduction="none")
    return (each.sum() + each[0]) / num_items_in_batch

def unreduced(outputs, labels, num_items_in_batch):
    return F.cross_entropy(outputs.logits, labels, reduction="none")

def number(outputs, labels, num_items_in_batch):
    return 3.0

def constant(outputs, labels, num_items_in_batch):
    return torch.tensor(1.0)

def broken(outputs, labels, num_items_in_batch):
    return outputs.no_such_logits

def infinite(outputs, labels, num_items_in_batch):
    return summed(outputs, labels, num_items_in_batch) / 0

def right(predicted):
    logits, labels = predicted
    return {"right": float((logits.argmax(-1) == labels).mean()), "num": len(labels)}

def right_tokens(predicted):
    found = predicted.predictions[:, :-1].argmax(-1)
    labels = predicted.label_ids[:, 1:]
    counted = labels != -100
    return {"right": float((found == labels)[counted].mean())}

def nothing(predicted):
    return {"f1": 1.0}

def endless(predicted):
    return {"right": float("nan")}
"""


def rows() -> list[dict[str, str]]:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("abcd"), size=3 + n % 9)) for n in range(60)]
    return [{"text": text, "label": "xy"[text.count("a") > 1]} for text in texts]


def functions(folder: Path, **named: str) -> dict[str, str]:
    """Fields that name functions of a file."""
    (folder / "mine.py").write_text(SOURCE, encoding="utf-8")
    return {"folder": str(folder), **{field: f"mine:{name}" for field, name in named.items()}}


def classes(folder: Path, named: dict[str, str] | None = None, **others: Any) -> Workload:
    data = {"files": write_lines(folder / "rows.jsonl", rows())}
    given = {"task": "text_classification", "model": TINY_BERT, "data": data}
    return TextClassification.model_validate({**given, **(named or {}), **others})


def tokens(folder: Path, named: dict[str, str] | None = None, **others: Any) -> Workload:
    data = {"files": write_lines(folder / "rows.jsonl", rows())}
    given = {"task": "causal_lm", "model": TINY_LLAMA, "data": data}
    return CausalLm.model_validate({**given, **(named or {}), **others})


@pytest.mark.parametrize(("build", "name"), [(classes, "summed"), (tokens, "next_token")])
def test_the_usual_loss_written_by_the_user_is_ours(build: Any, name: str, tmp_path: Path) -> None:
    own = prepare_task(build(tmp_path, functions(tmp_path, compute_loss_func=name)), EVALUATION)
    ours: Any = prepare_task(build(tmp_path), EVALUATION)
    assert isinstance(own, TrainerTask)
    require_trainable(own, 0)
    model = ours.new_model(0).double().eval()
    numbers = np.arange(9)
    with torch.no_grad():
        whole = float(own.loss_sum(model, own.collate(numbers, 0)))
        parts = [float(own.loss_sum(model, own.collate(part, 0))) for part in np.split(numbers, 3)]
        expected = float(ours.loss_sum(model, ours.collate(numbers, 0)))
        found = own.example_losses(model, "validation", slice(None), CPU)
        theirs = ours.example_losses(model, "validation", slice(None), CPU)
    assert whole == pytest.approx(expected, rel=1e-9)
    assert sum(parts) == pytest.approx(expected, rel=1e-9)
    np.testing.assert_allclose(found.loss_sums, theirs.loss_sums, rtol=1e-9)
    kept = ours.metrics(theirs).keys() - {"perplexity", "bits_per_byte"}
    assert own.metrics(found) == pytest.approx({n: ours.metrics(theirs)[n] for n in kept})
    assert own.described_metrics.keys() == kept
    assert own.baseline_losses() == {}
    assert any("compute_loss_func" in note for note in own.data_summary.in_report)


@pytest.mark.parametrize(
    "named", [{"compute_loss_func": "next_token"}, {"compute_metrics": "right_tokens"}]
)
def test_batches_of_many_logits_are_evaluated(
    named: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directions = {"directions": {"right": "maximize"}} if "compute_metrics" in named else {}
    workload = tokens(tmp_path, functions(tmp_path, **named), **directions)
    task: Any = prepare_task(workload, EVALUATION)
    model = task.new_model(0).eval()
    with torch.no_grad():
        expected = task.example_losses(model, "validation", slice(None), CPU)
        monkeypatch.setattr(target_loss, "MAX_LOGITS", 50)
        found = task.example_losses(model, "validation", slice(None), CPU)
    np.testing.assert_allclose(found.loss_sums, expected.loss_sums, rtol=1e-5)
    assert (found.num_correct == expected.num_correct).all()


@pytest.mark.parametrize(("build", "name"), [(classes, "right"), (tokens, "right_tokens")])
def test_metrics_of_the_user_replace_ours(build: Any, name: str, tmp_path: Path) -> None:
    named = functions(tmp_path, compute_metrics=name)
    said = {"directions": {"right": "maximize"}, "ranges": {"right": [0, 1]}}
    task = prepare_task(build(tmp_path, named, **said), EVALUATION)
    assert isinstance(task, TrainerTask)
    require_trainable(task, 0)
    model = task.new_model(0)
    found = scored_metrics(task, model, Workers(), precision="fp32")
    ours: Any = prepare_task(build(tmp_path), EVALUATION)
    losses = evaluate(ours, model, ("validation",), Workers(), precision="fp32")["validation"]
    assert found == {"right": pytest.approx(ours.metrics(losses)["accuracy"])}
    known = task.described_metrics["right"]
    assert (known.direction, known.least, known.most) == ("maximize", 0, 1)
    assert task.metrics(losses) == {}


@pytest.mark.parametrize(
    ("build", "name", "message"),
    [
        (tokens, "mean_of_means", "times num_items_in_batch, is not the sum of its parts' losses"),
        (classes, "noisy", "differs from call to call in evaluation mode"),
        (classes, "first_counts_twice", "is not the sum of its parts' losses"),
        (classes, "unreduced", r"returned a tensor of shape \[8\]; allowed: a tensor of one numb"),
        (classes, "number", "returned 3.0; allowed: a tensor of one number"),
        (classes, "constant", "depends on no weight that is trained"),
        (classes, "broken", r"raised AttributeError: .*no_such_logits.* \(mine.py, line \d+\)"),
        (classes, "infinite", "the loss is inf before the first step"),
    ],
)
def test_a_loss_that_cannot_be_used(build: Any, name: str, message: str, tmp_path: Path) -> None:
    task: Any = prepare_task(
        build(tmp_path, functions(tmp_path, compute_loss_func=name)), EVALUATION
    )
    with pytest.raises(DataError, match=message) as raised:
        require_trainable(task, 0)
    assert raised.value.path == "workload.compute_loss_func"
    assert len(str(raised.value).splitlines()) == 1


def test_a_loss_is_tried_on_a_single_training_example(tmp_path: Path) -> None:
    parts = {"train": rows()[:1], "validation": rows()[1:20], "test": rows()[20:]}
    files = {
        split: write_lines(tmp_path / f"{split}.jsonl", part)["train"]
        for split, part in parts.items()
    }
    named = functions(tmp_path, compute_loss_func="next_token")
    task: Any = prepare_task(tokens(tmp_path, named, data={"files": files}), EVALUATION)
    assert task.num_train == 1
    require_trainable(task, 0)


def test_an_inexact_loss_may_be_accepted(tmp_path: Path) -> None:
    named = functions(tmp_path, compute_loss_func="mean_of_means")
    task: Any = prepare_task(tokens(tmp_path, named, exactness="waived"), EVALUATION)
    require_trainable(task, 0)
    assert task.data_summary.waived


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", r"compute_metrics returned no right, which .* \(got: f1\)"),
        ("endless", "right is nan at the start; it must be finite"),
        ("right_tokens", "compute_metrics raised"),
    ],
)
def test_metrics_that_cannot_be_used(name: str, message: str, tmp_path: Path) -> None:
    named = functions(tmp_path, compute_metrics=name)
    task: Any = prepare_task(classes(tmp_path, named, directions={"right": "maximize"}), EVALUATION)
    with pytest.raises(DataError, match=message) as raised:
        require_trainable(task, 0)
    assert raised.value.path == "workload.compute_metrics"


def test_functions_that_are_not_there_and_names_that_are_taken(tmp_path: Path) -> None:
    named = functions(tmp_path, compute_loss_func="summd")
    with pytest.raises(DataError, match="there is no summd in mine; did you mean summed"):
        prepare_task(classes(tmp_path, named), EVALUATION)
    named = functions(tmp_path, compute_metrics="right")
    taken = {"validation_loss": "minimize"}
    with pytest.raises(DataError, match="validation_loss is measured already"):
        prepare_task(classes(tmp_path, named, directions=taken), EVALUATION)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"compute_metrics": "mine:right"}, "directions"),
        ({"directions": {"right": "maximize"}}, "directions"),
        ({"ranges": {"right": (0, 1)}}, "ranges"),
        ({"exactness": "waived"}, "exactness"),
    ],
)
def test_fields_that_belong_to_a_function(
    fields: dict[str, Any], path: str, tmp_path: Path
) -> None:
    (issue,) = classes(tmp_path, **fields).issues()
    assert issue.path == f"workload.{path}"


def test_answers_have_metrics_and_no_loss_of_the_users_own(tmp_path: Path) -> None:
    files = write_lines(tmp_path / "rows.json", squad_rows())
    named = functions(tmp_path, compute_loss_func="summed")
    (issue,) = questions(files, **named).issues()
    assert issue.path == "workload.compute_loss_func"
    assert "gives it no labels" in issue.message


def test_changed_code_is_other_data_and_found_beside_the_study_file(tmp_path: Path) -> None:
    named = functions(tmp_path, compute_loss_func="summed")
    known = prepare_task(classes(tmp_path, named), EVALUATION).content_hash
    assert known != prepare_task(classes(tmp_path), EVALUATION).content_hash
    (tmp_path / "mine.py").write_text(SOURCE + "\n# other\n", encoding="utf-8")
    assert prepare_task(classes(tmp_path, named), EVALUATION).content_hash != known
    study = {
        "name": "own", "question": "Where is the code?",
        "workload": {
            "task": "text_classification", "model": TINY_BERT,
            "data": {"files": write_lines(tmp_path / "rows.jsonl", rows())},
            "compute_loss_func": "mine:summed",
        },
        "fixed": {"global_batch_size": 4, "peak_lr": 0.001}, "budget": {"steps": 1},
        "evaluation": {"every_steps": 1}, "search": {"trials_per_cell": 1},
    }  # fmt: skip
    (tmp_path / "study.yaml").write_text(json.dumps(study), encoding="utf-8")
    workload: Any = read_study(tmp_path / "study.yaml").workload
    assert workload.folder == str(tmp_path)
    assert workload.own_code == ("mine:summed",)
