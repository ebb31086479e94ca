"""What must end within a run is refused before it starts, also where the data decide its length."""

from pathlib import Path
from typing import Any

import pytest

from scaling.plan.start_checks import require_tasks
from scaling.spec.study import StudySpec
from scaling.tasks.errors import DataError
from tests.recipes import TINY_BERT

RUNG = {"rule": "asha"}


def study(tmp_path: Path, **given: Any) -> StudySpec:
    """A study of 80 rows of 4 letters, of which 64 are trained on."""
    path = tmp_path / "rows.csv"
    rows = (f"{n:04},{'ab'[n % 2]}\n" for n in range(80))
    path.write_text("text,label\n" + "".join(rows), encoding="utf-8")
    workload = {"task": "text_classification", "model": TINY_BERT}
    usual = {
        "name": "short", "question": "Is it over too soon?",
        "workload": {**workload, "data": {"files": {"train": str(path)}}},
        "scientific": {"global_batch_size": [8, 16]},
        "nuisance": {"peak_lr": {"log_uniform": [1e-4, 1e-2]}}, "budget": {"epochs": 2},
        "evaluation": {"every_steps": 5}, "search": {"trials_per_cell": 2},
    }  # fmt: skip
    return StudySpec.model_validate({**usual, **given})


@pytest.mark.parametrize(
    ("given", "path", "allowed"),
    [
        ({"fixed": {"warmup_steps": 9}}, "fixed.warmup_steps", "at most 8"),
        ({"fixed": {"warmup_examples": 129}}, "fixed.warmup_examples", "at most 128"),
        ({"fixed": {"schedule": "wsd", "warmup_steps": 8, "decay_ratio": 0.5}},
         "fixed.warmup_steps", "at most 4"),
        ({"fixed": {"batch_ramp_at_examples": [500]}}, "fixed.batch_ramp_at_examples",
         "at most 120"),
        ({"search": {"trials_per_cell": 2, "early_stopping": {**RUNG, "first_rung_examples": 128}}},
         "search.early_stopping.first_rung_examples", "below 128"),
        ({"search": {"trials_per_cell": 2, "early_stopping": {**RUNG, "first_rung_tokens": 640}}},
         "search.early_stopping.first_rung_tokens", "below 640"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("budget", [{"epochs": 2}, {"tokens": 640}])
def test_a_run_is_not_over_before_what_it_is_told_to_do(
    budget: dict[str, int], given: dict[str, Any], path: str, allowed: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=allowed) as raised:
        require_tasks(study(tmp_path, **given, budget=budget))
    assert raised.value.path == path


def test_a_run_of_epochs_that_is_long_enough_starts(tmp_path: Path) -> None:
    early = {**RUNG, "first_rung_examples": 127}
    fixed = {"warmup_steps": 6, "batch_ramp_at_examples": [64]}
    search = {"trials_per_cell": 2, "early_stopping": early}
    require_tasks(study(tmp_path, fixed=fixed, search=search))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"at_least": 5.0}, "target.at_least: no value of accuracy is above 1"),
        ({"at_least": -0.5}, "target.at_least: no value of accuracy is below 0"),
    ],
)
def test_a_target_that_no_value_of_its_metric_reaches(
    target: dict[str, float], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        require_tasks(study(tmp_path, target={"metric": "accuracy", **target}))
