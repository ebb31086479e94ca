"""A metric of the user's own as what recipes are tuned for."""

import math
from pathlib import Path
from typing import Any

import pytest

from scaling.plan.facts import facts_of
from scaling.plan.start_checks import require_tasks
from scaling.records.objective import objective_of
from scaling.spec.study import StudySpec
from scaling.tasks.errors import DataError
from scaling.tasks.own.metrics import declared_numbers, own_metrics

STUDY: dict[str, Any] = {
    "name": "own_metric",
    "question": "Is it tuned for a metric of one's own?",
    "workload": {
        "task": "custom", "factory": "tests.own.conv_attention:build", "options": {"num_train": 64},
    },
    "scientific": {"global_batch_size": [4, 8]},
    "nuisance": {"peak_lr": {"log_uniform": [1e-4, 1e-2]}},
    "budget": {"steps": 10},
    "evaluation": {"every_steps": 5},
}  # fmt: skip


def started(
    folder: Path, objective: str, target: dict[str, Any] | None = None
) -> tuple[StudySpec, Any]:
    search = {"trials_per_cell": 2, "objective": objective}
    workload = STUDY["workload"] | {"folder": str(folder)}
    spec = StudySpec.model_validate(
        STUDY | {"search": search, "target": target, "workload": workload}
    )
    return spec, require_tasks(spec)


def test_the_direction_is_the_factorys(tmp_path: Path) -> None:
    spec, tasks = started(tmp_path, "accuracy", {"metric": "accuracy", "at_least": 0.5})
    objective = objective_of(spec, facts_of(spec, tasks).metrics)
    assert (objective.name, objective.direction) == ("accuracy", "maximize")
    assert objective.oriented(0.9) < objective.oriented(0.8)


def test_the_range_is_the_factorys(tmp_path: Path) -> None:
    _, tasks = started(tmp_path, "accuracy")
    known = tasks[0].described_metrics["accuracy"]
    assert (known.least, known.most) == (0.0, 1.0)


@pytest.mark.parametrize(("given", "expected"), [
    (1.0 + 5e-7, 1.0), (-5e-7, 0.0), (0.25, 0.25),
])  # fmt: skip
def test_rounding_does_not_leave_a_range(given: float, expected: float) -> None:
    metrics = own_metrics({"hits": None}, {"hits": (0, 1)}, "workload")
    assert declared_numbers({"hits": given}, metrics, "metrics") == {"hits": expected}


@pytest.mark.parametrize("given", ["01", {0: "a", 1: "b"}, (1, 1), (0, 1, 2), (float("nan"), 1)])
def test_what_is_no_range(given: Any) -> None:
    with pytest.raises(DataError, match=r"ranges.hits is .*; allowed: the least and greatest"):
        own_metrics({"hits": None}, {"hits": given}, "workload")


def test_infinite_ends_are_open_and_what_is_not_finite_has_no_range() -> None:
    metrics = own_metrics({"hits": None}, {"hits": (-math.inf, math.inf)}, "workload")
    assert (metrics["hits"].least, metrics["hits"].most) == (None, None)
    shares = own_metrics({"hits": None}, {"hits": (0, 1)}, "workload")
    assert declared_numbers({"hits": math.inf}, shares, "metrics") == {"hits": math.inf}


def test_one_end_of_a_range_may_be_open() -> None:
    metrics = own_metrics({"error": "minimize"}, {"error": [0, None]}, "workload")
    assert declared_numbers({"error": 1e9}, metrics, "metrics") == {"error": 1e9}
    with pytest.raises(ValueError, match=r"error is -1, outside its range \[0, null\]"):
        declared_numbers({"error": -1}, metrics, "metrics")


def test_another_metric_and_the_other_side_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"search.objective: .*'f1' \(allowed: .*accuracy\)"):
        started(tmp_path, "f1")
    with pytest.raises(DataError, match=r"target.at_most: accuracy is one to maximize"):
        started(tmp_path, "accuracy", {"metric": "accuracy", "at_most": 0.5})
