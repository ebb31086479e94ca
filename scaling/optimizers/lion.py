"""Lion: steps by the sign of a momentum."""

from typing import Any

import torch
from torch import nn

from scaling.optimizers.tensors import (
    Parameters,
    decay_groups,
    in_chunks,
    kernels,
    moments,
    trained_weights,
)


def build(
    model: nn.Module, *, lr: float, weight_decay: float, beta1: float, beta2: float
) -> torch.optim.Optimizer:
    """Lion for a model's trained weights; weight decay is decoupled."""
    return Lion(decay_groups(trained_weights(model), weight_decay), lr=lr, betas=(beta1, beta2))


class Lion(torch.optim.Optimizer):
    """The sign of an interpolation between momentum and gradient; decoupled weight decay.

    Source: Chen et al. 2023 (arXiv:2302.06675) algorithm 2.
    """

    def __init__(self, params: Parameters, *, lr: float, betas: tuple[float, float]) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        del closure
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weights, gradients in in_chunks(group):
                means = moments(self, weights, "exp_avg")
                updates = kernels._foreach_lerp(means, gradients, 1 - beta1)
                kernels._foreach_sign_(updates)
                kernels._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                kernels._foreach_add_(weights, updates, alpha=-group["lr"])
                kernels._foreach_lerp_(means, gradients, 1 - beta2)
