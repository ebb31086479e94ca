"""LAMB: Adam with a trust ratio a matrix."""

from typing import Any

import torch
from torch import nn

from scaling.optimizers.tensors import (
    Parameters,
    decay_groups,
    in_chunks,
    kernels,
    moments,
    norms,
    trained_weights,
    trust_ratio,
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
            for weights, gradients in in_chunks(group):
                for weight in weights:
                    self.state[weight]["step"] = self.state[weight].get("step", 0) + 1
                counts = [self.state[weight]["step"] for weight in weights]
                means = moments(self, weights, "exp_avg")
                squares = moments(self, weights, "exp_avg_sq")
                kernels._foreach_lerp_(means, gradients, 1 - beta1)
                kernels._foreach_lerp_(
                    squares, kernels._foreach_mul(gradients, gradients), 1 - beta2
                )
                roots = kernels._foreach_div(squares, [1 - beta2**count for count in counts])
                kernels._foreach_sqrt_(roots)
                kernels._foreach_add_(roots, group["eps"])
                updates = kernels._foreach_div(means, [1 - beta1**count for count in counts])
                kernels._foreach_div_(updates, roots)
                kernels._foreach_add_(updates, weights, alpha=group["weight_decay"])
                if weights[0].ndim >= 2:  # a group has matrices or vectors: see `decay_groups`
                    ratios = trust_ratio(norms(weights), norms(updates))
                    kernels._foreach_mul_(updates, list(ratios.unbind()))
                kernels._foreach_add_(weights, updates, alpha=-group["lr"])
