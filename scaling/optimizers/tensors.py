"""Tensors of which a worker may hold a part (fsdp, tp), as an optimizer computes with them.

Where workers hold whole tensors nothing is exchanged beyond the gradient itself.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

T = TypeVar("T")
kernels: Any = torch
"""Torch, whose kernels for lists of tensors, `_foreach_…`, have no public types."""
MAX_AT_ONCE = 2**24  # numbers in the weights of a chunk
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


def with_gradients(group: dict[str, Any]) -> list[tuple[nn.Parameter, Tensor]]:
    """A group's weights with their gradients."""
    return [(weight, weight.grad) for weight in group["params"] if weight.grad is not None]


def in_chunks(
    group: dict[str, Any],
) -> Iterator[tuple[list[nn.Parameter], list[Tensor]]]:
    """A group's weights and their gradients, so many at once as torch's kernels for lists take.

    What a step computes beside the weights takes as much memory as those of one chunk.
    """
    weights: list[nn.Parameter] = []
    gradients: list[Tensor] = []
    size = 0
    for weight, gradient in with_gradients(group):
        if weights and size + weight.numel() > MAX_AT_ONCE:
            yield weights, gradients
            weights, gradients, size = [], [], 0
        weights.append(weight)
        gradients.append(gradient)
        size += weight.numel()
    if weights:
        yield weights, gradients


def moments(
    optimizer: torch.optim.Optimizer, weights: Sequence[nn.Parameter], name: str
) -> list[Tensor]:
    """What an optimizer's state has of each weight under a name; zeros where it has nothing yet."""
    for weight in weights:
        if name not in optimizer.state[weight]:
            optimizer.state[weight][name] = torch.zeros_like(weight)
    return [optimizer.state[weight][name] for weight in weights]


def norm(tensor: Tensor) -> Tensor:
    """The length of a tensor, of which this worker may hold a part; shape []."""
    return whole(tensor.norm())


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """[n] The length of each tensor, of which this worker may hold a part."""
    return torch.stack([whole(norm) for norm in kernels._foreach_norm(tensors)])


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
