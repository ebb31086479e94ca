"""Adam with decoupled weight decay: Loshchilov & Hutter 2019 (arXiv:1711.05101)."""

import torch
from torch import nn

from scaling.optimizers.tensors import decay_groups, trained_weights


def build(
    model: nn.Module, *, lr: float, weight_decay: float, beta1: float, beta2: float, eps: float
) -> torch.optim.Optimizer:
    """Torch's AdamW for a model's trained weights."""
    groups = decay_groups(trained_weights(model), weight_decay)
    return torch.optim.AdamW(groups, lr=lr, betas=(beta1, beta2), eps=eps, fused=True)
