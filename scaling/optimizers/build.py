"""The optimizer of a trial."""

from importlib import import_module
from typing import Protocol

import torch
from torch import nn

from scaling.optimizers.catalog import OPTIMIZERS


class OptimizerChoice(Protocol):
    """What every optimizer reads; the table names what each reads beside it."""

    @property
    def optimizer(self) -> str:
        """A name in the table."""
        ...

    @property
    def peak_lr(self) -> float:
        """Learning rate after warmup."""
        ...

    @property
    def weight_decay(self) -> float:
        """Of matrices; vectors do not decay."""
        ...


def build_optimizer(model: nn.Module, hyperparameters: OptimizerChoice) -> torch.optim.Optimizer:
    """The optimizer for a model's trained weights, by the file that has its name.

    Raises:
        ValueError: If the model has no weight that the optimizer is for, or configures none that
            can be used.
    """
    name = hyperparameters.optimizer
    read = {known: getattr(hyperparameters, known) for known in OPTIMIZERS[name].reads}
    return import_module(f"scaling.optimizers.{name}").build(
        model, lr=hyperparameters.peak_lr, weight_decay=hyperparameters.weight_decay, **read
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Use this learning rate for the next step, in groups with a ratio that times this one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_ratio", 1.0)
