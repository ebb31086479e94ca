"""Stochastic gradient descent with momentum, as torch has it; weight decay is in the gradient."""

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from scaling.optimizers.tensors import decay_groups, trained_weights


def build(
    model: nn.Module, *, lr: float, weight_decay: float, momentum: float, nesterov: bool
) -> torch.optim.Optimizer:
    """Torch's SGD for a model's trained weights."""
    trained = trained_weights(model)
    # torch has no fused SGD for weights that are cut among workers.
    is_cut = any(isinstance(parameter, DTensor) for parameter in trained)
    kernel = {"foreach": True} if is_cut else {"fused": True}
    groups = decay_groups(trained, weight_decay)
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, **kernel)
