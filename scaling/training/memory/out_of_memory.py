"""Recognizing that memory ran out."""

import torch

# How torch's CPU allocator, its back ends and the C++ library say it.
_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "could not create a memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a forward or backward pass means that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def watch_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_bytes` count from here; a GPU that an earlier trial used is reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most bytes that tensors held on a GPU at once; None for a CPU.

    There the process's largest resident size is all that is known, and that is of every trial
    it has served.
    """
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
