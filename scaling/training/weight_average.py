"""An exponential average of the weights, evaluated in place of the last ones.

It makes a constant learning rate comparable with a decayed one without knowing the horizon.

Source: Zhang et al. 2024 (arXiv:2410.21676) sec. 3.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from scaling.optimizers.tensors import kernels
from scaling.training.parallel.sharding import own_part


class WeightAverage:
    """The mean of past trained weights, one from `half_life_examples` ago counting half.

    Args:
        weights: What this worker holds of them, at any time.
        half_life_examples: In training examples.

    The zero start is divided out (as Adam does with its moments), so the average after the
    first step is that step's weights, not a mixture with the initial ones.
    """

    def __init__(self, weights: Sequence[Tensor], *, half_life_examples: float) -> None:
        self._weights = weights
        self._half_life_examples = half_life_examples
        self._kept = 1.0  # product of the decays so far
        self._average = [part.clone() for part in self._parts()]

    def _parts(self) -> list[Tensor]:
        """This worker's own, which is enough, since each number is averaged by itself."""
        return own_part([weight.detach() for weight in self._weights])

    @torch.no_grad()
    def update(self, num_examples: int) -> None:
        """Take in the weights after an optimizer step on so many examples."""
        decay = 0.5 ** (num_examples / self._half_life_examples)
        self._kept *= decay
        share = (1 - decay) / (1 - self._kept)
        kernels._foreach_lerp_(self._average, self._parts(), share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averaged weights inside the block."""
        last = [part.clone() for part in self._parts()]
        self._copy(self._average)
        try:
            yield
        finally:
            self._copy(last)

    @torch.no_grad()
    def _copy(self, weights: list[Tensor]) -> None:
        kernels._foreach_copy_(self._parts(), weights)

    def state(self) -> dict[str, Any]:
        """What a continued run needs, for `restore`."""
        return {"kept": self._kept, "average": self._average}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._kept = state["kept"]
        kernels._foreach_copy_(self._average, state["average"])
