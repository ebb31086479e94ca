"""Weights that are cut among the workers (fsdp): whole for a while, in a checkpoint, and back.

Everything here leaves plain tensors and unsharded models as they are, so that callers need not
ask which strategy they run under.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

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


def whole(value: T, *, keeps: bool) -> T:
    """The same with every sharded tensor gathered; called by all workers alike.

    Args:
        value: Tensors in mappings and lists.
        keeps: Whether this worker wants them; the others get empty tensors in their place.
    """
    result: Any = value
    if isinstance(value, DTensor):
        full = value.full_tensor()
        result = full.detach().cpu() if keeps else torch.empty(0)
    elif isinstance(value, Mapping):
        result = {name: whole(item, keeps=keeps) for name, item in value.items()}
    elif isinstance(value, list):
        result = [whole(item, keeps=keeps) for item in value]
    return result


def placed(saved: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as `like` holds it: this worker's part of it where `like` is sharded."""
    if not isinstance(like, DTensor):
        return saved
    # Every worker has read the same checkpoint, so nothing has to be sent.
    return distribute_tensor(
        saved.to(like.device), like.device_mesh, like.placements, src_data_rank=None
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
    """What `trained_state` gave, whole, for `load_state_dict`."""
    held = model.state_dict()
    return held | {name: placed(value, held[name]) for name, value in saved.items()}


def placed_optimizer_state(
    saved: Mapping[str, Any], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """A whole optimizer's state for `load_state_dict`: moments lie where their weights do."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state = {
        number: {
            name: placed(value, weights[number])
            if isinstance(value, Tensor) and value.shape == weights[number].shape
            else value
            for name, value in moments.items()
        }
        for number, moments in saved["state"].items()
    }
    return {**saved, "state": state}
