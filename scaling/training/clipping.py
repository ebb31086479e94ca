"""Clipping a global gradient: by its norm, by value, or at a percentile of its past norms."""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from scaling.optimizers.tensors import by_kind, kernels
from scaling.records.recipe import Hyperparameters
from scaling.training.parallel.sharding import total_norm

CLIP_EPS = 1e-6  # torch.nn.utils.clip_grad_norm_'s


class Clipping:
    """A recipe's clipping; of clip_norm, clip_value and clip_percentile it has one at most.

    With clip_percentile it remembers the norms, before clipping, of the last
    `clip_history_steps` steps, this one included.

    Source: by norm, Pascanu et al. 2013 (arXiv:1211.5063) algorithm 1; by percentile, AutoClip,
        Seetharaman et al. 2020 (arXiv:2007.14469), which remembers all steps.
    """

    def __init__(self, hparams: Hyperparameters) -> None:
        self._hparams = hparams
        self._norms = deque[float](maxlen=hparams.clip_history_steps)

    def __call__(self, parameters: Sequence[nn.Parameter], *, grad_norm: float) -> bool:
        """Clip the gradients in place; True where that changed one.

        Args:
            parameters: Their `.grad` is the gradient of the whole global batch.
            grad_norm: Its norm.
        """
        hparams = self._hparams
        if hparams.clip_value is not None:
            return _clip_values(parameters, hparams.clip_value)
        if hparams.clip_percentile is None:
            return clip_global_norm(parameters, grad_norm=grad_norm, clip_norm=hparams.clip_norm)
        self._norms.append(grad_norm)
        limit = float(np.percentile(self._norms, hparams.clip_percentile))
        # A gradient of 0 has nothing to clip, and clipping to 0 would divide by it.
        return clip_global_norm(parameters, grad_norm=grad_norm, clip_norm=limit or None)

    def state(self) -> list[float]:
        """What a continued run needs, for `restore`."""
        return list(self._norms)

    def restore(self, state: list[float]) -> None:
        """Go on from what `state` gave."""
        self._norms.extend(state)


def clip_global_norm(
    parameters: Sequence[nn.Parameter], *, grad_norm: float, clip_norm: float | None
) -> bool:
    """Scale the global gradient down to `clip_norm`; True when it was longer.

    Args:
        parameters: Their `.grad` is the gradient of the whole global batch, already summed over
            micro-batches and workers: clipping each part would point elsewhere.
        grad_norm: Norm of that gradient.
        clip_norm: Largest norm; None leaves it alone.

    Source: Pascanu et al. 2013 (arXiv:1211.5063) algorithm 1.
    """
    if clip_norm is None or grad_norm <= clip_norm:
        return False
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    # torch's own clipping takes a tensor, for which the device is waited for; rounded as there.
    is_double = any(gradient.dtype == torch.float64 for gradient in gradients)
    rounded = np.float64 if is_double else np.float32
    one_over = rounded(1) / (rounded(grad_norm) + rounded(CLIP_EPS))
    factor = min(1.0, float(rounded(clip_norm) * one_over))
    for kind in by_kind(gradients):
        kernels._foreach_mul_(kind, factor)
    return True


def _clip_values(parameters: Sequence[nn.Parameter], clip_value: float) -> bool:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if total_norm(gradients, math.inf) <= clip_value:
        return False
    for kind in by_kind(parameters):
        nn.utils.clip_grad_value_(kind, clip_value)
    return True
