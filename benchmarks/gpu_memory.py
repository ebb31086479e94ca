"""Memory on a GPU: as reported, as estimated, given back, and when it runs out."""

import gc
from typing import Any

import numpy as np
import torch
from gpu_frame import Finding, Result, judged, not_judged
from gpu_tasks import NO_EVALUATION, Trained, classes, language, largest_difference, recipe, run

from scaling.spec.resources import Precision, Resources
from scaling.tasks import target_loss
from scaling.tasks.batch import on_device
from scaling.training.evaluation import precision_context
from scaling.training.memory.estimate import longest_example, study_footprint
from scaling.training.memory.footprint import pass_bytes
from scaling.training.parallel.workers import release_memory


def constant(device: str) -> Finding:
    """Bytes that tensors hold after each of three trials."""
    task = language("SMALL", varied=True).task
    held: list[int] = []
    for _ in range(3):
        run(task, recipe(16, 4, micro_batch_size=8), device)
        release_memory(torch.device(device))
        held.append(_held_bytes(device))
    return judged(
        Result("bytes more after the second trial", held[1] - held[0], "at most", 0),
        Result("bytes more after the third trial", held[2] - held[0], "at most", 0),
    )


def _held_bytes(device: str) -> int:
    if device == "cuda":
        return torch.cuda.memory_allocated()
    tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
    storages = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def peak(device: str) -> Finding:
    """A small trial's reported peak is its own, whatever a large one before it took."""
    if device != "cuda":
        return not_judged("a CPU's peak is of the process")
    task = language("MIDDLE", length=256, num_train=64).task
    small = recipe(8, 3)
    run(task, recipe(64, 2), device)
    reported = run(task, small, device).last.peak_memory_bytes or np.nan
    release_memory(torch.device(device))
    torch.cuda.reset_peak_memory_stats()
    run(task, small, device)
    own = torch.cuda.max_memory_allocated()
    return judged(
        Result("distance from the peak after a reset", abs(reported / own - 1), "at most", 0.02)
    )


def estimate(device: str) -> Finding:
    """The estimate before a trial against what it takes, for three architectures."""
    sizes, length, micro = ("MIDDLE", 512, 32) if device == "cuda" else ("SMALL", 24, 16)
    results: list[Result] = []
    for architecture in ("llama", "gpt2", "bert"):
        if architecture == "bert":
            trained = classes(sizes, length=length)
        else:
            trained = language(sizes, architecture=architecture, length=length)
        for precision in ("fp32", "bf16"):
            error = abs(_estimate_ratio(trained, precision, micro, device) - 1)
            results.append(Result(f"{architecture}, {precision}", error, "at most", 0.15))
    return judged(*results)


def _estimate_ratio(trained: Trained, precision: Precision, size: int, device: str) -> float:
    found = study_footprint(trained.task, trained.workload, Resources(precision=precision))
    assert found is not None
    memory = found.memory(size, optimizer="adamw", accumulates=False)
    if device == "cuda":
        how = recipe(size, 3, precision=precision)
        return memory.total / (run(trained.task, how, device).last.peak_memory_bytes or np.nan)
    # On a CPU no counter has the peak of a trial; that of real tensors in a pass is counted.
    task = trained.task
    model = task.new_model(0)
    batch = task.collate(np.full(size, longest_example(task)), 0)

    def loss() -> torch.Tensor:
        with precision_context(precision, torch.device(device)):
            return task.loss_sum(model, batch)

    return (memory.activations + memory.workspace) / pass_bytes(model, loss).peak


def chunks(device: str) -> Finding:
    """The loss of targets in chunks has the gradient of all logits at once, in less memory."""
    vocabulary, length, size = (26_000, 256, 32) if device == "cuda" else (4000, 64, 8)
    task = language("SMALL", vocabulary=vocabulary, length=length, num_train=64).task
    before = target_loss.MAX_LOGITS
    target_loss.MAX_LOGITS = size * length * vocabulary // 32
    try:
        batch = on_device(task.collate(np.arange(size), 0), torch.device(device))
        found = [
            _gradient_and_peak(task, b, device) for b in (batch, target_loss.in_one_piece(batch))
        ]
    finally:
        target_loss.MAX_LOGITS = before
    (own, peak), (whole, peak_at_once) = found
    return judged(
        Result("distance of the gradient", float((own - whole).norm() / whole.norm()),
               "at most", 1e-5),
        Result("peak over that of all logits", peak / peak_at_once, "at most", 0.5),
    )  # fmt: skip


def _gradient_and_peak(task: Any, batch: Any, device: str) -> tuple[torch.Tensor, int]:
    model = task.new_model(0).to(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        task.loss_sum(model, batch).backward()
        peak = torch.cuda.max_memory_allocated() - held
    else:
        peak = pass_bytes(model, lambda: task.loss_sum(model, batch)).peak
        task.loss_sum(model, batch).backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return torch.cat(gradients), peak


def halving(device: str) -> Finding:
    """With too little memory for the micro-batch it is halved, and the losses stay as they are."""
    if device != "cuda":
        return not_judged("memory of a CPU has no fraction to set")
    task = language("MIDDLE", length=256, num_train=64).task
    how: Any = recipe(64, 4)
    torch.cuda.reset_peak_memory_stats()
    whole = run(task, how, device, NO_EVALUATION)
    reserved = torch.cuda.max_memory_reserved()
    release_memory(torch.device(device))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.6 * reserved / total)
    found = run(task, how, device, NO_EVALUATION)
    torch.cuda.set_per_process_memory_fraction(1.0)
    halvings = [incident for incident in found.incidents if incident["kind"] == "out_of_memory"]
    error = largest_difference(found.measured, whole.measured)
    return judged(
        Result("halvings", len(halvings), "at least", 1),
        Result("largest relative difference", error, "at most", 1e-3),
    )
