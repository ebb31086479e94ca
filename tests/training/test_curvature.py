"""Sharpness in the loop: at the last step alone, at the weights that are evaluated."""

from typing import Any

import pytest
import torch

from scaling.records.measurement import Measurement
from scaling.spec.evaluation import Evaluation, Sharpness
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training.loop import train
from scaling.training.memory.out_of_memory import FixedMemoryError
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Directive
from tests.recipes import changed, part_of_speech, recipe

EVALUATION = Evaluation(every_steps=2, num_examples=20, sharpness=Sharpness(num_examples=16))


def measured(task: Task, evaluation: Evaluation, half_life: float | None) -> list[Measurement]:
    """Four steps."""
    measurements: list[Measurement] = []

    def report(measurement: Measurement, *, at_rung: bool) -> Directive:
        measurements.append(measurement)
        return "continue"

    how = recipe(16, 3e-3, 4, weight_average_half_life_examples=half_life)
    assert train(task, how, evaluation, Workers(), report).status == "done"
    return measurements


def test_it_is_measured_once_and_changes_nothing() -> None:
    task = prepare_task(part_of_speech(), EVALUATION)
    plain = measured(task, EVALUATION.model_copy(update={"sharpness": None}), None)
    with_it = measured(task, EVALUATION, None)
    assert [m.sharpness is None for m in with_it] == [True, True, False]
    assert [m.hessian_top_eigenvalue is None for m in with_it] == [True, True, False]
    assert all(m.sharpness is None for m in plain)
    assert [m.validation_loss for m in with_it] == [m.validation_loss for m in plain]
    last = with_it[-1]
    assert last.scalars()["sharpness"] == last.sharpness
    assert last.sharpness is not None
    # An average that forgets at once is the last weights; a long one is not.
    same, other = (measured(task, EVALUATION, half_life)[-1] for half_life in (1e-3, 1e3))
    assert same.sharpness == pytest.approx(last.sharpness, rel=1e-3)
    assert other.sharpness != pytest.approx(last.sharpness, rel=1e-3)


def test_it_is_measured_in_whole_precision_under_tf32() -> None:
    task = prepare_task(part_of_speech(), EVALUATION)
    seen: set[tuple[bool, str, bool]] = set()

    class Seen:
        def __getattr__(self, name: str) -> Any:
            return getattr(task, name)

        def loss_sum(self, model: torch.nn.Module, *args: Any, **options: Any) -> torch.Tensor:
            of_convolutions = torch.backends.cudnn.allow_tf32
            seen.add((model.training, torch.get_float32_matmul_precision(), of_convolutions))
            return task.loss_sum(model, *args, **options)  # type: ignore[union-attr]

    how = changed(recipe(16, 3e-3, 1), precision="tf32")
    seen_task: Any = Seen()
    train(seen_task, how, EVALUATION, Workers(), lambda _, **__: "continue")
    assert seen == {(True, "high", True), (False, "highest", False)}


@pytest.mark.parametrize("most", [3, 0])
def test_memory_running_out_halves_its_own_micro_batch(most: int) -> None:
    """Not that of training, which fits."""
    task = prepare_task(part_of_speech(), EVALUATION)

    class Limited:
        def __getattr__(self, name: str) -> Any:
            return getattr(task, name)

        def loss_sum(self, model: torch.nn.Module, batch: Any, **options: Any) -> torch.Tensor:
            if not model.training and torch.is_grad_enabled() and len(batch["input_ids"]) > most:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return task.loss_sum(model, batch, **options)  # type: ignore[union-attr]

    limited: Any = Limited()
    if most == 0:
        with pytest.raises(FixedMemoryError, match="measuring and keeping the whole model"):
            measured(limited, EVALUATION, None)
        return
    last, whole = measured(limited, EVALUATION, None)[-1], measured(task, EVALUATION, None)[-1]
    assert last.validation_loss == whole.validation_loss
    assert last.sharpness == pytest.approx(whole.sharpness, rel=1e-2)
    assert last.hessian_top_eigenvalue == pytest.approx(whole.hessian_top_eigenvalue, rel=1e-2)
