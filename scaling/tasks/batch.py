"""Batches of any form: tensors in mappings, lists and tuples, or an object that can be moved."""

import copy
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor


def on_device(batch: Any, device: torch.device) -> Any:
    """A batch of the same form with every tensor on a device."""
    return _each(batch, lambda tensor: tensor.to(device, non_blocking=True), "to", device)


def pinned(batch: Any) -> Any:
    """A batch of the same form whose copies to a GPU can run beside the computing."""
    return _each(batch, lambda tensor: tensor.pin_memory(), "pin_memory")


def at_least_float32(logits: Tensor) -> Tensor:
    """Logits in a precision that a loss can be summed in."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _each(batch: Any, change: Callable[[Tensor], Tensor], method: str, *args: Any) -> Any:
    """The change of every tensor; what has no known form changes by its own method, if any."""

    def inner(value: Any) -> Any:
        return _each(value, change, method, *args)

    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, MutableMapping) and not isinstance(batch, dict):
        changed = copy.copy(batch)  # its own class may have attributes that a module reads
        changed.update({name: inner(value) for name, value in batch.items()})
        return changed
    if isinstance(batch, Mapping):
        return {name: inner(value) for name, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(inner, batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map(inner, batch))
    own = getattr(batch, method, None)
    return own(*args) if callable(own) else batch
