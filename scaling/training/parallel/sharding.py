"""Weights that are cut among the workers (fsdp, tp, zero3): whole for a while, and in checkpoints.

Everything here leaves plain tensors and unsharded models as they are, so that callers need not
ask which strategy they run under.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from scaling.optimizers.build import set_lr
from scaling.optimizers.tensors import by_kind, whole

T = TypeVar("T")


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Every worker holds all the weights inside the block, so it may run forwards alone.

    Workers evaluate different numbers of batches; a forward that gathers its weights would wait
    for the others. Called by all workers; the weights must not be changed inside.
    """
    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.reshard()
            # As `fully_shard` does it: the root's weights are the first that backward needs.
            module.set_reshard_after_forward(module is not model, recurse=False)


def total_norm(tensors: Sequence[Tensor], norm_type: float = 2.0) -> float:
    """Norm of all entries of some tensors together, on all workers that hold parts of them."""
    norms: list[float] = []
    for kind in by_kind(tensors):
        norm = nn.utils.get_total_norm(kind, norm_type)
        norms.append(float(whole(norm)))
    return max(norms, default=0.0) if norm_type == math.inf else math.hypot(*norms)


def held(weight: nn.Parameter) -> Tensor:
    """What this worker has of a weight all the time; DeepSpeed's stage 3 keeps it aside."""
    return getattr(weight, "ds_tensor", weight)


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


def placed(saved: Tensor, like: Tensor) -> Tensor:
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


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """A model's state without frozen weights: those are as they were when it was built."""
    frozen = {
        name
        for name, weight in model.named_parameters(remove_duplicate=False)
        if not weight.requires_grad
    }
    return {name: value for name, value in model.state_dict().items() if name not in frozen}


def placed_model_state(saved: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """This worker's part of `trained_state`, for `load_state_dict`."""
    held = model.state_dict()
    return held | {name: placed(value, held[name]) for name, value in saved.items()}


def placed_optimizer_state(
    saved: Mapping[str, Any], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """This worker's part for `load_state_dict`: moments lie where their weights do."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state = {
        number: {
            name: placed(value, weights[number])
            if isinstance(value, Tensor) and value.shape == own_part(weights[number]).shape
            else value
            for name, value in moments.items()
        }
        for number, moments in saved["state"].items()
    }
    return {**saved, "state": state}


def with_first_moments(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """State of an optimizer that has taken no step, as its first step would shape it.

    A step along gradients of 0 at a rate of 0, which moves no weight; afterwards the optimizer is
    as new. Called by all workers that hold parts of its weights; of those each has its own part.
    The moments take no memory: each is a single 0 in the shape of the moment.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)
    set_lr(optimizer, 0.0)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    state = own_part(optimizer.state_dict())
    optimizer.state.clear()
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
