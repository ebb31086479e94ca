"""What a process needs once, kernels and compiled blocks, is no part of a trial's training."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training import cold_start, supervision
from scaling.training.build import set_up
from scaling.training.noise_cadence import added_ratio, measures_noise_at
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import EVALUATION, changed, part_of_speech, pronunciation, recipe
from tests.together import on_workers
from tests.training.test_checkpoint import DROPOUT, paused_often, run, without_time

LOAD_SECONDS = 0.4


@pytest.fixture(autouse=True)
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which nothing was trained."""
    monkeypatch.setattr(cold_start, "_warm", {})


class SlowAtFirst:
    """A task whose kernels take their time to load when a model first computes with them."""

    def __init__(self, task: Any) -> None:
        self._task, self._is_loaded = task, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss_sum(self, model: torch.nn.Module, batch: Any, **options: Any) -> torch.Tensor:
        if not self._is_loaded and not isinstance(next(model.parameters()), FakeTensor):
            time.sleep(LOAD_SECONDS)
            self._is_loaded = True
        return self._task.loss_sum(model, batch, **options)


def measured(task: Any, how: Recipe, workers: Workers | None = None) -> list[Measurement]:
    return run(task, how, Supervision(), EVALUATION, workers)[1]


@pytest.fixture(scope="module")
def words() -> Any:
    return prepare_task(pronunciation(num_train=64), EVALUATION)


def test_the_first_steps_of_a_process_are_no_training(words: Task) -> None:
    how = changed(recipe(8, 1e-3, 4), budget_seconds=LOAD_SECONDS / 2, num_steps=None)
    first = measured(SlowAtFirst(words), how)
    assert first[0].warm_up_seconds is not None
    assert first[0].warm_up_seconds >= LOAD_SECONDS
    assert first[-1].step > 1  # the budget was not spent on loading
    speeds = [m.examples_per_second for m in first if m.examples_per_second]
    assert 8 / speeds[0] < LOAD_SECONDS


def test_another_trial_of_the_shape_has_none_and_one_of_another_has(words: Task) -> None:
    warm_ups = [
        measured(words, how)[-1].warm_up_seconds
        for how in (
            recipe(8, 1e-3, 2), replace(recipe(8, 3e-2, 3), seed=5), recipe(16, 1e-3, 2),
            recipe(8, 1e-3, 2, optimizer="lion"), recipe(16, 1e-3, 1),
        )
    ]  # fmt: skip
    assert [bool(seconds) for seconds in warm_ups] == [True, False, True, True, False]


@pytest.mark.parametrize("changes", [{}, {"weight_average_half_life_examples": 20.0}])
def test_nothing_of_them_is_in_the_trial(changes: dict[str, Any]) -> None:
    task = prepare_task(part_of_speech(num_train=40, model=DROPOUT), EVALUATION)
    how = changed(recipe(8, 1e-2, 12, clip_norm=0.5, micro_batch_size=4), **changes)
    cold, warm = measured(task, how), measured(task, how)
    assert cold[0].warm_up_seconds
    assert warm[0].warm_up_seconds == 0
    assert without_time(cold) == without_time(warm)


def test_a_run_that_goes_on_in_a_cold_process_is_the_same(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "CHECK_SECONDS", 0.0)
    task: Any = prepare_task(part_of_speech(num_train=40, model=DROPOUT), EVALUATION)
    how = recipe(8, 1e-2, 8)
    whole = measured(task, how)
    cold_start._warm.clear()
    starts, parts, _ = paused_often(task, how, str(tmp_path), EVALUATION)
    assert starts > 1
    assert without_time(parts) == without_time(whole)


@pytest.mark.parametrize(
    ("measured_seconds", "plain_seconds", "ratio", "period"),
    [(1.5, 1.0, 0.5, 20), (1.4, 1.0, 0.5, 20), (1.02, 1.0, 2**-5, 2), (0.9, 1.0, 2**-8, 1),
     (4.0, 1.0, 4.0, 160)],
)  # fmt: skip
def test_the_cadence_of_noise_goes_by_what_it_was_seen_to_cost(
    measured_seconds: float, plain_seconds: float, ratio: float, period: int
) -> None:
    assert added_ratio(measured_seconds, plain_seconds) == ratio
    how = recipe(8, 1e-3, 32)
    taken = [
        step
        for step in range(500)
        if measures_noise_at(step, how, (0, 8), num_train=100, added_ratio=ratio)
    ]
    assert taken[:3] == [0, period, 2 * period]


def test_what_noise_costs_is_measured_where_it_is_asked_for(words: Task) -> None:
    setup = set_up(words, recipe(8, 1e-3, 2), Workers())
    assert cold_start.noise_cost(setup) is None  # a CPU goes by the recipe alone
    assert 2**-9 < cold_start.measured_noise_cost(setup) < 2**6


def one_cold(workers: Workers) -> list[list[Any]]:
    task = prepare_task(pronunciation(num_train=64), EVALUATION)
    how = changed(recipe(8, 1e-2, 4), world_size=2, micro_batch_size=2, grad_accum_steps=2)
    cold = measured(task, how, workers)
    if workers.rank == 1:
        cold_start._warm.clear()  # as after a loss that the other has not seen
    runs = [cold, *(measured(task, how, workers) for _ in range(2))]
    return [[bool(m.warm_up_seconds), m.train_loss, m.step_loss] for ms in runs for m in ms[-1:]]


@pytest.mark.slow
def test_workers_warm_up_together() -> None:
    (_, *first), (again, *second), (third, *last) = on_workers(one_cold)
    assert (again, third) == (True, False)
    assert first == second == last
