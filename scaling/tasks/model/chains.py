"""Chains of the noisy quadratic model: curvature h_i = 1 / i, gradient noise N(0, h_i)."""

import numpy as np
import torch
from torch import Tensor, nn

from scaling.tasks.task import ExampleLosses, Indices


class Chains(nn.Module):
    """Positions x of every chain, [num_chains, num_dimensions]."""

    curvature: Tensor

    def __init__(self, num_chains: int, num_dimensions: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.positions = nn.Parameter(torch.randn(num_chains, num_dimensions, generator=generator))
        self.register_buffer("curvature", 1 / torch.arange(1, num_dimensions + 1))

    def forward(self, noise: Tensor | None = None) -> Tensor:
        """½ Σ h x² of each chain, [num_chains]; plus x · noise, whose gradient is the noise."""
        losses = 0.5 * (self.curvature * self.positions.square()).sum(1)
        return losses if noise is None else losses + (self.positions * noise).sum(1)


def mean_noise(
    num_chains: int, num_dimensions: int, indices: Indices, seed: int
) -> dict[str, Tensor]:
    """A batch: the mean of the examples' gradient noise, and how many they are.

    Args:
        num_chains: Each has noise of its own.
        num_dimensions: Of a chain.
        indices: Numbers of the examples, whose mean, N(0, h / B), is drawn at once.
        seed: The trial's.
    """
    # The key is the first example's number: disjoint micro-batches draw independently.
    key = np.random.SeedSequence((seed, int(indices[0]))).generate_state(1, np.uint64)[0]
    generator = torch.Generator().manual_seed(int(key >> 1))
    deviation = (torch.arange(1, num_dimensions + 1) * len(indices)).float().rsqrt()
    return {
        "noise": torch.randn(num_chains, num_dimensions, generator=generator) * deviation,
        "num_examples": torch.tensor(float(len(indices))),
    }


def exact_losses(model: nn.Module, part: slice) -> ExampleLosses:
    """The losses of the chains in `part`, without noise."""
    losses = model().double().cpu().numpy()[part]
    return ExampleLosses(losses, np.ones_like(losses), np.zeros_like(losses))
