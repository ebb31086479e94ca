"""Estimated bytes against bytes of real tensors."""

import itertools
from contextlib import nullcontext
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from scaling.optimizers.build import build_optimizer
from scaling.spec.resources import Precision, Resources, Strategy
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training.blocks import prepare_blocks
from scaling.training.evaluation import precision_context
from scaling.training.memory import estimate
from scaling.training.memory.estimate import (
    fitting_micro_batch_size,
    largest_micro_batch_size,
    longest_example,
    study_footprint,
    worker_memory_bytes,
)
from scaling.training.memory.footprint import Footprint, footprint, pass_bytes
from scaling.training.parallel.sharding import own_part
from scaling.training.parallel.tp import cut_matrices
from scaling.training.parallel.workers import Workers
from tests.pairwise import covering
from tests.recipes import EVALUATION, part_of_speech, pronunciation, quadratic, recipe
from tests.together import on_workers

SIZES: dict[str, dict[str, Any]] = {
    "narrow": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4},
    "wide": {
        "hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2,
        "intermediate_size": 256,
    },
}  # fmt: skip


def workload_for(architecture: str) -> Any:
    return part_of_speech() if architecture == "bert" else pronunciation()


@cache
def data_for(architecture: str) -> Any:
    return prepare_task(workload_for(architecture), EVALUATION)


@cache
def task_of(architecture: str, sizes: str) -> tuple[Any, Any]:
    """A task with a model of these sizes, and its workload."""
    kind = data_for("bert" if architecture == "bert" else "a decoder")
    model = {"architecture": architecture, **SIZES[sizes]}
    usual = workload_for(architecture)
    workload = usual.model_validate(usual.model_dump() | {"model": model})
    token_model = replace(kind.token_model, spec=workload.model)
    return replace(kind, token_model=token_model), workload


@cache
def footprint_of(architecture: str, sizes: str, precision: Precision = "fp32") -> Footprint:
    """Traced once: that takes a second."""
    return estimated(*task_of(architecture, sizes), Resources(precision=precision))


def estimated(task: Any, workload: Any, resources: Resources) -> Footprint:
    found = study_footprint(task, workload, resources)
    assert found is not None
    return found


ALL = tuple(itertools.product(("llama", "gpt2", "bert"), SIZES, ("fp32", "bf16")))
PAIRS = covering(ALL)


def real_pass(task: Task, precision: Precision, size: int, *, recomputes: bool = False) -> Any:
    model = task.new_model(0)
    prepare_blocks(model, recomputes=recomputes, compiles=False)
    batch = task.collate(np.full(size, longest_example(task)), 0)

    def loss() -> torch.Tensor:
        with precision_context(precision, torch.device("cpu")):
            return task.loss_sum(model, batch)

    return model, pass_bytes(model, loss)


@pytest.mark.parametrize(
    ("architecture", "sizes", "precision"),
    [
        pytest.param(*one, marks=[] if one in PAIRS else [pytest.mark.slow, pytest.mark.ci])
        for one in ALL
    ],
)
def test_estimate_is_within_15_percent_of_real_tensors(
    architecture: str, sizes: str, precision: Precision
) -> None:
    task, _ = task_of(architecture, sizes)
    found = footprint_of(architecture, sizes, precision)
    for micro_batch_size in (3, 64):
        model, real = real_pass(task, precision, micro_batch_size)
        memory = found.memory(micro_batch_size, optimizer="adamw")
        assert memory.activations == pytest.approx(real.kept, rel=0.15)
        assert memory.activations + memory.workspace == pytest.approx(real.peak, rel=0.15)
        weights = [*model.parameters(), *model.buffers()]
        assert memory.parameters == sum(w.numel() * w.element_size() for w in weights)


@pytest.mark.parametrize("architecture", ["llama", "bert"])
def test_recomputed_activations_are_in_the_estimate(architecture: str) -> None:
    task, workload = task_of(architecture, "wide")
    _, real = real_pass(task, "fp32", 64, recomputes=True)
    resources = Resources(activation_checkpointing=True)
    memory = estimated(task, workload, resources).memory(64, optimizer="adamw")
    assert memory.activations == pytest.approx(real.kept, rel=0.15)
    assert memory.activations + memory.workspace == pytest.approx(real.peak, rel=0.15)
    whole = footprint_of(architecture, "wide").memory(64, optimizer="adamw")
    assert memory.total < whole.total


@pytest.mark.parametrize(
    ("changes", "has_momentum"),
    [
        ({}, False),
        ({"optimizer": "lamb"}, False),
        ({"optimizer": "lars", "momentum": 0.9}, True),
        ({"optimizer": "lion"}, False),
        ({"optimizer": "sgd"}, False),
        ({"optimizer": "sgd", "momentum": 0.9}, True),
    ],
)
def test_optimizer_state_is_what_its_tensors_take(
    changes: dict[str, Any], has_momentum: bool
) -> None:
    task, _ = task_of("llama", "wide")
    how = recipe(4, 1e-3, 1, **changes)
    model = task.new_model(0)
    optimizer = build_optimizer(model, how.hyperparameters)
    task.loss_sum(model, task.collate(np.arange(4), 0)).backward()
    optimizer.step()
    real = sum(
        value.numel() * value.element_size()
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    found = footprint_of("llama", "wide")
    memory = found.memory(4, optimizer=how.hyperparameters.optimizer, has_momentum=has_momentum)  # type: ignore[arg-type]
    assert memory.optimizer == pytest.approx(real, rel=0.01)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert memory.gradients == sum(g.numel() * g.element_size() for g in grads)


# 100 bytes of weights, 40 in the larger of two blocks, 30 outside; 10 + 5 m kept, 20 + 8 m at most.
FOUND = Footprint(
    parameters=100, trained=100, largest_block=40, outside_blocks=30, kept=(10.0, 5.0),
    peak=(20.0, 8.0),
)  # fmt: skip


def test_terms_by_hand() -> None:
    memory = FOUND.memory(2, optimizer="adamw")
    assert (memory.parameters, memory.gradients, memory.optimizer) == (100, 100, 200)
    assert (memory.activations, memory.workspace) == (20, 16)
    assert memory.total == 436
    sgd = FOUND.memory(2, optimizer="sgd", averages_weights=True)
    assert sgd.optimizer == 200
    cut = FOUND.memory(2, optimizer="adamw", strategy="fsdp", world_size=4, accumulates=False)
    assert (cut.parameters, cut.gradients, cut.optimizer) == (25, 25, 50)
    assert cut.workspace == 16 + 30 + 2 * 40
    whole = FOUND.memory(2, optimizer="adamw", strategy="fsdp", world_size=4, accumulates=True)
    assert whole.gradients == 100
    sharp = {
        strategy: FOUND.memory(
            2, optimizer="adamw", strategy=strategy, world_size=2, measures_sharpness=True
        ).workspace
        for strategy in ("ddp", "fsdp", "tp")
    }  # a copy beside the gathered weights; of a model that is cut in two
    assert sharp == {"ddp": 16, "fsdp": 200 - 20, "tp": 200 - 20}


def test_largest_micro_batch_that_fits_by_hand() -> None:
    # 100 + 100 + 400 + 20 + 8 m within 0.8 × 1000: m = 22.
    resources = Resources()
    assert largest_micro_batch_size(FOUND, resources, memory_bytes=1000, world_size=1) == 22
    assert largest_micro_batch_size(FOUND, resources, memory_bytes=10, world_size=1) == 1
    assert largest_micro_batch_size(FOUND, resources, memory_bytes=10**12, world_size=1) is None


def test_longest_example_and_an_endless_stream() -> None:
    task: Any = prepare_task(pronunciation(), EVALUATION)
    lengths = [task.collate(np.array([i]), 0)["input_ids"].shape[1] for i in range(200)]
    assert lengths[longest_example(task)] == max(lengths)
    workload = quadratic(num_chains=10)
    endless: Any = prepare_task(workload, EVALUATION)
    found = estimated(endless, workload, Resources())
    assert found.parameters == 10 * 100 * 4 + 100 * 4
    assert found.kept[1] == pytest.approx(0, abs=1)


def test_memory_of_a_worker() -> None:
    one, half = (
        worker_memory_bytes(Resources(cpus_per_worker=cpus, gpus_per_worker=0))
        for cpus in (1e9, 1.0)
    )
    assert worker_memory_bytes(Resources()) is None  # open until the cluster is known
    assert one is not None
    assert half is not None
    assert one >= half > 2**20
    if not torch.cuda.is_available():
        assert worker_memory_bytes(Resources(gpus_per_worker=1)) is None


@pytest.mark.parametrize("wanted", ["auto", None, 4])
def test_a_worker_s_micro_batch_is_bounded_by_its_own_memory(
    monkeypatch: pytest.MonkeyPatch, wanted: Any
) -> None:
    task, workload = task_of("llama", "narrow")
    resources = Resources(micro_batch_size=wanted)
    found = study_footprint(task, workload, resources)
    assert found is not None
    memory_bytes = int(found.memory(20, optimizer="adamw", averages_weights=True).total / 0.8) + 8
    monkeypatch.setattr(estimate, "worker_memory_bytes", lambda *_: memory_bytes)

    def micro_batch_size(device: str, at_most: int) -> int:
        return fitting_micro_batch_size(
            task, workload, resources, recipe(48, 1e-3, 1), Workers(device=torch.device(device)),
            at_most=at_most,
        )  # fmt: skip

    # 16 is the largest share of 48 examples that has no more than 20.
    assert micro_batch_size("cpu", 48) == (16 if wanted == "auto" else 48)
    assert micro_batch_size("cuda", 48) == (48 if wanted == 4 else 16)
    assert micro_batch_size("cuda", 12) == 12


def test_a_model_with_real_weights_has_the_same_footprint() -> None:
    task, _ = task_of("llama", "narrow")
    real = task.new_model(0)
    before = [weight.detach().clone() for weight in real.parameters()]
    batches = {size: task.collate(np.full(size, longest_example(task)), 0) for size in (8, 32)}
    found = footprint(
        lambda: real, lambda model, size: task.loss_sum(model, batches[size]), nullcontext
    )
    assert found == footprint_of("llama", "narrow")
    assert all(torch.equal(a, b) for a, b in zip(before, real.parameters(), strict=True))


def on_two(workers: Workers) -> None:
    task, workload = task_of("llama", "wide")
    found = estimated(task, workload, Resources(strategy="tp", num_workers=2))
    whole = estimated(task, workload, Resources())
    model = task.new_model(0)
    cut_matrices(model, workers)
    batch = task.collate(np.full(64, longest_example(task)), 0)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        local = own_part(tensor).untyped_storage()
        kept[local.data_ptr()] = local.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        task.loss_sum(model, batch)
    weights = own_part([*model.parameters(), *model.buffers()])
    for weight in weights:
        kept.pop(weight.untyped_storage().data_ptr(), None)
    memory = found.memory(64, optimizer="adamw", strategy="tp", world_size=2)
    assert memory.activations == pytest.approx(sum(kept.values()), rel=0.15)
    assert memory.activations < 0.8 * whole.memory(64, optimizer="adamw").activations
    assert memory.parameters == sum(w.numel() * w.element_size() for w in weights)


@pytest.mark.slow
def test_under_tp_it_is_a_workers_part() -> None:
    on_workers(on_two)


def test_zero_cuts_moments_then_gradients_then_weights() -> None:
    # A worker's quarter of the weights is 25, which the optimizer has once more; so its gradient.
    # What is reduced is copied, and stage 3 gathers 30 + 2 × 40.
    whole = FOUND.memory(2, optimizer="adamw")
    stages: tuple[tuple[Strategy, int, int, int], ...] = (
        ("zero1", 125, 125, 125), ("zero2", 125, 50, 125), ("zero3", 50, 50, 125),
    )  # fmt: skip
    for strategy, parameters, alone, added_up in stages:
        once, twice = (
            FOUND.memory(
                2, optimizer="adamw", strategy=strategy, world_size=4, accumulates=accumulates
            )
            for accumulates in (False, True)
        )
        assert (once.parameters, twice.parameters) == (parameters, parameters)
        assert (once.gradients, twice.gradients) == (alone, added_up)
        assert once.optimizer == 50
        assert twice.workspace - whole.workspace == 100 + (110 if strategy == "zero3" else 0)
    averages: tuple[tuple[Strategy, int], ...] = (("zero2", 100), ("zero3", 25))
    for strategy, average in averages:
        averaged = FOUND.memory(
            2, optimizer="sgd", strategy=strategy, world_size=4, averages_weights=True
        )
        assert averaged.optimizer == 2 * average
    alone = FOUND.memory(2, optimizer="adamw", strategy="zero3")
    assert alone == FOUND.memory(2, optimizer="adamw")
