"""float16: the loss scale, and steps that are skipped."""

import math
from typing import Any

import pytest
import torch

from scaling.records.recipe import Recipe
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training import loss_scale as loss_scale_module
from scaling.training.loss_scale import MAX_SKIPPED_IN_A_ROW, LossScale
from scaling.training.supervision import Supervision
from tests.recipes import EVALUATION, changed, pronunciation, recipe
from tests.training.test_checkpoint import run

FP16 = recipe(16, 1e-2, 20, precision="fp16", clip_norm=1.0)


def test_scale_halves_at_an_overflow_and_doubles_after_enough_steps_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loss_scale_module, "GROWTH_INTERVAL", 3)
    ours = LossScale("fp16")
    theirs = torch.amp.GradScaler("cpu", growth_interval=3)
    weight = torch.nn.Parameter(torch.zeros(()))
    sgd = torch.optim.SGD([weight])
    scales = []
    for finite in (False, False, True, True, False, True, True, True, True, True, True, True):
        weight.grad = theirs.scale(torch.tensor(1.0 if finite else math.inf))
        theirs.step(sgd)
        theirs.update()
        ours.update(is_finite=finite)
        scales.append(ours.value)
        assert ours.value == theirs.get_scale()
    assert [math.log2(scale) for scale in scales] == [
        15,
        14,
        14,
        14,
        13,
        13,
        13,
        14,
        14,
        14,
        15,
        15,
    ]
    again = LossScale("fp16")
    again.restore(ours.state())
    again.update(is_finite=True)
    again.update(is_finite=True)
    assert again.value == 2.0**16


def test_scale_is_one_in_other_precisions() -> None:
    scale = LossScale("bf16")
    scale.update(is_finite=False)
    assert scale.value == 1
    assert not scale.explains_overflow


def test_fp16_learns_like_fp32_and_its_norms_are_unscaled() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    _, expected = run(task, changed(FP16, precision="fp32"), Supervision())
    _, measurements = run(task, FP16, Supervision())
    assert measurements[-1].num_skipped_steps == 0
    assert expected[-1].num_skipped_steps is None
    for ours, theirs in zip(measurements, expected, strict=True):
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=0.01)
        for name in ("grad_norm", "grad_sq_norm", "step_loss"):
            wanted = getattr(theirs, name)
            assert getattr(ours, name) == (wanted and pytest.approx(wanted, rel=0.05))


class _Overflowing:
    """A task whose gradient is infinite while the loss scale is above `at_most`."""

    def __init__(self, task: Task, at_most: float) -> None:
        self._task, self._at_most = task, at_most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def loss_sum(self, model: Any, batch: Any, **others: Any) -> torch.Tensor:
        loss = self._task.loss_sum(model, batch, **others)
        # × targets: backward receives scale / targets.
        loss.register_hook(
            lambda gradient: (
                gradient / (gradient * self._task.num_targets(range(16)) < self._at_most)
            )
        )
        return loss


def overflowing(at_most: float, how: Recipe) -> Any:
    limited: Any = _Overflowing(prepare_task(pronunciation(), EVALUATION), at_most)
    return run(limited, how, Supervision())


def test_an_overflow_is_a_skipped_step() -> None:
    outcome, measurements = overflowing(2.0**13, FP16)
    assert outcome.status == "done"
    skipped = measurements[-1].num_skipped_steps
    assert skipped is not None
    assert 1 <= skipped <= 6
    assert measurements[1].grad_norm is not None
    assert measurements[-1].validation_loss < measurements[0].validation_loss - 0.3
    assert measurements[-1].examples == 20 * 16


def test_overflow_that_persists_is_divergence() -> None:
    outcome, measurements = overflowing(0.0, changed(FP16, num_steps=40))
    assert outcome.status == "diverged"
    assert measurements[-1].step <= MAX_SKIPPED_IN_A_ROW
    outcome, _ = overflowing(0.0, changed(FP16, precision="bf16"))
    assert outcome.status == "diverged"
