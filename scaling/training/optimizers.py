"""The optimizer that a recipe names."""

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from scaling.records import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) or SGD with momentum.

    Weight decay acts on matrices only: vectors (biases, norms' gains) are left out, as is usual
    for Transformers. It is decoupled for adamw and added to the gradient for sgd.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    match recipe.optimizer:
        case "adamw":
            betas = (recipe.beta1, recipe.beta2)
            return torch.optim.AdamW(
                groups, lr=recipe.peak_lr, betas=betas, eps=recipe.eps, fused=True
            )
        case "sgd":
            # torch has no fused SGD for weights that are cut among workers.
            is_cut = any(isinstance(parameter, DTensor) for parameter in trained)
            kernel = {"foreach": True} if is_cut else {"fused": True}
            return torch.optim.SGD(groups, lr=recipe.peak_lr, momentum=recipe.momentum, **kernel)
        case unknown:
            raise ValueError(f"unknown optimizer {unknown!r}")


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use this learning rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
