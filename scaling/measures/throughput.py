"""How much of the hardware's arithmetic a run uses: model FLOP utilization.

Source: Chowdhery et al. 2022 (arXiv:2204.02311) sec. 4.1: the FLOPs that the model needs a second
over the device's peak. What is computed again, to save memory, does not count.
"""

import re
import timeit
from contextlib import AbstractContextManager
from functools import cache

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils.flop_counter import FlopCounterMode

from scaling.optimizers.tensors import trained_weights
from scaling.tasks.batch import on_device
from scaling.tasks.task import AnyBatch, Indices, Task

# Dense peaks in TFLOP/s by precision, of the data sheet that stands above each; from Ampere on half
# of what it says with sparsity. fp32 is that of the ordinary cores, tf32 of the tensor cores.
PEAK_TFLOPS = {
    # NVIDIA V100 data sheet (2020), SXM2
    "V100": {"fp16": 125.0, "tf32": 15.7, "fp32": 15.7},
    # NVIDIA T4 data sheet (2019)
    "T4": {"fp16": 65.0, "tf32": 8.1, "fp32": 8.1},
    # NVIDIA A100 data sheet (2021)
    "A100": {"bf16": 312.0, "fp16": 312.0, "tf32": 156.0, "fp32": 19.5},
    # NVIDIA A10 data sheet (2021)
    "A10": {"bf16": 125.0, "fp16": 125.0, "tf32": 62.5, "fp32": 31.2},
    # AWS, Amazon EC2 G5 instances (2021); NVIDIA A10G has half of an A10's tensor cores
    "A10G": {"bf16": 70.0, "fp16": 70.0, "tf32": 35.0, "fp32": 31.5},
    # NVIDIA L4 data sheet (2023)
    "L4": {"bf16": 121.0, "fp16": 121.0, "tf32": 60.0, "fp32": 30.3},
    # NVIDIA L40S data sheet (2023)
    "L40S": {"bf16": 362.0, "fp16": 362.0, "tf32": 183.0, "fp32": 91.6},
    # NVIDIA H100 data sheet (2023): PCIe, NVL, SXM
    "H100 PCIe": {"bf16": 756.0, "fp16": 756.0, "tf32": 378.0, "fp32": 51.0},
    "H100 NVL": {"bf16": 835.0, "fp16": 835.0, "tf32": 417.0, "fp32": 60.0},
    "H100": {"bf16": 989.0, "fp16": 989.0, "tf32": 494.0, "fp32": 67.0},
    # NVIDIA H200 data sheet (2024): NVL, SXM
    "H200 NVL": {"bf16": 835.5, "fp16": 835.5, "tf32": 417.5, "fp32": 60.0},
    "H200": {"bf16": 989.0, "fp16": 989.0, "tf32": 494.0, "fp32": 67.0},
    # NVIDIA DGX B200 data sheet (2024), an eighth of the system
    "B200": {"bf16": 2250.0, "fp16": 2250.0, "tf32": 1125.0, "fp32": 75.0},
    # AMD Instinct MI300X data sheet (2023)
    "MI300X": {"bf16": 1307.4, "fp16": 1307.4, "tf32": 653.7, "fp32": 163.4},
}

_KNOWN = frozenset({"torch", "transformers", "peft", "scaling"})
MATRIX_SIZE = 512  # of the product that measures a CPU; its three matrices fit into the caches
NUM_PRODUCTS = 8


def flops_per_example(task: Task, model: nn.Module, indices: Indices) -> float | None:
    """Floating-point operations of a forward and backward pass, for one training example.

    Matrix products alone, a multiplication and an addition each counting one, as the batch of
    these examples is padded. Attention counts all pairs of positions, masked ones too. For a
    decoder it is near 6 × weights in matrices × positions, plus attention's 12 × layers ×
    positions² × width.

    The pass runs on tensors without contents, so that it takes neither memory nor time of the
    device. It runs for real where a model reads contents, or has modules of the user's own, which
    may keep what they were given.

    Args:
        task: Where the examples are from.
        model: On its device; gradients and random numbers are left as they were.
        indices: Some training examples.

    Returns:
        None where no matrix product is met.
    """
    device = next(p.device for p in model.parameters() if p.requires_grad)
    batch = on_device(task.collate(indices, 0), device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        if not _is_of_known_modules(model):
            return _flops_of_pass(task, model, batch) / len(indices) or None
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) as mode, _without_contents(model, mode):
                flops = _flops_of_pass(task, model, batch)
        except (DataDependentOutputException, DynamicOutputShapeException):
            flops = _flops_of_pass(task, model, batch)
    return flops / len(indices) or None


def _is_of_known_modules(model: nn.Module) -> bool:
    """Whether every module of a model is of a library that keeps no tensor it was given."""
    return all(type(part).__module__.partition(".")[0] in _KNOWN for part in model.modules())


def _without_contents(model: nn.Module, mode: FakeTensorMode) -> AbstractContextManager[object]:
    """The model has tensors without contents in the place of its own, inside the context."""
    held = (*model.named_parameters(), *model.named_buffers())
    return _reparametrize_module(model, {name: mode.from_tensor(value) for name, value in held})


def _flops_of_pass(task: Task, model: nn.Module, batch: AnyBatch) -> int:
    # The fused kernels of a CPU are unknown to the counter; their plain form is counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = task.loss_sum(model, batch)
        trained = trained_weights(model)
        torch.autograd.grad(loss, trained, allow_unused=True)
    return counter.get_total_flops()


def peak_flops_per_second(device: torch.device, precision: str) -> float | None:
    """The most FLOPs a second that a device can do: a GPU's sheet, a CPU's matrix product.

    Args:
        device: A CPU is measured once a process, on the threads that torch uses.
        precision: fp32, tf32, bf16 or fp16. A CPU is measured in fp32, which few exceed in
            others.

    Returns:
        None for a GPU that is not in the table.
    """
    if device.type != "cuda":
        return _measured_peak(torch.get_num_threads())
    return sheet_peak(torch.cuda.get_device_name(device), precision)


def sheet_peak(device_name: str, precision: str) -> float | None:
    """The peak that a GPU's data sheet gives, in FLOPs a second; None where it is not known.

    A slice of a GPU, as in "NVIDIA A100-SXM4-40GB MIG 3g.20gb", has so many sevenths of it.
    """
    whole, _, slice_ = device_name.partition(" MIG ")
    sevenths = re.match(r"(\d)g\.", slice_)
    words = whole.replace("-", " ").split()
    for name, peaks in PEAK_TFLOPS.items():
        if all(word in words for word in name.split()):
            share = int(sevenths[1]) / 7 if sevenths else 1.0
            peak = peaks.get(precision)
            return None if peak is None else share * peak * 1e12
    return None


@cache
def _measured_peak(num_threads: int) -> float:  # noqa: ARG001  # another number, another peak
    """FLOPs a second of the fastest of some float32 matrix products."""
    matrix = torch.ones(MATRIX_SIZE, MATRIX_SIZE)
    seconds = timeit.repeat(lambda: torch.mm(matrix, matrix), number=1, repeat=NUM_PRODUCTS)
    return 2 * MATRIX_SIZE**3 / min(seconds)


def gpus_with_tf32() -> list[str]:
    """The names of the GPUs that torch can use on this machine and that have tf32."""
    capabilities = [torch.cuda.get_device_capability(n) for n in range(torch.cuda.device_count())]
    names = gpu_names()
    return [name for name, found in zip(names, capabilities, strict=True) if found >= (8, 0)]


def gpu_names() -> list[str]:
    """The names of the GPUs that torch can use on this machine."""
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
