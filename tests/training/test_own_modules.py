"""Modules, metrics and optimizers of a user's own in the loop, whatever they keep or refuse."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation
from scaling.tasks.errors import DataError
from scaling.tasks.own.certificate import require_certificate
from scaling.tasks.own.contract import CustomTask
from scaling.tasks.own.module_task import ModuleTask
from scaling.training.loop import Outcome
from scaling.training.memory.out_of_memory import FixedMemoryError
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import changed, recipe
from tests.training import test_checkpoint

EVALUATION = Evaluation(every_steps=1, num_examples=16)
_INPUTS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
POINTS = [(x, x.sum()[None]) for x in _INPUTS]
Batch = list[Tensor]


class Line(nn.Module):
    """A linear model."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x)


def squares(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Squared errors."""
    x, y = batch
    return (model(x) - y).square().sum(-1), torch.ones(len(x))


def own_task(model: Callable[[], nn.Module] = Line, **others: Any) -> ModuleTask:
    """Points and a module."""
    given = {"train": POINTS, "validation": POINTS[:16], "losses": squares, **others}
    accepts_inexact = given.pop("accepts_inexact", False)
    own = CustomTask(model=lambda _: model(), **given)
    return ModuleTask(
        own, path="workload.factory", num_examples=16, code_sha256="",
        accepts_inexact=accepts_inexact,
    )  # fmt: skip


def run(
    task: ModuleTask,
    how: Recipe,
    supervision: Supervision = Supervision(),  # noqa: B008  # immutable
    evaluation: Evaluation = EVALUATION,
    workers: Workers | None = None,
) -> tuple[Outcome, list[Measurement]]:
    return test_checkpoint.run(task, how, supervision, evaluation, workers)


class Table(Line):
    """Keeps a table that its first forward makes, as rotary embeddings and masks are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.linspace(0.5, 1.5, 4)
        return super().forward(x * self.scale * self.table)


def test_a_table_that_evaluation_makes_can_be_trained_with() -> None:
    task = own_task(Table)
    require_certificate(task, 0)
    assert run(task, recipe(8, 1e-2, 2))[0].status == "done"


def test_a_module_that_cannot_be_trained_after_an_evaluation_is_refused() -> None:
    def losses(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        if not torch.is_grad_enabled():
            model.was_evaluated = True
        elif getattr(model, "was_evaluated", False):
            raise ValueError("kept from an evaluation")
        return squares(model, batch)

    with pytest.raises(DataError, match=r"training after an evaluation raised ValueError: kept"):
        require_certificate(own_task(losses=losses), 0)


def deep() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1))


def error_of(model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
    """As scikit-learn's metrics, it takes no NaN."""
    error = sum(float((model(x) - y).square().sum()) for x, y in batches)
    if not error < float("inf"):
        raise ValueError("Input contains NaN.")
    return {"error": error}


def test_a_metric_that_refuses_a_diverged_model_is_not_asked() -> None:
    task = own_task(deep, metrics=error_of, directions={"error": "minimize"})
    how = changed(recipe(8, 1e6, 30), optimizer="sgd", clip_norm=1.0)
    outcome, measurements = run(task, how)
    assert outcome.status == "diverged"
    assert "error" in measurements[0].metrics
    assert measurements[-1].metrics == {}


def test_a_run_in_float64_diverges_beyond_what_can_be_squared() -> None:
    data = [(x.double(), y.double()) for x, y in POINTS]
    task = own_task(lambda: Line().double(), train=data, validation=data[:16])
    how = changed(recipe(8, 1e3, 200), optimizer="sgd")
    seldom = Evaluation(every_steps=1000, num_examples=16)
    assert run(task, how, evaluation=seldom)[0].status == "diverged"


def test_memory_that_a_metric_runs_out_of_is_said_so() -> None:
    def too_large(model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    task = own_task(metrics=too_large, directions={"error": "minimize"})
    with pytest.raises(FixedMemoryError, match=r"while evaluating.*metrics failed"):
        run(task, recipe(8, 1e-2, 2))
