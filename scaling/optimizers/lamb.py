"""LAMB: Adam with a trust ratio a matrix."""

from typing import Any

import torch
from torch import nn

from scaling.optimizers.tensors import (
    Parameters,
    decay_groups,
    norm,
    trained_weights,
    trust_ratio,
    with_gradients,
)


def build(
    model: nn.Module, *, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> torch.optim.Optimizer:
    """LAMB for a model's trained weights; weight decay is in Adam's step, under the ratio."""
    groups = decay_groups(trained_weights(model), weight_decay)
    return Lamb(groups, lr=lr, betas=(beta1, beta2), eps=eps)


class Lamb(torch.optim.Optimizer):
    """Adam whose step of each matrix is as long as the matrix times the rate.

    With bias correction and φ(z) = z; vectors take Adam's own step, as in the authors' code.

    Source: You et al. 2020 (arXiv:1904.00962) algorithm 2.
    """

    def __init__(
        self, params: Parameters, *, lr: float, betas: tuple[float, float], eps: float
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        del closure
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for weight, gradient in with_gradients(group):
                state = self.state[weight]
                if not state:
                    state["step"] = torch.tensor(0.0)
                    state["exp_avg"] = torch.zeros_like(weight)
                    state["exp_avg_sq"] = torch.zeros_like(weight)
                state["step"] += 1
                count = int(state["step"])
                mean = state["exp_avg"].lerp_(gradient, 1 - beta1)
                square = state["exp_avg_sq"].lerp_(gradient.square(), 1 - beta2)
                root = (square / (1 - beta2**count)).sqrt_().add_(group["eps"])
                update = (mean / (1 - beta1**count)).div_(root)
                update.add_(weight, alpha=group["weight_decay"])
                if weight.ndim >= 2:
                    update.mul_(trust_ratio(norm(weight), norm(update)))
                weight.add_(update, alpha=-group["lr"])
