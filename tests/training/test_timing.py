"""The number of evaluations of a run, against the run's own count step by step."""

import random

import pytest

from scaling.arithmetic.batching import BatchRamp
from scaling.spec.evaluation import Evaluation
from scaling.training import timing
from scaling.training.evaluation import Cadence
from scaling.training.timing import num_evaluations


def counted(evaluation: Evaluation, ramp: BatchRamp, num_steps: int) -> int:
    """The first evaluation, those that are due, and the last, as a trial takes them."""
    cadence, examples, count, is_due = Cadence(evaluation), 0, 1, False
    for step in range(1, num_steps + 1):
        size = ramp.size_at(examples)
        is_due = cadence.is_due(step, examples_before=examples, examples=examples + size)
        count += is_due
        examples += size
    return count + (not is_due)


@pytest.mark.parametrize("seed", range(200))
def test_evaluations_are_those_of_a_run(seed: int) -> None:
    rng = random.Random(seed)
    marks = tuple(sorted(rng.sample(range(1, 3000), rng.randint(0, 4))))
    ramp = BatchRamp(rng.randint(1, 40), marks, rng.randint(2, 4))
    num_steps = rng.randint(1, 300)
    for evaluation in (
        Evaluation(every_steps=rng.randint(1, 50)),
        Evaluation(every_examples=rng.randint(1, 3000)),
        Evaluation(growth_ratio=1 + 0.3 * rng.random() + 1e-6),
    ):
        expected = counted(evaluation, ramp, num_steps)
        assert num_evaluations(evaluation, ramp, num_steps) == expected
    sizes = list(ramp.sizes(num_steps))
    assert sum(steps for _, steps in sizes) == num_steps
    assert sum(size * steps for size, steps in sizes) == ramp.examples_after(num_steps)


@pytest.mark.parametrize("growth_ratio", [2.0, 1.1, 1.001])
def test_a_long_run_is_estimated_within_a_tenth(
    growth_ratio: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_MAX_LISTED_STEPS", 100_000)  # a million take a second to count
    evaluation, num_steps = Evaluation(growth_ratio=growth_ratio), 100_001
    expected = counted(evaluation, BatchRamp(1), num_steps)
    assert num_evaluations(evaluation, BatchRamp(1), num_steps) == pytest.approx(expected, rel=0.1)


def test_the_longest_run_is_counted_at_once() -> None:
    for evaluation in (
        Evaluation(every_steps=1), Evaluation(every_examples=1), Evaluation(growth_ratio=1 + 1e-15),
    ):  # fmt: skip
        assert num_evaluations(evaluation, BatchRamp(8, (100,)), 2**53) > 10**12
