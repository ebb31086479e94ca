"""Modules, metrics and optimizers of a user's own in the loop, whatever they keep or refuse."""

import random
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.data import default_collate

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation, Sharpness
from scaling.tasks.errors import DataError
from scaling.tasks.own.certificate import require_certificate
from scaling.tasks.own.contract import CustomTask
from scaling.tasks.own.module_task import ModuleTask
from scaling.training import supervision as supervision_module
from scaling.training.build import parallelize
from scaling.training.curvature import measure_curvature
from scaling.training.data_order import order_of
from scaling.training.gradient import GradientOfBatch
from scaling.training.loop import Outcome
from scaling.training.memory.out_of_memory import FixedMemoryError
from scaling.training.parallel.sharding import Moving, with_first_moments
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import changed, recipe
from tests.training import test_checkpoint
from tests.training.test_checkpoint import paused_often


@pytest.fixture(autouse=True)
def checks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision_module, "CHECK_SECONDS", 0.0)


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


def own_task(model: Callable[[], nn.Module] = Line, **others: Any) -> Any:
    """A ModuleTask of points and a module."""
    given = {"train": POINTS, "validation": POINTS[:16], "losses": squares, **others}
    accepts_inexact = given.pop("accepts_inexact", False)
    own = CustomTask(model=lambda _: model(), **given)
    return ModuleTask(
        own, path="workload.factory", num_examples=16, code_sha256="",
        accepts_inexact=accepts_inexact,
    )  # fmt: skip


def run(
    task: Any,
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
    def losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
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


class Counting(torch.optim.SGD):
    """Counts its steps in its groups, as schedule-free optimizers do."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["k"] = group.get("k", 0) + 1
            group["scale"] = torch.full((2,), float(group["k"]))
        for weight in self.param_groups[0]["params"]:
            weight.grad = weight.grad / self.param_groups[0]["k"]
        return super().step(closure)


class CountedLine(Line):
    """With an optimizer of its own."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return Counting(self.parameters(), lr=0.1, momentum=0.9)


def test_an_optimizer_that_counts_in_its_groups_goes_on(tmp_path: Path) -> None:
    task = own_task(CountedLine)
    how = changed(recipe(8, 1e-2, 6), optimizer="module")
    _, whole = run(task, how)
    starts, parts, incidents = paused_often(task, how, str(tmp_path), EVALUATION)
    assert starts > 1
    assert not [i for i in incidents if i["kind"] == "checkpoint_passed_over"]
    assert [m.validation_loss for m in parts] == [m.validation_loss for m in whole]


def test_trying_an_optimizer_leaves_its_groups_alone() -> None:
    optimizer = CountedLine().configure_optimizers()
    before = dict(optimizer.param_groups[0])
    state = with_first_moments(optimizer)["param_groups"][0]
    assert optimizer.param_groups[0] == before
    assert {name for name, value in state.items() if isinstance(value, Moving)} == {
        "lr", "k", "scale",
    }  # fmt: skip


class Augmented:
    """Points that are moved at random as they are read."""

    def __init__(self, draw: Callable[[], float]) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return len(POINTS)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        x, y = POINTS[number]
        return x + 0.5 * self.draw(), y


def by_numpy() -> float:
    return float(np.random.rand())  # noqa: NPY002


DRAWS: Mapping[str, Callable[[], float]] = {
    "random": random.random,
    "numpy": by_numpy,
    "torch": lambda: float(torch.rand(())),
}


class Shaken(Line):
    """Draws in its forward pass, as layers are skipped at random."""

    def __init__(self, draw: Callable[[], float]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * (0.5 + self.draw()) if self.training else x)


def shaken_batch(draw: Callable[[], float]) -> Callable[[list[Any]], Any]:
    return lambda examples: [default_collate(examples)[0] + draw(), default_collate(examples)[1]]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("where", ["examples", "collate", "forward"])
def test_what_is_drawn_is_of_the_seed_and_goes_on(where: str, draw: str, tmp_path: Path) -> None:
    drawn = DRAWS[draw]
    match where:
        case "examples":
            task = own_task(train=Augmented(drawn))
        case "collate":
            task = own_task(collate=shaken_batch(drawn))
        case _:
            task = own_task(lambda: Shaken(drawn))
    assert task.draws_examples == (where != "forward")
    how = recipe(24, 1e-2, 6)  # more than two epochs
    seldom = Evaluation(every_steps=3, num_examples=16)
    found: list[list[float | None]] = []
    for start in range(2):
        random.seed(start)
        np.random.seed(start)  # noqa: NPY002
        found.append([m.step_loss for m in run(task, how, evaluation=seldom)[1]])
    starts, parts, _ = paused_often(task, how, str(tmp_path), seldom)
    assert starts > 1
    assert found == [[m.step_loss for m in parts]] * 2


def test_augmented_examples_differ_by_epoch_and_not_by_the_cut() -> None:
    task = own_task(train=Augmented(by_numpy))
    first = order_of(task, 1).indices(60, 68)
    assert [number // 64 for number in first] == [0] * 4 + [1] * 4
    gradients: list[Tensor] = []
    for indices, size in ((first, 8), (first, 2), (first + 64, 8)):
        how = recipe(8, 1e-2, 1, micro_batch_size=size)
        model: Any = task.new_model(0)
        gradient = GradientOfBatch(task, parallelize(model, how, Workers()), how)
        assert gradient(indices, measure_noise=size == 2).num_targets == 8
        gradients.append(model.module.line.weight.grad)
    whole, cut, later = gradients
    assert torch.allclose(whole, cut, rtol=1e-5)
    assert not torch.allclose(whole, later, rtol=1e-2)


def test_curvature_is_of_the_same_augmented_examples_each_time() -> None:
    task = own_task(train=Augmented(by_numpy))
    model, spec = task.new_model(0), Sharpness(num_examples=16)
    first, again = (
        measure_curvature(task, model, spec, Workers(), micro_batch_size=16) for _ in range(2)
    )
    assert first == again


class Hidden(torch.autograd.Function):
    """Twice its input, by a backward pass that hides its own derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.factor = 2
        return ctx.factor * x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return ctx.factor * grad_outputs[0]


def hidden(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    x, y = batch
    twice: Any = Hidden.apply(model(x))
    return (twice - y).square().sum(-1), torch.ones(len(x))


def kinked(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """With an infinite second derivative where it stands."""
    x, _ = batch
    losses, counts = squares(model, batch)
    return losses + (model(x) - model(x).detach()).abs().pow(1.5).sum(-1), counts


def alignment(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of which torch has no second derivative."""
    x, _ = batch
    count = len(x)
    scores = model(x).repeat(1, 3)[None].repeat(4, 1, 1).log_softmax(-1)
    targets, lengths = torch.ones(count, 1).long(), torch.full((count,), 4)
    losses = nn.functional.ctc_loss(
        scores, targets, lengths, torch.ones(count).long(), reduction="none"
    )
    return losses, torch.ones(count)


@pytest.mark.parametrize(
    ("losses", "cause"),
    [(hidden, "is 0 where"), (kinked, "not finite"), (alignment, "is not implemented")],
)
def test_a_loss_without_a_second_derivative_ends_its_run(losses: Any, cause: str) -> None:
    incidents: list[Mapping[str, Any]] = []
    around = EVALUATION.model_copy(update={"sharpness": Sharpness(num_examples=16)})
    outcome, measurements = run(
        own_task(losses=losses), recipe(8, 1e-3, 2), Supervision(note=incidents.append), around
    )
    assert outcome.status == "done"
    assert measurements[-1].sharpness is not None
    assert measurements[-1].hessian_top_eigenvalue is None
    assert [incident["kind"] for incident in incidents] == ["no_top_eigenvalue"]
    assert cause in incidents[0]["cause"]


def test_a_model_that_cannot_be_kept_is_an_incident(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    incidents: list[Mapping[str, Any]] = []
    keeps = Supervision(note=incidents.append, model_folder=str(tmp_path / "file" / "model"))
    outcome, measurements = run(own_task(test=POINTS[:8]), recipe(8, 1e-3, 2), keeps)
    assert outcome.status == "done"
    assert measurements[-1].test_loss is not None
    assert [incident["kind"] for incident in incidents] == ["model_not_kept"]
    assert "directory" in incidents[0]["cause"]
