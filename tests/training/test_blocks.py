"""Recomputed and compiled blocks, and batches made ahead, change no result."""

import gc
import warnings
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from scaling.measures.norm_layers import NormLayers
from scaling.spec.evaluation import Sharpness
from scaling.spec.resources import Strategy
from scaling.tasks.prepare import prepare_task
from scaling.training.batches import Batches
from scaling.training.blocks import prepare_blocks
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import EVALUATION, changed, part_of_speech, pronunciation, recipe
from tests.together import on_workers
from tests.training.test_checkpoint import DROPOUT, run

HOW = recipe(16, 1e-2, 6, micro_batch_size=8)


def losses(workload: Any, **changes: Any) -> list[float | None]:
    task = prepare_task(workload, EVALUATION)
    _, measurements = run(task, changed(HOW, **changes), Supervision())
    return [m.validation_loss for m in measurements]


DROPS = part_of_speech().model_copy(update={"model": pronunciation(model=DROPOUT).model})


@pytest.mark.parametrize("workload", [pronunciation(), DROPS], ids=["llama", "bert with dropout"])
def test_recomputed_activations_give_the_same_run(workload: Any) -> None:
    expected = losses(workload)
    assert losses(workload, activation_checkpointing=True) == pytest.approx(expected, rel=1e-6)


def test_recomputing_keeps_fewer_activations() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    kept: dict[bool, int] = {}
    for recomputes in (False, True):
        model = task.new_model(0)
        prepare_blocks(model, recomputes=recomputes, compiles=False)
        count = [0]

        def pack(tensor: torch.Tensor, count: list[int] = count) -> torch.Tensor:
            count[0] += 1
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            task.loss_sum(model, task.collate(np.arange(16), 0))
        kept[recomputes] = count[0]
    assert kept[True] < kept[False] / 2


def test_a_model_that_cannot_recompute_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear cannot recompute activations"):
        prepare_blocks(nn.Linear(1, 1), recomputes=True, compiles=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns about its own code
def test_compiled_blocks_give_the_same_run() -> None:
    expected = losses(pronunciation())
    assert losses(pronunciation(), compile=True) == pytest.approx(expected, rel=1e-3)


def losses_by_strategy(workers: Workers, strategy: Strategy) -> dict[str, list[float | None]]:
    warnings.simplefilter("ignore")  # the compiler warns about its own code
    task = prepare_task(pronunciation(), EVALUATION)
    found: dict[str, list[float | None]] = {}
    for compiles in (False, True):
        how = changed(recipe(16, 1e-2, 6, world_size=2), strategy=strategy, compile=compiles)
        _, measurements = run(task, how, Supervision(), workers=workers)
        found[str(compiles)] = [m.validation_loss for m in measurements]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_compiled_blocks_give_the_same_run_on_two_workers(strategy: Strategy) -> None:
    found = on_workers(losses_by_strategy, strategy)
    assert found["True"] == pytest.approx(found["False"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler warns about its own code
def test_measuring_cuts_no_compiled_graph_and_curvature_is_measured() -> None:
    """Step 0 measures noise by hooks, the end curvature: both run as the code is written."""
    task, counters = prepare_task(pronunciation(), EVALUATION), torch._dynamo.utils.counters
    with_sharpness = EVALUATION.model_copy(update={"sharpness": Sharpness(num_examples=16)})
    torch._dynamo.reset()
    counters.clear()
    how = changed(HOW, compile=True)
    _, measurements = run(task, how, Supervision(), evaluation=with_sharpness)
    assert measurements[-1].norm_layer_noise_scale is not None
    assert measurements[-1].hessian_top_eigenvalue is not None
    assert sum(counters["graph_break"].values()) == 0
    assert 1 <= counters["stats"]["unique_graphs"] <= 2


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_batches_made_ahead_are_the_same(looks_ahead: bool) -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    batches = Batches(task, 0, torch.device("cpu"), looks_ahead=looks_ahead)
    assert batches.looks_ahead == looks_ahead
    parts = np.split(np.arange(24), 6)
    batches.expect(parts[0])
    got = list(batches.of(parts))
    batches.expect(parts[1])  # and not asked for next
    got += list(batches.of(parts[:2]))
    expected = [task.collate(part, 0) for part in [*parts, *parts[:2]]]
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_with_batches_made_ahead_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = losses(pronunciation())
    monkeypatch.setattr(
        "scaling.training.gradient.Batches",
        lambda *arguments, looks_ahead: Batches(*arguments, looks_ahead=not looks_ahead),
    )
    assert losses(pronunciation()) == expected


def test_measuring_noise_keeps_no_more_than_the_blocks_that_recompute() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    model = task.new_model(0)
    prepare_blocks(model, recomputes=True, compiles=False)
    layers = NormLayers(model)
    inputs: list[weakref.ref[torch.UntypedStorage]] = []

    def seen(_module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        inputs.append(weakref.ref(args[0].untyped_storage()))

    inner = [layer for name, layer in model.named_modules() if name.endswith("attention_layernorm")]
    for layer in inner:
        layer.register_forward_pre_hook(seen)
    layers.start()
    batch = task.collate(np.arange(16), 0)
    loss = task.loss_sum(model, batch)
    assert len(inputs) == len(inner) > 0
    gc.collect()
    assert [kept() for kept in inputs] == [None] * len(inner)
    loss.backward()
    layers.end_part(np.ones(16))
    assert len(layers.stop())
