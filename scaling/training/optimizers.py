"""The optimizer that a recipe names."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from scaling.records.recipe import Hyperparameters
from scaling.training.parallel.sharding import by_kind, own_part
from scaling.training.update_rules import (
    Adafactor,
    Lamb,
    Lars,
    Lion,
    MuonWithAdamW,
    hidden_matrices,
)


def build_optimizer(model: nn.Module, hparams: Hyperparameters) -> torch.optim.Optimizer:
    """The optimizer that a recipe names, for a model's trained weights.

    Weight decay acts on matrices only, embeddings and the head included: vectors (biases, norms'
    gains) are left out, as is usual for Transformers. It is added to the gradient for sgd and
    lars, to Adam's step inside the trust ratio for lamb, and decoupled for the others.

    Raises:
        ValueError: If it is muon and the model has no hidden matrix.

    Source: AdamW, Loshchilov & Hutter 2019 (arXiv:1711.05101); for the rest see
        `scaling.training.update_rules`.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = _groups(trained, hparams.weight_decay)
    lr, betas, eps = hparams.peak_lr, (hparams.beta1, hparams.beta2), hparams.eps
    match hparams.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=eps, fused=True)
        case "sgd":
            # torch has no fused SGD for weights that are cut among workers.
            is_cut = any(isinstance(parameter, DTensor) for parameter in trained)
            kernel = {"foreach": True} if is_cut else {"fused": True}
            return torch.optim.SGD(
                groups, lr=lr, momentum=hparams.momentum, nesterov=hparams.nesterov, **kernel
            )
        case "lamb":
            return Lamb(groups, lr=lr, betas=betas, eps=eps)
        case "lars":
            return Lars(groups, lr=lr, momentum=hparams.momentum)
        case "adafactor":
            return Adafactor(groups, lr=lr)
        case "lion":
            return Lion(groups, lr=lr, betas=betas)
        case "muon":
            hidden = hidden_matrices(model)
            if not hidden:
                raise ValueError("optimizer muon: the model has no hidden matrix to train")
            known = {id(parameter) for parameter in hidden}
            others = [parameter for parameter in trained if id(parameter) not in known]
            return MuonWithAdamW(
                _groups(hidden, hparams.weight_decay), _groups(others, hparams.weight_decay),
                lr=lr, momentum=hparams.momentum, betas=betas, eps=eps,
            )  # fmt: skip
        case unknown:
            raise ValueError(f"unknown optimizer {unknown!r}")


def _groups(parameters: Sequence[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Matrices, which decay, and vectors, which do not."""
    matrices, vectors = (
        by_kind([p for p in parameters if (p.ndim >= 2) == are_matrices])
        for are_matrices in (True, False)
    )
    return [
        *({"params": kind, "weight_decay": weight_decay} for kind in matrices),
        *({"params": kind, "weight_decay": 0.0} for kind in vectors),
    ]


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


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use this learning rate for the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
