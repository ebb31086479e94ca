"""A trial on a GPU has the gradient, the losses and the errors that it has on a CPU."""

import itertools
import socket
import tempfile
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
from gpu_frame import Finding, Result, judged, not_judged
from gpu_tasks import language, largest_difference, recipe, run

from scaling.records.recipe import Recipe
from scaling.spec.evaluation import Evaluation
from scaling.tasks.task import Task
from scaling.training import supervision as supervision_module
from scaling.training.build import parallelize
from scaling.training.checkpoint import CheckpointStore
from scaling.training.gradient import GradientOfBatch
from scaling.training.parallel.workers import Workers, join_group, leave_group, release_memory
from scaling.training.supervision import Supervision

OFTEN = Evaluation(every_steps=5, num_examples=16)
NO_GPU = "there is no GPU"


def gradient(device: str) -> Finding:
    """The whole gradient at several splits, against one pass in float64 on the CPU."""
    task = language("SMALL", varied=True).task
    exact = _gradient(task, recipe(16, 1), "cpu", torch.float64)
    results: list[Result] = []
    for micro_batch_size in (16, 8, 4, 1):
        how = recipe(16, 1, micro_batch_size=micro_batch_size)
        found = _gradient(task, how, device, torch.float32)
        error = float((found - exact).norm() / exact.norm())
        results.append(Result(f"micro-batches of {micro_batch_size}", error, "at most", 1e-5))
    return judged(*results)


def _gradient(task: Task, how: Recipe, device: str, dtype: torch.dtype) -> torch.Tensor:
    model = task.new_model(0).to(device, dtype)
    parallel = parallelize(model, how, Workers(device=torch.device(device)))
    GradientOfBatch(task, parallel, how)(np.arange(16), measure_noise=False)
    return torch.cat(
        [p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None]
    )


def learns(device: str) -> Finding:
    """In every precision the loss falls, the noise scale is there, and memory where it is known."""
    task = language("SMALL", varied=True, num_train=32).task
    results: list[Result] = []
    cases: dict[str, dict[str, Any]] = {
        "fp32": {}, "bf16": {"precision": "bf16"}, "fp16": {"precision": "fp16"},
        "recomputed": {"activation_checkpointing": True},
    }  # fmt: skip
    for name, changes in cases.items():
        how = recipe(16, 20, peak_lr=1e-2, micro_batch_size=16, **changes)
        found = run(task, how, device, OFTEN)
        ratio = (found.last.train_loss or np.nan) / (found.measured[0].train_loss or np.nan)
        missing = (found.last.grad_noise_scale is None) + (
            (found.last.peak_memory_bytes is None) == (device == "cuda")
        )
        results.append(Result(f"{name}: train loss, last over first", ratio, "at most", 0.98))
        results.append(Result(f"{name}: measurements that are missing", missing, "equal to", 0))
    return judged(*results)


def resume(device: str) -> Finding:
    """A run that pauses at every other check has the losses of one that does not."""
    task = language("SMALL", varied=True).task
    how = recipe(16, 20, micro_batch_size=8, weight_average_half_life_examples=100.0)
    whole = run(task, how, device, OFTEN)
    before, supervision_module.CHECK_SECONDS = supervision_module.CHECK_SECONDS, 0.0
    try:
        with tempfile.TemporaryDirectory() as folder:
            status, starts = "paused", 0
            while status == "paused":
                starts += 1
                asked = itertools.count(1)
                supervision = Supervision(
                    checkpoints=CheckpointStore(folder, keep=2), checkpoint_seconds=1e9,
                    directive=lambda asked=asked: "pause" if next(asked) % 5 == 0 else "continue",
                )  # fmt: skip
                found = run(task, how, device, OFTEN, supervision)
                status = found.outcome.status
    finally:
        supervision_module.CHECK_SECONDS = before
    error = largest_difference(found.measured, whole.measured)
    return judged(
        Result("largest relative difference", error, "at most", 1e-6),
        Result("starts", starts, "at least", 3),
    )


def two_processes(device: str) -> Finding:
    """Two workers on one device train as one does."""
    one = "cuda:0" if device == "cuda" else device
    error = _on_workers("gloo", [one, one], ("ddp",))["ddp"]
    return judged(Result("largest relative difference", error, "at most", 2e-4))


def two_gpus(device: str) -> Finding:
    """Two workers with a GPU each, over NCCL, train as one does."""
    if device != "cuda" or torch.cuda.device_count() < 2:
        return not_judged("it needs two GPUs")
    errors = _on_workers("cpu:gloo,cuda:nccl", ["cuda:0", "cuda:1"], ("ddp", "fsdp"))
    return judged(*(Result(name, error, "at most", 1e-2) for name, error in errors.items()))


def _on_workers(backend: str, devices: list[str], strategies: tuple[str, ...]) -> dict[str, float]:
    """Largest relative difference from one worker, by strategy."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_worker, args=(backend, address, devices, strategies, results), nprocs=len(devices))
    return results.get()


def _worker(
    rank: int, backend: str, address: str, devices: list[str], strategies: tuple[str, ...],
    results: Any,
) -> None:  # fmt: skip
    device = torch.device(devices[rank])
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    task = language("SMALL", varied=True).task
    alone = run(task, recipe(16, 15, micro_batch_size=8), Workers(device=device), OFTEN)
    join_group(backend, address, rank=rank, world_size=len(devices))
    errors: dict[str, float] = {}
    for strategy in strategies:
        how = recipe(16, 15, micro_batch_size=4, world_size=len(devices), strategy=strategy)
        together = run(task, how, Workers(rank, len(devices), device), OFTEN)
        errors[strategy] = largest_difference(together.measured, alone.measured)
    if rank == 0:
        results.put(errors)
    torch.distributed.barrier()
    leave_group()


def device_assert(device: str) -> Finding:
    """An id that the embedding has not: the error names it, and memory has not run out."""
    broken = _OutOfRange(language("SMALL").task)
    error, incidents = "", list[Any]()
    supervision = Supervision(note=incidents.append)
    try:
        run(broken, recipe(16, 5), device, OFTEN, supervision)
    except (RuntimeError, IndexError) as raised:
        error = str(raised)
    try:
        release_memory(torch.device(device))
        is_sticky = False
    except RuntimeError:
        is_sticky = True
    named = "device-side assert" if device == "cuda" else "out of range"
    results = (
        Result("errors that name the cause", named in error, "equal to", 1),
        Result("incidents taken for memory", len(incidents), "equal to", 0),
    )
    if device == "cuda" and not is_sticky:
        return not_judged("the device still answers after an assert", *results)
    return judged(*results)


class _OutOfRange:
    """A task whose third batch has ids beyond the vocabulary."""

    def __init__(self, task: Task) -> None:
        self._task, self._num_batches = task, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def padded_to(self, multiple: int) -> Any:
        """Itself, as it is."""
        del multiple
        return self

    def collate(self, indices: Any, seed: int) -> Any:
        """As the task's own, but for the third."""
        self._num_batches += 1
        batch = dict(self._task.collate(indices, seed))
        if self._num_batches == 3:
            batch["input_ids"] = batch["input_ids"] + 10**6
        return batch
