"""LARS: momentum SGD with a rate of its own for each matrix."""

from typing import Any

import torch
from torch import Tensor, nn

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

LARS_TRUST_COEFFICIENT = 0.001
"""The paper's η; as it only multiplies the rate, it is no hyperparameter of its own."""


def build(
    model: nn.Module, *, lr: float, weight_decay: float, momentum: float
) -> torch.optim.Optimizer:
    """LARS for a model's trained weights; weight decay is in the gradient."""
    return Lars(decay_groups(trained_weights(model), weight_decay), lr=lr, momentum=momentum)


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose rate for each matrix is η |w| / (|g| + λ |w|) times the global one.

    Vectors take SGD's own step: biases start at 0 and would never move.

    Source: You et al. 2017 (arXiv:1708.03888) eq. 6 and algorithm 1.
    """

    def __init__(self, params: Parameters, *, lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        del closure
        for group in self.param_groups:
            decay = group["weight_decay"]
            for weights, gradients in in_chunks(group):
                updates = kernels._foreach_add(gradients, weights, alpha=decay)
                if weights[0].ndim >= 2:  # a group has matrices or vectors: see `decay_groups`
                    rates = local_rate(norms(weights), norms(gradients), weight_decay=decay)
                    kernels._foreach_mul_(updates, list(rates.unbind()))
                # The rate is inside the momentum, as in the paper.
                velocities = moments(self, weights, "momentum_buffer")
                kernels._foreach_mul_(velocities, group["momentum"])
                kernels._foreach_add_(velocities, updates, alpha=group["lr"])
                kernels._foreach_sub_(weights, velocities)


def local_rate(weight_norm: Tensor, gradient_norm: Tensor, *, weight_decay: float) -> Tensor:
    """LARS' rate of one tensor, over the global rate: η |w| / (|g| + λ |w|); 1 where |w| = 0.

    Source: You et al. 2017 (arXiv:1708.03888) eq. 6.
    """
    length = gradient_norm + weight_decay * weight_norm
    return trust_ratio(LARS_TRUST_COEFFICIENT * weight_norm, length)
