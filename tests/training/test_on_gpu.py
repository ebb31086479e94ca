"""What training does on a GPU is what it does on a CPU, and no tensor stays behind there.

On a GPU that is emulated where there is none, and on a real one: pytest -m gpu.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from scaling.spec.evaluation import Evaluation, Sharpness
from scaling.tasks import target_loss
from scaling.tasks.prepare import prepare_task
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Supervision
from tests.emulated_gpu import emulated_gpu
from tests.recipes import (
    EVALUATION,
    own_sequences,
    part_of_speech,
    pronunciation,
    quadratic,
    recipe,
    spelling,
)
from tests.training.test_checkpoint import paused_often, run, without_time

GPU = Workers(device=torch.device("cuda"))
AVERAGED = {"clip_norm": 0.1, "weight_average_half_life_examples": 50.0}
WRITING = {"num_examples": 4, "num_beams": 2}

Gpu = AbstractContextManager[object]


@pytest.fixture(params=["emulated", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(request: pytest.FixtureRequest) -> Gpu:
    """Inside, tensors may be on a GPU."""
    return emulated_gpu() if request.param == "emulated" else nullcontext()


def is_emulated(gpu: Gpu) -> bool:
    """Whether its numbers are the CPU's; a real one sums in another order."""
    return not isinstance(gpu, nullcontext)


@pytest.mark.parametrize(
    ("workload", "changes"),
    [
        (pronunciation, AVERAGED),
        (pronunciation, {"precision": "fp16", "activation_checkpointing": True}),
        (pronunciation, {"optimizer": "muon", "clip_percentile": 50.0, "clip_history_steps": 4}),
        (pronunciation, {"optimizer": "lamb", "clip_value": 1e-3}),
        (part_of_speech, {"precision": "bf16", "optimizer": "adafactor"}),
        (lambda: spelling(generation=WRITING), {"optimizer": "lion"}),
        (own_sequences, {"optimizer": "lars"}),
        (quadratic, {"optimizer": "sgd"}),
    ],
    ids=[
        "averaged", "fp16 recomputed", "muon", "lamb", "bf16 adafactor", "written lion",
        "own lars", "quadratic",
    ],
)  # fmt: skip
def test_a_trial_is_the_cpus(
    workload: Callable[[], Any], changes: dict[str, Any], gpu: Gpu
) -> None:
    task = prepare_task(workload(), EVALUATION)
    how = recipe(16, 1e-3, 6, micro_batch_size=4, **changes)
    _, expected = run(task, how, Supervision())
    with gpu:
        _, found = run(task, how, Supervision(), workers=GPU)
    same = 1e-5 if is_emulated(gpu) and how.layout.precision == "fp32" else 1e-2
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=same)
        assert ours.metrics.keys() == theirs.metrics.keys()
        if is_emulated(gpu):  # else a word that is nearly as likely may take another's place
            assert ours.metrics == pytest.approx(theirs.metrics, rel=same, abs=same)
    assert found[-1].grad_norm == pytest.approx(expected[-1].grad_norm, rel=same)
    assert found[-1].grad_noise_scale is not None
    assert found[-1].peak_memory_bytes is not None


def test_curvature_and_a_loss_in_chunks_are_the_cpus(
    monkeypatch: pytest.MonkeyPatch, gpu: Gpu
) -> None:
    monkeypatch.setattr(target_loss, "MAX_LOGITS", 300)
    evaluation = Evaluation(every_steps=5, num_examples=8, sharpness=Sharpness(num_examples=4))
    task = prepare_task(pronunciation(), evaluation)
    how = recipe(8, 1e-3, 2, micro_batch_size=4)
    _, expected = run(task, how, Supervision(), evaluation)
    with gpu:
        _, found = run(task, how, Supervision(), evaluation, GPU)
    same = 1e-4 if is_emulated(gpu) else 5e-2
    for name in ("validation_loss", "sharpness", "hessian_top_eigenvalue"):
        assert getattr(found[-1], name) == pytest.approx(getattr(expected[-1], name), rel=same)


def test_a_trial_goes_on_from_a_checkpoint(tmp_path: Path, gpu: Gpu) -> None:
    task = prepare_task(pronunciation(), EVALUATION)
    how = recipe(16, 1e-3, 6, micro_batch_size=4, dropout=0.1, **AVERAGED)
    with gpu:
        _, whole = run(task, how, Supervision(), workers=GPU)
        starts, measured, _ = paused_often(task, how, str(tmp_path), EVALUATION, GPU)
    assert starts > 2
    if is_emulated(gpu):
        assert without_time(measured) == without_time(whole)
    for ours, theirs in zip(measured, whole, strict=True):
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=1e-5)


def test_a_tensor_left_on_the_cpu_is_found() -> None:
    with emulated_gpu() as device:
        layer = torch.nn.Linear(2, 2).to(device)
        with pytest.raises(RuntimeError, match="same device"):
            layer(torch.ones(1, 2))
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            layer.weight.detach().numpy()
