"""Tensors of which a worker may hold a part (fsdp, tp), as an optimizer computes with them.

Where workers hold whole tensors nothing is exchanged beyond the gradient itself.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

T = TypeVar("T")
Parameters = Iterable[nn.Parameter] | Iterable[dict[str, Any]]


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which this worker may hold a part; called by all workers."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def by_kind(tensors: Sequence[T]) -> list[list[T]]:
    """Those that are cut and those that are whole, apart, as under tp there are both.

    torch's kernels for many tensors at once take no mixture.
    """
    cut = [tensor for tensor in tensors if isinstance(tensor, DTensor)]
    others = [tensor for tensor in tensors if not isinstance(tensor, DTensor)]
    return [kind for kind in (cut, others) if kind]


def trained_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of a model that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def decay_groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices, which decay, embeddings and the head included; and vectors, which do not."""
    matrices, vectors = (
        by_kind([p for p in parameters if (p.ndim >= 2) == are_matrices])
        for are_matrices in (True, False)
    )
    return [
        *({"params": kind, "weight_decay": weight_decay} for kind in matrices),
        *({"params": kind, "weight_decay": 0.0} for kind in vectors),
    ]


def with_gradients(group: dict[str, Any]) -> Iterable[tuple[nn.Parameter, Tensor]]:
    """A group's weights with their gradients."""
    return [(weight, weight.grad) for weight in group["params"] if weight.grad is not None]


def norm(tensor: Tensor) -> Tensor:
    """The length of a tensor, of which this worker may hold a part; shape []."""
    return whole(tensor.norm())


def cut_as(like: Tensor, value: Tensor) -> Tensor:
    """This worker's part of a tensor that every worker has, where `like` is cut."""
    if not isinstance(like, DTensor):
        return value
    everywhere = [Replicate()] * like.device_mesh.ndim
    held = DTensor.from_local(value, like.device_mesh, everywhere, run_check=False)
    return held.redistribute(placements=like.placements)


def trust_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Their ratio; 1 where one of them is 0, so that a tensor of zeros can start to move."""
    usable = (numerator > 0) & (denominator > 0)
    return torch.where(usable, numerator / denominator, 1.0)
