"""How much of the hardware's arithmetic a run uses: model FLOP utilization.

Source: Chowdhery et al. 2022 (arXiv:2204.02311) sec. 4.1: the FLOPs that the model needs a second
over the device's peak. What is computed again, to save memory, does not count.
"""

import time
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scaling.tasks.batch import on_device
from scaling.tasks.task import Indices, Task

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
    # NVIDIA L4 data sheet (2023)
    "L4": {"bf16": 121.0, "fp16": 121.0, "tf32": 60.0, "fp32": 30.3},
    # NVIDIA L40S data sheet (2023)
    "L40S": {"bf16": 362.0, "fp16": 362.0, "tf32": 183.0, "fp32": 91.6},
    # NVIDIA H100 data sheet (2023): PCIe, NVL, SXM
    "H100 PCIe": {"bf16": 756.0, "fp16": 756.0, "tf32": 378.0, "fp32": 51.0},
    "H100 NVL": {"bf16": 835.0, "fp16": 835.0, "tf32": 417.0, "fp32": 60.0},
    "H100": {"bf16": 989.0, "fp16": 989.0, "tf32": 494.0, "fp32": 67.0},
    # NVIDIA H200 data sheet (2024), SXM
    "H200": {"bf16": 989.0, "fp16": 989.0, "tf32": 494.0, "fp32": 67.0},
}

MATRIX_SIZE = 512  # of the product that measures a CPU; its three matrices fit into the caches
NUM_PRODUCTS = 8


def flops_per_example(task: Task, model: nn.Module, indices: Indices) -> float | None:
    """Floating-point operations of a forward and backward pass, for one training example.

    Matrix products alone, a multiplication and an addition each counting one, as the batch of
    these examples is padded. Attention counts all pairs of positions, masked ones too. For a
    decoder it is near 6 × weights in matrices × positions, plus attention's 12 × layers ×
    positions² × width.

    Args:
        task: Where the examples are from.
        model: On its device; gradients and random numbers are left as they were.
        indices: Some training examples.

    Returns:
        None where no matrix product is met.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    device = parameters[0].device
    batch = on_device(task.collate(indices, 0), device)
    devices = [device] if device.type == "cuda" else []
    # The fused kernels of a CPU are unknown to the counter; their plain form is counted.
    with (
        torch.random.fork_rng(devices),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        loss = task.loss_sum(model, batch)
        torch.autograd.grad(loss, parameters, allow_unused=True)
    return counter.get_total_flops() / len(indices) or None


def peak_flops_per_second(device: torch.device, precision: str) -> float | None:
    """The most FLOPs a second that a device can do: a GPU's sheet, a CPU's matrix product.

    Args:
        device: A CPU is measured once a process, on the threads that torch uses.
        precision: fp32, bf16 or fp16. fp32 on a GPU is tf32 where torch is allowed to use it. A
            CPU is measured in fp32, which few exceed in others.

    Returns:
        None for a GPU that is not in the table.
    """
    if device.type != "cuda":
        return _measured_peak(torch.get_num_threads())
    if precision == "fp32" and torch.get_float32_matmul_precision() != "highest":
        precision = "tf32"
    return sheet_peak(torch.cuda.get_device_name(device), precision)


def sheet_peak(device_name: str, precision: str) -> float | None:
    """The peak that a GPU's data sheet gives, in FLOPs a second; None where it is not known."""
    words = device_name.replace("-", " ").split()
    for name, peaks in PEAK_TFLOPS.items():
        if all(word in words for word in name.split()):
            peak = peaks.get(precision)
            return None if peak is None else peak * 1e12
    return None


@cache
def _measured_peak(num_threads: int) -> float:  # noqa: ARG001  # another number, another peak
    """FLOPs a second of the fastest of some float32 matrix products."""
    matrix = torch.ones(MATRIX_SIZE, MATRIX_SIZE)
    return 2 * MATRIX_SIZE**3 / min(_seconds_of_product(matrix) for _ in range(NUM_PRODUCTS))


def _seconds_of_product(matrix: Tensor) -> float:
    started = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - started


def gpu_names() -> list[str]:
    """The names of the GPUs that torch can use on this machine."""
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
