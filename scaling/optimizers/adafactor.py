"""Adafactor: Adam's scaling from means of rows and columns."""

from typing import Any

import torch
from torch import Tensor, nn

from scaling.optimizers.tensors import (
    Parameters,
    cut_as,
    decay_groups,
    norm,
    trained_weights,
    whole,
    with_gradients,
)

ADAFACTOR_EPS = (1e-30, 1e-3)
"""The paper's ε₁, added to the squared gradient, and ε₂, the least scale of a tensor."""
ADAFACTOR_DECAY_EXPONENT = 0.8
"""The second moment of step t forgets by 1 − t^−0.8."""


def build(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Adafactor for a model's trained weights; weight decay is decoupled."""
    return Adafactor(decay_groups(trained_weights(model), weight_decay), lr=lr)


class Adafactor(torch.optim.Optimizer):
    """Adam's scaling from row and column means of the squared gradient, without momentum.

    A tensor moves by lr × its root mean square (at least ε₂). The rate is the schedule's, not
    capped at 1 / √t as torch.optim.Adafactor does, which would be a schedule within the schedule;
    up to that cap the two agree. Weight decay is decoupled, lr × decay.

    Source: Shazeer & Stern 2018 (arXiv:1804.04235) algorithms 4 and 5.
    """

    def __init__(self, params: Parameters, *, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step."""
        del closure
        for group in self.param_groups:
            for weight, gradient in with_gradients(group):
                state = self.state[weight]
                if not state:
                    state["step"] = torch.tensor(0.0)
                state["step"] += 1
                forgets = float(state["step"]) ** -ADAFACTOR_DECAY_EXPONENT
                square = gradient.square().add_(ADAFACTOR_EPS[0])
                update = gradient / _second_moment(state, square, forgets).sqrt()
                update.div_(_root_mean_square(update).clamp(min=1.0))  # the paper's d = 1
                scale = _root_mean_square(weight).clamp(min=ADAFACTOR_EPS[1])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(update.mul_(group["lr"] * scale))


def _second_moment(state: dict[str, Any], square: Tensor, forgets: float) -> Tensor:
    """The running mean of a tensor's squared gradient; of rows × columns where it is a matrix."""
    if square.ndim < 2:
        if "exp_avg_sq" not in state:
            state["exp_avg_sq"] = torch.zeros_like(square)
        return state["exp_avg_sq"].lerp_(square, forgets).clone()
    rows, columns = whole(square.mean(-1)), whole(square.mean(-2))
    if "row_mean" not in state:
        state["row_mean"], state["column_mean"] = torch.zeros_like(rows), torch.zeros_like(columns)
    row_mean = state["row_mean"].lerp_(rows, forgets)
    column_mean = state["column_mean"].lerp_(columns, forgets)
    row_share = row_mean / row_mean.mean(-1, keepdim=True)
    return cut_as(square, row_share.unsqueeze(-1) * column_mean.unsqueeze(-2))


def _root_mean_square(tensor: Tensor) -> Tensor:
    return norm(tensor) / tensor.numel() ** 0.5
