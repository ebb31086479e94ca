"""The optimizer that a module configures itself, whose peak rate alone the study sets."""

import inspect
from typing import Any

import torch
from torch import nn

from scaling.optimizers.tensors import trained_weights


def build(model: nn.Module, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """What `configure_optimizers` of a model returns, with another rate; see `at_rate`.

    Raises:
        ValueError: As `at_rate`; also whatever the model's own code raises.
    """
    del weight_decay  # the module's own
    configured: Any = model
    return at_rate(configured.configure_optimizers(), model, lr)


def at_rate(configured: Any, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """The one optimizer that is configured, its highest rate `lr`.

    The rates of its groups keep their ratios (`lr_ratio` of each group, which `set_lr` reads).
    Where a scheduler has changed the rates already, those that it started from count.

    Args:
        configured: What configure_optimizers returned, in any of the forms that Lightning takes.
        model: Whose trained weights the optimizer must have.
        lr: Peak learning rate.

    Raises:
        ValueError: If it is no single optimizer of all trained weights that takes its step along
            the gradient at hand; the message goes after the name of what was called.
    """
    optimizers, schedulers = configured_parts(configured)
    if len(optimizers) != 1 or not isinstance(optimizers[0], torch.optim.Optimizer):
        kinds = ", ".join(type(found).__name__ for found in optimizers) or "none"
        raise ValueError(f"must give one torch optimizer (got: {kinds})")
    [optimizer] = optimizers
    kind = type(optimizer).__name__
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(f"gives {kind}, which computes gradients anew within a step")
    for scheduler in schedulers:
        if getattr(scheduler, "cycle_momentum", False):
            name = type(scheduler).__name__
            raise ValueError(
                f"gives a {name} that moves the momentum too, and only the study's schedule is "
                "used; set cycle_momentum=False or return the optimizer alone"
            )
    held = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    left_out = [weight for weight in trained_weights(model) if id(weight) not in held]
    if left_out:
        names = [n.removeprefix("module.") for n, p in model.named_parameters() if p is left_out[0]]
        raise ValueError(
            f"leaves out the weight {names[0]}; give it to the optimizer or freeze it by "
            "requires_grad_(False)"
        )
    rates = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    if max(rates) <= 0:
        raise ValueError(f"gives {kind} with a rate of 0, which has no ratio to the study's")
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr_ratio"] = rate / max(rates)
        group["lr"] = lr * group["lr_ratio"]
    return optimizer


def configured_parts(configured: Any) -> tuple[list[Any], list[Any]]:
    """Optimizers and schedulers, of any form that Lightning takes."""
    if isinstance(configured, dict):
        return [configured.get("optimizer")], _schedulers(configured.get("lr_scheduler"))
    is_pair = isinstance(configured, list | tuple) and len(configured) == 2
    if is_pair and all(isinstance(part, list) for part in configured):
        return list(configured[0]), [s for part in configured[1] for s in _schedulers(part)]
    if isinstance(configured, list | tuple):
        parts = [configured_parts(one) for one in configured]
        return [o for part in parts for o in part[0]], [s for part in parts for s in part[1]]
    return [configured], []


def _schedulers(configured: Any) -> list[Any]:
    scheduler = configured.get("scheduler") if isinstance(configured, dict) else configured
    return [] if scheduler is None else [scheduler]
