"""What a strategy does for the rest of training, whatever it is."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from scaling.measures.norm_layers import NormLayers
from scaling.training.parallel.workers import Workers

NewOptimizer = Callable[[nn.Module], torch.optim.Optimizer]
"""Builds an optimizer of a model's trained weights, as the model holds them when it is called."""


MAX_IN_FLOAT64 = 2**22  # numbers of a gradient that are there in float64 at once


class LocalNorm:
    """Squared norm of this worker's own gradient, taken just before it is averaged with others'."""

    def __init__(self) -> None:
        self.wanted = False
        self._sq_norms: list[Tensor] = []

    def start(self) -> None:
        """Measure during the next backward pass that is synchronized."""
        self.wanted, self._sq_norms = True, []

    def add(self, gradients: Sequence[Tensor]) -> None:
        """Take in the gradients of some parameters."""
        for gradient in gradients:  # in float64, a piece at a time
            pieces = gradient.flatten().split(MAX_IN_FLOAT64)
            self._sq_norms += [piece.double().square().sum() for piece in pieces]

    def stop(self) -> float:
        """The squared norm measured since `start`."""
        self.wanted = False
        # Buckets are cut anew after the first step; an exact sum does not depend on them.
        try:
            return math.fsum(torch.stack(self._sq_norms).tolist()) if self._sq_norms else 0.0
        except OverflowError:  # of gradients in float64
            return math.inf


class Weights(Protocol):
    """A model's trained weights as this worker holds them, and what moves them."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Takes the steps, and has the parameter groups."""
        ...

    @property
    def parameters(self) -> Sequence[nn.Parameter]:
        """All trained weights as the optimizer holds them.

        After a reduction their `.grad` is the gradient of the whole batch.
        """
        ...

    @property
    def held(self) -> Sequence[Tensor]:
        """What this worker has of each trained weight all the time."""
        ...

    @property
    def norm_layers(self) -> NormLayers:
        """The model's normalization layers."""
        ...

    def state(self) -> dict[str, Any]:
        """This worker's part of a checkpoint: trained weights and moments."""
        ...

    def state_after_first_step(self) -> dict[str, Any]:
        """What `state` is like once there are moments, all zero; called by all workers."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave on the same worker of as many; called by all of them."""
        ...


@dataclass(frozen=True)
class Parallel:
    """A model that a trial's workers train together, as its strategy has it.

    Attributes:
        wrapped: The model to call for a forward pass whose backward pass is reduced.
        weights: The model's trained weights, of which this worker may have a part.
        data_workers: This worker among those that share a batch; alone where each computes all of
            it.
        plain_model: Returns a model with the same weights that is not cut, of a new one that it
            may build by the function it is given, and None where that gives None; inside
            `whole_weights`, by all workers.
        local_norm: Where to read this worker's own gradient norm; None where no other shares the
            batch.
        saves_in_parts: Whether each worker writes a part of a checkpoint; else the first one writes
            it all.
        reduction: The backward passes inside the block make one gradient; called with their number.
        no_sync: Backward passes inside the block only accumulate this worker's own gradient.
        whole_weights: Every worker may run forwards of the model alone inside the block: they
            evaluate different numbers of batches, and a forward that gathers its weights would wait
            for the others. Called by all workers; the weights must not be changed inside.
        close: Lets go of what would outlive the run, and of workers that wait for this one.
    """

    wrapped: nn.Module
    weights: Weights
    data_workers: Workers
    plain_model: Callable[[Callable[[], nn.Module | None]], nn.Module | None]
    local_norm: LocalNorm | None = None
    saves_in_parts: bool = False
    reduction: Callable[[int], AbstractContextManager[None]] = lambda _: nullcontext()
    no_sync: Callable[[], AbstractContextManager[None]] = nullcontext
    whole_weights: Callable[[], AbstractContextManager[None]] = nullcontext
    close: Callable[[], None] = lambda: None
