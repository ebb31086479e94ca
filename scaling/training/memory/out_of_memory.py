"""Recognizing that memory ran out, and where a smaller micro-batch would not have helped."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# How torch's CPU allocator, its back ends and the C++ library say it.
_SIGNS = (
    "can't allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "could not create a memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",  # of segments that expand
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
    "Cuda failure 2 'out of memory'",  # NCCL
    "Cuda failure 'out of memory'",  # NCCL before 2.18
    "MemoryError(",  # what a worker says of another's error, torch's OutOfMemoryError too
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of a forward or backward pass means that memory ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


class FixedMemoryError(MemoryError):
    """Memory ran out where what is taken does not depend on the micro-batch."""


@contextmanager
def fixed_memory(doing: str) -> Iterator[None]:
    """Name what is done in the block, where memory runs out in it.

    Args:
        doing: As in `building the model`.

    Raises:
        FixedMemoryError: If memory runs out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise FixedMemoryError(
            f"memory ran out while {doing}, which a smaller micro-batch would not change: "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
