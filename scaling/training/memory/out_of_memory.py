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
    "Triton Error [CUDA]: out of memory",
    "Cuda failure 2 'out of memory'",  # NCCL
    "Cuda failure 'out of memory'",  # NCCL before 2.18
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a forward or backward pass means that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
