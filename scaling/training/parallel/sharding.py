"""Tensors that are cut among the workers (fsdp, tp, zero3): whole for a while, and as parts.

Everything here leaves plain tensors as they are, so that callers need not ask which strategy they
run under: the tensor knows.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from scaling.optimizers.build import set_lr
from scaling.optimizers.tensors import by_kind, whole

T = TypeVar("T")


def norm_on_device(tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Norm of all entries of some tensors together, shape [], on all workers that hold parts."""
    norms = [whole(nn.utils.get_total_norm(kind, norm_type)) for kind in by_kind(tensors)]
    if len(norms) < 2:
        return norms[0] if norms else torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(norms), norm_type)


def total_norm(tensors: Sequence[Tensor], norm_type: float = 2.0) -> float:
    """The same as a number: the one place of a step where the host waits for the device."""
    return float(norm_on_device(tensors, norm_type))


def own_part(value: T) -> T:
    """The same with this worker's part in place of every tensor that is cut.

    Args:
        value: Tensors in mappings and lists.
    """
    result: Any = value
    if isinstance(value, DTensor):
        result = value.to_local().detach()
    elif isinstance(value, Mapping):
        result = {name: own_part(item) for name, item in value.items()}
    elif isinstance(value, list):
        result = [own_part(item) for item in value]
    return result


def cut_like(saved: Tensor, like: Tensor) -> Tensor:
    """What `own_part` gave of a tensor, as `like` holds it."""
    if not isinstance(like, DTensor):
        return saved
    return DTensor.from_local(
        saved.to(like.device),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


@dataclass(frozen=True)
class Moving:
    """A group's entry that steps change, as a rate or a counter: of a kind, and of any value."""

    value: Any


def with_first_moments(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """State of an optimizer that has taken no step, as its first step would shape it.

    A step along gradients of 0 at a rate of 0, which moves no weight; afterwards the optimizer is
    as new. Called by all workers that hold parts of its weights; of those each has its own part.
    The moments take no memory: each is a single 0 in the shape of the moment. What the step changes
    of the groups is `Moving`.
    """
    groups = [_copied(group, without="params") for group in optimizer.param_groups]
    # Of an optimizer that has moments from the start.
    first = {weight: _copied(of_weight) for weight, of_weight in optimizer.state.items()}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    set_lr(optimizer, 0.0)
    optimizer.step()
    optimizer.zero_grad()
    state = own_part(optimizer.state_dict())
    for group, before, after in zip(
        optimizer.param_groups, groups, state["param_groups"], strict=True
    ):
        for name in after.keys() - {"params"}:
            if name == "lr" or name not in before or not _are_equal(before[name], after[name]):
                after[name] = Moving(after[name])
        for name in group.keys() - before.keys() - {"params"}:
            del group[name]
        group.update(before)
    optimizer.state.clear()
    optimizer.state.update(first)
    moments = {
        number: {
            name: torch.zeros((), dtype=value.dtype).expand(value.shape)
            if isinstance(value, torch.Tensor)
            else value
            for name, value in of_weight.items()
        }
        for number, of_weight in state["state"].items()
    }
    return state | {"state": moments}


def _copied(values: Mapping[str, Any], *, without: str = "") -> dict[str, Any]:
    return {name: deepcopy(value) for name, value in values.items() if name != without}


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return torch.equal(one, other)
    return bool(one == other)


def uncut_copy(model: nn.Module, new_model: Callable[[], nn.Module | None]) -> nn.Module | None:
    """A new model with all the weights of one that may be cut; called by all workers.

    None where `new_model` gives this worker none.
    """
    copy = new_model()
    copies = {} if copy is None else {**dict(copy.named_parameters()), **dict(copy.named_buffers())}
    with torch.no_grad():
        for name, held in (*model.named_parameters(), *model.named_buffers()):
            value = whole(held)
            if copy is not None:
                copies[name].copy_(value)
    return copy
