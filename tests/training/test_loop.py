"""The loop without Ray: known answers, exactness, and how a run ends."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from scaling.optimizers.build import build_optimizer
from scaling.records.measurement import Measurement
from scaling.records.outcome import crossing
from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation, Target
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import ExampleLosses, Task
from scaling.training.data_order import DataOrder
from scaling.training.evaluation import Cadence
from scaling.training.gradient import StepGradient
from scaling.training.loop import Outcome, train
from scaling.training.parallel.workers import Workers
from scaling.training.progress import Progress, SinceMeasured
from scaling.training.supervision import Directive
from scaling.training.weight_average import WeightAverage
from tests.recipes import (
    EVALUATION,
    part_of_speech,
    pronunciation,
    quadratic,
    recipe,
    spelling,
    tagging,
)
from tests.together import on_workers


def run(
    task: Task, how: Recipe, evaluation: Evaluation = EVALUATION, workers: Workers | None = None
) -> tuple[Outcome, list[Measurement]]:
    """Train, keeping the measurements."""
    measurements: list[Measurement] = []

    def report(measurement: Measurement, *, at_rung: bool) -> Directive:
        measurements.append(measurement)
        return "continue"

    return train(task, how, evaluation, workers or Workers(), report), measurements


@pytest.mark.parametrize(
    ("batch", "lr", "expected", "num_steps"),
    [(64, 0.369, 536, 640), (256, 1.10, 169, 230), (1024, 1.63, 94, 130), (4096, 1.82, 77, 100)],
)
def test_noisy_quadratic_takes_the_steps_of_the_exact_recursion(
    batch: int, lr: float, expected: int, num_steps: int
) -> None:
    # Case 1; the ensemble is within 5% of the table (noise crosses a little early).
    task = prepare_task(quadratic(num_chains=1000), EVALUATION)
    how = recipe(batch, lr, num_steps, optimizer="sgd", weight_decay=0.0)
    _, measurements = run(task, how, Evaluation(growth_ratio=1.01))
    reached = crossing(measurements, Target(at_most=0.01))
    assert reached is not None
    assert reached.steps == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("num_chains", [200, 800])
def test_the_noisy_quadratics_gradient_norm_is_that_of_one_chain(num_chains: int) -> None:
    # At x ~ N(0, I): E |h x + N(0, h / B)|² = Σ h² + Σ h / B.
    task = prepare_task(quadratic(num_chains=num_chains), Evaluation(every_steps=1))
    how = recipe(16, 1e-9, 1, optimizer="sgd", weight_decay=0.0)
    _, measured = run(task, how, evaluation=Evaluation(every_steps=1))
    h = 1 / np.arange(1, 101)
    last = measured[-1]
    assert last.grad_norm == pytest.approx(math.sqrt((h**2).sum() + h.sum() / 16), rel=0.1)
    assert last.grad_sq_norm == pytest.approx((h**2).sum(), rel=0.2)
    assert last.grad_covariance_trace == pytest.approx(h.sum(), rel=0.1)


def test_noise_scale_of_the_noisy_quadratic_at_its_start() -> None:
    # At x_0 ~ N(0, I): |G|² = Σ h² and tr Σ = Σ h, one half-life of estimates at a tiny rate.
    task = prepare_task(quadratic(num_chains=400), EVALUATION)
    how = recipe(64, 1e-9, 40, optimizer="sgd", weight_decay=0.0)
    _, measurements = run(task, how, Evaluation(every_steps=40))
    h = 1 / np.arange(1, 101)
    assert measurements[-1].grad_noise_scale == pytest.approx(h.sum() / (h**2).sum(), rel=0.1)
    # The running loss is that of a mean chain, as the measured one; it has the noise besides.
    assert measurements[-1].step_loss == pytest.approx(measurements[0].validation_loss, rel=0.02)


def test_loss_falls_and_the_record_is_complete() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    outcome, measurements = run(task, recipe(16, 1e-2, 30, clip_norm=1.0))
    assert outcome.status == "done"
    first, last = measurements[0], measurements[-1]
    assert [m.step for m in measurements] == [0, 5, 10, 15, 20, 25, 30]
    assert first.validation_loss == pytest.approx(
        math.log(task.token_model.tokenizer.vocab_size), rel=0.05
    )  # type: ignore[attr-defined]
    assert last.validation_loss is not None
    assert last.validation_loss < first.validation_loss - 0.5  # type: ignore[operator]
    assert last.examples == 480
    assert last.test_loss is not None
    assert first.test_loss is None  # the test split is read once
    assert last.grad_norm is not None
    assert last.grad_norm > 0
    assert 0 <= (last.clipped_fraction or 0) <= 1
    assert last.train_loss_stderr is not None
    assert set(outcome.example_losses) == {"train", "validation", "test"}
    assert outcome.example_losses["test"].loss == pytest.approx(last.test_loss)


@pytest.mark.parametrize("workload", [pronunciation(), part_of_speech()], ids=lambda w: w.task)
def test_a_run_is_repeated_exactly(workload: Any) -> None:
    task = prepare_task(workload, EVALUATION)
    how = recipe(8, 3e-3, 10)
    first, second = (run(task, how)[1][-1].validation_loss for _ in range(2))
    assert first == second
    other = run(task, replace(how, seed=2))[1][-1].validation_loss
    assert other != first


ONLY_IN_CI = (pytest.mark.slow, pytest.mark.ci)


def train_on_two(workers: Workers, workload: Any, how: Recipe) -> list[dict[str, float]]:
    task = prepare_task(workload, EVALUATION)
    _, measurements = run(task, how, workers=workers)
    return [m.scalars() for m in measurements]


@pytest.mark.parametrize(
    "workload",
    [
        pytest.param(pronunciation(), id="causal_lm"),
        pytest.param(tagging(), id="token_classification", marks=ONLY_IN_CI),
        pytest.param(
            spelling(generation={"num_examples": 7, "max_new_tokens": 6}),
            id="seq2seq",
            marks=ONLY_IN_CI,
        ),
    ],
)
def test_two_gloo_workers_train_like_one(workload: Any) -> None:
    one = recipe(16, 3e-3, 12, clip_norm=1.0, micro_batch_size=4)
    two = recipe(16, 3e-3, 12, clip_norm=1.0, micro_batch_size=4, world_size=2)
    _, alone = run(prepare_task(workload, EVALUATION), one)
    together = on_workers(train_on_two, workload, two)
    assert len(together) == len(alone)
    for ours, theirs in zip(alone, together, strict=True):
        for name in ("validation_loss", "train_loss", "step_loss", "grad_norm", "test_loss"):
            expected = getattr(ours, name)
            assert theirs.get(name) == (expected and pytest.approx(expected, rel=2e-4))
        for name, expected in ours.metrics.items():  # a tie that rounding breaks moves a count by 1
            assert theirs.get(name) == pytest.approx(expected, rel=2e-2)


def test_a_rate_that_is_too_large_diverges_and_is_not_an_error() -> None:
    task = prepare_task(quadratic(num_chains=10), EVALUATION)
    how = recipe(4, 3.0, 500, optimizer="sgd", weight_decay=0.0)  # stable below 2 / h_1 = 2
    outcome, measurements = run(task, how)
    assert outcome.status == "diverged"
    assert measurements[-1].step < 500
    for measurement in measurements:
        assert all(math.isfinite(value) for value in measurement.scalars().values())


class _Shifted:
    """A task whose losses are less by a constant, as a density's may be negative."""

    def __init__(self, task: Task, by: float) -> None:
        self._task, self._by = task, by

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def example_losses(self, *args: Any) -> ExampleLosses:
        losses = self._task.example_losses(*args)
        return replace(losses, loss_sums=losses.loss_sums - self._by * losses.num_targets)


@pytest.mark.parametrize("by", [0.0, 5.0])
def test_a_loss_below_zero_is_no_divergence(by: float) -> None:
    task: Any = _Shifted(prepare_task(part_of_speech(), EVALUATION), by)
    outcome, measurements = run(task, recipe(16, 1e-2, 12))
    assert outcome.status == "done"
    losses = [m.validation_loss for m in measurements]
    assert None not in losses
    assert losses[-1] < losses[0]  # type: ignore[operator]


def test_targets_a_second_are_of_all_steps_as_seconds_are() -> None:
    progress = Progress(SinceMeasured(torch.zeros(())))
    gradient = StepGradient(torch.ones(()), 40, grad_norm=1.0, noise=None)
    for clipped in (None, False):  # the first one overflowed
        progress.add(gradient, num_examples=8, num_tokens=80, seconds=1.0, clipped=clipped)
    since = progress.since
    assert (since.num_seen_targets, since.num_targets, since.seconds) == (80, 40, 2.0)


def test_a_batch_that_grows_keeps_the_order_of_the_data() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    how = recipe(8, 3e-3, 8, batch_ramp_at_examples=(20, 60), micro_batch_size=4)
    seen: list[list[int]] = []
    recorded = _RecordsIndices(task, seen)
    _, measurements = run(recorded, how, Evaluation(every_examples=40))
    sizes = [8, 8, 8, 16, 16, 16, 32, 32]
    order = DataOrder(how.seed, task.num_train).indices(0, sum(sizes)).tolist()
    del seen[: -len(sizes)]  # of a process that is cold a discarded step comes first
    assert [len(batch) for batch in seen] == sizes
    assert [index for batch in seen for index in batch] == order
    # Seen: 8, 16, 24, 40, 56, 72, 104, 136; multiples of 40 are reached at 40, 104 and 136.
    assert [(m.step, m.examples) for m in measurements] == [(0, 0), (4, 40), (7, 104), (8, 136)]
    assert measurements[-1].grad_sq_norm is not None


class _RecordsIndices:
    """A task that keeps which examples each step asks the number of targets of."""

    def __init__(self, task: Task, seen: list[list[int]]) -> None:
        self._task = task
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def num_targets(self, indices: Any) -> int:
        if len(indices) >= 8:  # parts have their targets counted too
            self._seen.append(indices.tolist())
        return self._task.num_targets(indices)


@pytest.mark.parametrize("workload", [pronunciation(), part_of_speech()], ids=lambda w: w.task)
def test_a_run_counts_input_tokens_and_targets_apart(workload: Any) -> None:
    task = prepare_task(workload, EVALUATION)
    how = recipe(8, 1e-3, 10)
    start, half, last = run(task, how)[1]
    assert (start.tokens, start.targets) == (0, 0)
    for measured in (half, last):
        seen = DataOrder(how.seed, task.num_train).indices(0, measured.examples)
        assert measured.tokens == task.num_tokens(seen)
        assert measured.targets == task.num_targets(seen)
        assert measured.tokens > measured.targets
    assert last.tokens_per_second is not None
    assert last.targets_per_second is not None
    tokens, targets = last.tokens - half.tokens, last.targets - half.targets
    assert last.tokens_per_second / last.targets_per_second == pytest.approx(tokens / targets)


def test_what_has_no_tokens_counts_none() -> None:
    task = prepare_task(quadratic(num_chains=3), EVALUATION)
    last = run(task, recipe(4, 0.1, 5, optimizer="sgd", weight_decay=0.0))[1][-1]
    assert (last.tokens, last.tokens_per_second) == (None, None)
    assert last.targets == 20
    assert last.targets_per_second == pytest.approx(last.examples_per_second)
    assert "tokens" not in last.scalars()
    assert Measurement.from_scalars(last.scalars()) == last


def test_a_ramp_without_marks_in_reach_changes_nothing() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    constant = run(task, recipe(8, 3e-3, 6))[1][-1]
    ramped = run(task, recipe(8, 3e-3, 6, batch_ramp_at_examples=(48,)))[1][-1]
    assert ramped.validation_loss == constant.validation_loss
    assert ramped.examples == constant.examples == 48


def test_a_directive_stops_the_run() -> None:
    task = prepare_task(quadratic(num_chains=10), EVALUATION)
    how = recipe(4, 0.1, 500, optimizer="sgd", weight_decay=0.0)
    seen: list[int] = []

    def report(measurement: Measurement, *, at_rung: bool) -> Directive:
        seen.append(measurement.step)
        return "stop" if measurement.step >= 10 else "continue"

    assert train(task, how, EVALUATION, Workers(), report).status == "stopped"
    assert seen == [0, 5, 10]


def test_a_budget_in_seconds_ends_the_run() -> None:
    task = prepare_task(quadratic(num_chains=10), EVALUATION)
    how = recipe(4, 0.1, None, budget_seconds=0.2, optimizer="sgd", weight_decay=0.0)
    outcome, measurements = run(task, how)
    assert outcome.status == "done"
    assert 0.2 <= measurements[-1].seconds < 2.0


def test_data_order_is_a_stream_of_permutations_cut_into_batches() -> None:
    order = DataOrder(seed=3, num_train=10)
    batches = [order.indices(start, start + 4).tolist() for start in range(0, 20, 4)]
    stream = [index for batch in batches for index in batch]
    assert sorted(stream[:10]) == list(range(10))
    assert sorted(stream[10:]) == list(range(10))
    assert stream[:10] != stream[10:]
    # The same position has the same example, whatever was read before and in what pieces.
    assert DataOrder(seed=3, num_train=10).indices(0, 25).tolist()[:20] == stream
    assert DataOrder(seed=3, num_train=10).indices(12, 16).tolist() == batches[3]
    assert DataOrder(seed=4, num_train=10).indices(0, 10).tolist() != stream[:10]


@pytest.mark.parametrize(
    ("evaluation", "batch", "expected"),
    [
        (Evaluation(every_examples=10), 4, [3, 5, 8, 10]),
        (Evaluation(every_examples=10), 16, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]),
        (Evaluation(every_steps=4), 1, [4, 8]),
        (Evaluation(growth_ratio=2.0), 1, [1, 2, 4, 8]),
    ],
)
def test_cadence(evaluation: Evaluation, batch: int, expected: list[int]) -> None:
    cadence = Cadence(evaluation)
    due = [
        step
        for step in range(1, 11)
        if cadence.is_due(step, examples_before=(step - 1) * batch, examples=step * batch)
    ]
    assert due == expected


def test_weight_average_is_the_debiased_exponential_mean() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage([model.weight], half_life_examples=8)
    for value in (1.0, 3.0, 7.0):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update(8)
    with average.in_place():
        # Weights ¼, ½, 1 over 1.75.
        assert float(model.weight.detach()) == pytest.approx((0.25 * 1 + 0.5 * 3 + 7) / 1.75)
    assert float(model.weight.detach()) == 7.0


def test_first_adamw_step_and_decay_of_matrices_only() -> None:
    # Case 6: w = (3, 4), g = (.6, .8), decay .1, lr .01: first step (2.987, 3.986).
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, 4.0]]))
        model.bias.fill_(5.0)
    optimizer = build_optimizer(model, recipe(1, 0.01, 1, weight_decay=0.1).hyperparameters)
    model.weight.grad, model.bias.grad = torch.tensor([[0.6, 0.8]]), torch.zeros(1)
    optimizer.step()
    assert model.weight.detach().flatten().tolist() == pytest.approx([2.987, 3.986], abs=1e-5)
    assert float(model.bias.detach()) == 5.0


def test_bf16_keeps_weights_in_float32_and_learns() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    _, measurements = run(task, recipe(16, 1e-2, 20, precision="bf16"))
    first, last = measurements[0].validation_loss, measurements[-1].validation_loss
    assert first is not None
    assert last is not None
    assert last < first - 0.3
