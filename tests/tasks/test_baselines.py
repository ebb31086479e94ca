"""The least to beat: guesses by frequency, against numbers by hand and on every family's data."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scaling.tasks.baselines import (
    describe_baseline,
    frequency_losses,
    position_losses,
    smoothed_shares,
)
from scaling.tasks.prepare import prepare_task
from tests.recipes import (
    EVALUATION,
    part_of_speech,
    pronunciation,
    python_questions,
    quadratic,
    spelling,
    tagging,
)


def test_shares_are_laplace_where_every_value_occurs() -> None:
    np.testing.assert_allclose(smoothed_shares(np.array([3, 1])), [4 / 6, 2 / 6])


def test_values_that_do_not_occur_share_one_count() -> None:
    shares = smoothed_shares(np.array([3, 0, 1, 0, 0]))
    np.testing.assert_allclose(shares, [4 / 7, 1 / 21, 2 / 7, 1 / 21, 1 / 21])
    wide = smoothed_shares(np.concatenate(([300, 100], np.zeros(50_000, dtype=np.int64))))
    assert wide[:2].sum() > 0.99


def test_losses_by_hand() -> None:
    labels = {
        "train": np.array([[0, 0, -100], [1, 0, 0], [0, -100, -100]]),  # 0 five times, 1 once
        "validation": np.array([[0, 1], [1, -100]]),
    }
    losses = frequency_losses(
        {split: len(of_split) for split, of_split in labels.items()},
        lambda split, numbers: labels[split][numbers], num_values=2,
    )  # fmt: skip
    likely, rare = -math.log(6 / 8), -math.log(2 / 8)
    np.testing.assert_allclose(losses["validation"].loss_sums, [likely + rare, rare])
    np.testing.assert_allclose(losses["validation"].num_targets, [2, 1])
    assert losses["validation"].accuracy == pytest.approx(1 / 3)


def test_positions_by_hand() -> None:
    train = np.array([[0, 0], [2, 3], [2, 2]])
    spans, lengths = np.array([[0, 0], [2, 2]]), np.array([2, 4])
    losses = position_losses(train, {"validation": (spans, lengths)})["validation"]
    # Counts of first tokens 2, 1, 3, 1 and of last ones 2, 1, 2, 2 over positions 0 to 3.
    expected = [
        (math.log(3 / 2) + math.log(3 / 2)) / 2,
        (math.log(7 / 3) + math.log(7 / 2)) / 2,
    ]
    np.testing.assert_allclose(losses.loss_sums, expected)
    assert losses.num_correct.tolist() == [1, 0]


def _labels(task: Any, split: str, count: int) -> list[list[int]]:
    """Labels of a split's first examples, read from what the model is given one by one."""
    found: list[list[int]] = []
    for number in range(count):
        at = np.array([number])
        batch = task.objective.examples[split].batch(at, 0)
        found.append([n for n in batch["labels"].flatten().tolist() if n != -100])
    return found


@pytest.mark.parametrize(
    "workload", [part_of_speech(), tagging(), pronunciation(), spelling()], ids=lambda w: w.task
)
def test_baseline_is_that_of_the_training_frequencies_on_the_evaluated_examples(
    workload: Any,
) -> None:
    task = prepare_task(workload, EVALUATION)
    described = describe_baseline(task)
    counts = Counter(n for row in _labels(task, "train", task.num_train or 0) for n in row)
    rows = _labels(task, "validation", task.num_evaluated("validation"))
    evaluated = [n for row in rows for n in row]
    total = sum(counts.values())
    entropy = -sum(math.log(max(counts[n], 0.5) / total) for n in evaluated) / len(evaluated)
    assert described["baseline_validation_loss"] == pytest.approx(entropy, rel=0.03)
    majority = counts.most_common(1)[0][0]
    assert described["baseline_accuracy"] == pytest.approx(
        evaluated.count(majority) / len(evaluated)
    )
    assert described["baseline_validation_loss_stderr"] > 0
    assert described["baseline_test_loss"] > 0


def test_baseline_of_questions_is_below_a_uniform_guess() -> None:
    task = prepare_task(python_questions(), EVALUATION)
    described = describe_baseline(task)
    assert described["baseline"] == "answer-position frequencies"
    assert 0 < described["baseline_validation_loss"] < math.log(task.tokens_per_example or 1)


def test_the_noisy_quadratic_has_none() -> None:
    assert describe_baseline(prepare_task(quadratic(num_chains=3), EVALUATION)) == {}


def test_plain_files_with_one_frequent_class(tmp_path: Path) -> None:
    rows = "\n".join(f"word {n},{'rare' if n % 10 == 0 else 'usual'}" for n in range(400))
    (tmp_path / "rows.csv").write_text(f"text,label\n{rows}\n", encoding="utf-8")
    data = {"files": {"train": str(tmp_path / "rows.csv")}}
    workload = type(part_of_speech()).model_validate(
        {"task": "text_classification", "model": part_of_speech().model, "data": data}
    )
    described = describe_baseline(prepare_task(workload, EVALUATION))
    assert described["baseline_accuracy"] == pytest.approx(0.9, abs=0.1)
    assert described["baseline_validation_loss"] == pytest.approx(0.325, abs=0.2)
