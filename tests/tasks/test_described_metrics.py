"""A family says of each of its metrics what it is and which way is better."""

import json
from typing import Any

import pytest

from scaling.driver.environment import describe
from scaling.records.metrics import from_plain
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import WritingTask, Written, described
from scaling.training.evaluation import evaluate
from scaling.training.parallel.workers import Workers
from tests import recipes

HOW = {"num_examples": 3, "max_new_tokens": 4, "num_beams": 2}


@pytest.mark.parametrize(
    "workload",
    [
        recipes.quadratic(),
        recipes.pronunciation(generation=HOW),
        recipes.part_of_speech(),
        recipes.tagging(),
        recipes.python_questions(),
        recipes.spelling(generation=HOW),
    ],
    ids=lambda workload: workload.task,
)
def test_every_metric_is_described_and_no_other(workload: Any) -> None:
    task = prepare_task(workload, recipes.EVALUATION)
    losses = evaluate(task, task.new_model(0), ("validation",), Workers(), precision="fp32")
    measured = task.metrics(losses["validation"])
    if isinstance(task, WritingTask) and task.writing is not None:
        measured |= task.writing.metrics([Written("AH", "B") for _ in task.writing.references])

    assert measured.keys() == task.described_metrics.keys()
    for metric in task.described_metrics.values():
        assert metric.direction is not None
        assert metric.help.endswith(".")


def test_a_study_records_what_its_task_says_of_them() -> None:
    task = prepare_task(recipes.part_of_speech(), recipes.EVALUATION)
    recorded = json.loads(json.dumps(describe([task])))["metrics"]
    assert from_plain(recorded) == described(task)
