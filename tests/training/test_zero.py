"""DeepSpeed's three stages train as ddp does, are measured alike, and go on from checkpoints."""

import gc
import importlib.util
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation, Sharpness
from scaling.spec.resources import Resources, Strategy
from scaling.tasks.errors import DataError
from scaling.tasks.extras import require_deepspeed
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training import build
from scaling.training import supervision as supervision_module
from scaling.training.build import parallelize
from scaling.training.checkpoint import CheckpointStore, newest
from scaling.training.gradient import GradientOfBatch
from scaling.training.memory.estimate import study_footprint
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.recipes import changed, part_of_speech, pronunciation, recipe
from tests.together import case, on_workers
from tests.training.adapted import adapted
from tests.training.test_checkpoint import DROPOUT, paused_often, run, without_time

pytest.importorskip("deepspeed")

EVALUATION = Evaluation(every_steps=4, num_examples=51)  # an odd number: uneven parts
WITH_SHARPNESS = EVALUATION.model_copy(update={"sharpness": Sharpness(num_examples=9)})
STAGES: tuple[Strategy, ...] = ("zero1", "zero2", "zero3")


@contextmanager
def built_models() -> Iterator[list["weakref.ref[nn.Module]"]]:
    """The models of the runs inside the block."""
    models: list[weakref.ref[nn.Module]] = []
    prepare = build.prepare_blocks

    def noted(model: nn.Module, **options: Any) -> None:
        models.append(weakref.ref(model))
        prepare(model, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "prepare_blocks", noted)
        yield models


def train_on_two(workers: Workers, folder: str) -> None:
    supervision_module.CHECK_SECONDS = 0.0
    cases = (
        ("norm", pronunciation(), {"clip_norm": 0.3}, 1e-3),
        ("whole share", pronunciation(), {"clip_value": 0.01, "micro_batch_size": 8}, 1e-3),
        ("half", pronunciation(), {"precision": "bf16", "clip_percentile": 50.0}, 0.05),
        ("lora", adapted("text_classification", f"{folder}/encoder"), {"lora_rank": 3}, 1e-3),
        (
            "recomputed", part_of_speech(),
            {"activation_checkpointing": True, "optimizer": "sgd", "momentum": 0.9}, 1e-3,
        ),
    )  # fmt: skip
    for name, workload, changes, rel in cases:
        given: dict[str, Any] = {"micro_batch_size": 4, **changes}
        how = recipe(16, 1e-2, 12, world_size=2, weight_average_half_life_examples=100.0, **given)
        check_trains_like_ddp(name, prepare_task(workload, EVALUATION), how, rel, workers)
    for strategy in STAGES:
        with case(strategy, "memory"):
            check_memory(strategy, workers)
    for strategy in STAGES:
        with case(strategy, "goes on"):
            check_goes_on(strategy, f"{folder}/{strategy}", workers)


def check_trains_like_ddp(name: str, task: Task, how: Recipe, rel: float, workers: Workers) -> None:
    evaluation = WITH_SHARPNESS if name == "norm" else EVALUATION
    with case("ddp", name):
        _, by_ddp = run(task, how, Supervision(), evaluation, workers)
        assert by_ddp[-1].grad_noise_scale is not None
        assert by_ddp[-1].norm_layer_noise_scale is not None or name == "lora"
        assert by_ddp[-1].clipped_fraction or name in ("lora", "recomputed")
    for strategy in STAGES:
        with case(strategy, name):
            cut = changed(how, strategy=strategy)
            _, found = run(task, cut, Supervision(), evaluation, workers)
            for ours, theirs in zip(found, by_ddp, strict=True):
                expected = without_time([theirs])[0].scalars()
                assert without_time([ours])[0].scalars() == pytest.approx(
                    expected, rel=rel, abs=1e-5
                )


def check_goes_on(strategy: Strategy, path: str, workers: Workers) -> None:
    """A run interrupted often ends as one that was not, and leaves no model behind."""
    dropout = part_of_speech().model_copy(update={"model": pronunciation(model=DROPOUT).model})
    task = prepare_task(dropout, EVALUATION)
    how = recipe(
        16, 1e-2, 8, world_size=2, micro_batch_size=4, strategy=strategy, clip_norm=0.3,
        weight_average_half_life_examples=100.0,
    )  # fmt: skip
    with built_models() as models:
        _, expected = run(task, how, Supervision(), EVALUATION, workers)
    gc.collect()
    assert models  # the one of the discarded steps, too
    assert not any(model() for model in models)
    starts, measurements, _ = paused_often(task, how, path, EVALUATION, workers)
    assert starts > 2
    assert without_time(measurements) == without_time(expected)
    check_parts(path, measurements[-1].num_trained_parameters, workers)


def held_bytes() -> int:
    """Bytes of all tensors that this process holds, each storage once."""
    gc.collect()
    storages: dict[int, int] = {}
    for found in gc.get_objects():
        if isinstance(found, Tensor) and not isinstance(found, DTensor):
            storage = found.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def check_memory(strategy: Strategy, workers: Workers) -> None:
    """Between steps the tensors take what is estimated, and the reduced gradient."""
    workload = pronunciation()
    task = prepare_task(workload, EVALUATION)
    found = study_footprint(task, workload, Resources())
    before = held_bytes()
    how = recipe(16, 1e-2, 1, world_size=2, micro_batch_size=8, strategy=strategy)
    zero = parallelize(task.new_model(0), how, workers)
    gradient = GradientOfBatch(task, zero, how)
    gradient(np.arange(16), measure_noise=True)
    zero.weights.optimizer.step()
    memory = found.memory(8, optimizer="adamw", strategy=strategy, world_size=2, accumulates=False)
    # Stage 3 reduces into parts of its own; the others' are gone when they are one tensor.
    reduced = memory.gradients if strategy == "zero3" else found.trained / 2
    held = held_bytes() - before
    expected = memory.parameters + memory.optimizer + reduced
    assert held == pytest.approx(expected, rel=0.1)
    zero.close()


def check_parts(folder: str, num_trained: float | None, workers: Workers) -> None:
    """Each worker wrote half of the weights and their moments."""
    state = newest(CheckpointStore(folder, keep=2), workers, in_parts=True)
    assert state is not None
    assert num_trained is not None
    [weights] = [part for name, part in state["zero"].items() if "fp32" in name]
    held = sum(part.numel() for part in weights)
    assert 0.45 * num_trained < held < 0.55 * num_trained
    assert num_trained <= workers.sum(held)[0] < num_trained + 200  # padding


@pytest.mark.slow
def test_every_stage_trains_like_ddp_and_goes_on_exactly(tmp_path: Path) -> None:
    adapted("text_classification", str(tmp_path / "encoder"))  # before two workers write it
    on_workers(train_on_two, str(tmp_path))


def test_the_missing_extra_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "deepspeed" else found(name)
    )
    require_deepspeed("fsdp")
    with pytest.raises(DataError, match=r"pip install 'scaling\[deepspeed\]'") as raised:
        require_deepspeed("zero2")
    assert raised.value.path == "resources.strategy"


@pytest.mark.slow
def test_one_worker_has_nothing_to_cut() -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    how = recipe(16, 1e-2, 4, micro_batch_size=4)
    _, expected = run(task, how, Supervision(), EVALUATION)
    _, found = run(task, changed(how, strategy="zero3"), Supervision(), EVALUATION)
    assert without_time(found) == without_time(expected)
