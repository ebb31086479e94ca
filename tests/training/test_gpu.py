"""Training on a GPU, and on the CPU where that is quick, so that the tests themselves are run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from scaling.spec.resources import Strategy
from scaling.tasks.prepare import prepare_task
from scaling.training.build import parallelize
from scaling.training.gradient import GradientOfBatch
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import EVALUATION, changed, pronunciation, recipe
from tests.together import case, on_workers
from tests.training.test_checkpoint import run

DEVICES = ("cpu", pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bf16"}, {"precision": "fp16"}, {"activation_checkpointing": True}],
    ids=["fp32", "bf16", "fp16", "recomputed"],
)
def test_a_trial_learns_and_is_measured(device: str, changes: dict[str, Any]) -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    how = recipe(32, 1e-2, 20, micro_batch_size=16, clip_norm=1.0, **changes)
    _, measured = run(task, how, Supervision(), EVALUATION, Workers(device=torch.device(device)))
    first, last = measured[0], measured[-1]
    assert first.validation_loss is not None
    assert last.validation_loss is not None
    assert last.validation_loss < 0.95 * first.validation_loss
    assert last.grad_noise_scale is not None
    assert (last.peak_memory_bytes is not None) == (device == "cuda")


@pytest.mark.parametrize("device", DEVICES)
def test_the_gradient_is_the_cpus(device: str) -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    norms: list[float] = []
    for where in ("cpu", device):
        model = task.new_model(0).to(where)
        how = recipe(16, 1e-3, 1, micro_batch_size=4)
        workers = Workers(device=torch.device(where))
        gradient = GradientOfBatch(task, parallelize(model, how, workers), how)
        norms.append(gradient(np.arange(16), measure_noise=False).grad_norm)
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


@pytest.mark.parametrize(("precision", "expected"), [("fp32", "highest"), ("tf32", "high")])
def test_products_are_rounded_as_the_precision_says(precision: str, expected: str) -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    seen: set[str] = set()

    class Seen:
        def __getattr__(self, name: str) -> Any:
            return getattr(task, name)

        def loss_sum(self, *args: Any, **options: Any) -> torch.Tensor:
            loss = task.loss_sum(*args, **options)  # type: ignore[union-attr]
            seen.add(torch.get_float32_matmul_precision())
            loss.register_hook(lambda _: seen.add(torch.get_float32_matmul_precision()))
            return loss

    before = torch.get_float32_matmul_precision()
    run(Seen(), recipe(8, 1e-3, 2, precision=precision), Supervision())  # type: ignore[arg-type]
    assert seen == {expected}
    assert torch.get_float32_matmul_precision() == before


def on_two(workers: Workers, device: str, strategies: Sequence[Strategy]) -> None:
    where = torch.device(device) if device == "cpu" else torch.device(device, workers.rank)
    if device == "cuda":
        torch.cuda.set_device(where)
    workers = replace(workers, device=where)
    task = prepare_task(pronunciation(), EVALUATION)
    how = recipe(16, 1e-2, 10, world_size=2, micro_batch_size=4, clip_norm=0.3)
    alone = changed(how, world_size=1)
    _, expected = run(task, alone, Supervision(), EVALUATION, Workers(device=where))
    for strategy in strategies:
        cut = changed(how, strategy=strategy)
        with case(strategy):
            _, measured = run(task, cut, Supervision(), EVALUATION, workers)
            for ours, theirs in zip(measured, expected, strict=True):
                found, wanted = ours.scalars(), theirs.scalars()
                for name in wanted.keys() & {"validation_loss", "train_loss", "grad_norm"}:
                    assert found[name] == pytest.approx(wanted[name], rel=1e-2), name


@pytest.mark.parametrize(
    ("device", "strategies"),
    [
        ("cpu", ["ddp"]),
        pytest.param("cuda", ["ddp", "fsdp", "zero1", "zero2", "zero3"], marks=pytest.mark.gpu),
    ],
)
def test_two_devices_train_as_one(device: str, strategies: list[Strategy]) -> None:
    if device == "cuda" and torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    on_workers(on_two, device, strategies, backend=backend)
