"""How sharp the loss is around the weights: Keskar's measure and the largest curvature.

Both are on a fixed set of training examples in evaluation mode; each worker computes its share
and `sum_over_workers` adds the shares up.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

LossAndGradient = Callable[[Tensor], tuple[float, Tensor]]
"""Loss and its gradient [n] at weights [n]."""

MAX_MOVE = 1e6  # longest step of the ascent before the box ends it, in units of the box
HISTORY = 5  # steps among whose losses the worst one must be exceeded


def sharpness(
    loss_and_gradient: LossAndGradient,
    weights: Tensor,
    *,
    epsilon: float,
    num_iterations: int = 20,
    num_starts: int = 2,
    seed: int = 0,
) -> float:
    """φ = 100 (max f(x + y) − f(x)) / (1 + f(x)) over the box |y_i| ≤ ε (|x_i| + 1).

    The maximum is sought from random points of the box, never from its centre: there a minimum
    has no gradient to follow. What is found is a lower bound of it.

    Args:
        loss_and_gradient: f and its gradient.
        weights: x, [n].
        epsilon: ε, the box's size relative to the weights.
        num_iterations: Ascent steps from each start.
        num_starts: Random starts; the best end counts.
        seed: Of the starts.

    Returns:
        NaN where f(x) < 0, as the measure is of losses that cannot be negative, and where f is NaN
        at a start.

    Source: Keskar et al. 2016 (arXiv:1609.04836) metric 2.1 with A the identity. They use
        L-BFGS-B; here it is the spectral projected gradient of Birgin et al. 2000 (SIAM J. Optim.
        10, algorithm SPG1), which keeps a few vectors as long as the weights instead of dozens.
    """
    half = epsilon * (weights.abs() + 1)
    generator = torch.Generator().manual_seed(seed)

    def at(z: Tensor) -> tuple[float, Tensor]:
        value, gradient = loss_and_gradient(weights + half * z)
        return value, gradient * half

    centre, _ = loss_and_gradient(weights)
    if centre < 0:
        return math.nan
    highest = centre
    for _ in range(num_starts):
        start = 2 * torch.rand(weights.shape, generator=generator, dtype=torch.float64) - 1
        found = _ascend(at, start.to(weights), num_iterations)
        if math.isnan(found):
            return math.nan
        highest = max(highest, found)
    return 100 * (highest - centre) / (1 + centre)


def _ascend(at: LossAndGradient, z: Tensor, num_iterations: int) -> float:
    """The highest value met on the way up from z in the box [−1, 1]^n."""
    value, gradient = at(z)
    values = [value]
    step = 1 / max(float(gradient.abs().max()), 1e-30)
    for _ in range(num_iterations):
        direction = (z + step * gradient).clamp(-1, 1) - z
        slope = float(gradient @ direction)
        if slope <= 0:  # no way up that stays in the box
            break
        share = 1.0
        new_value, new_gradient = at(z + direction)
        while new_value < min(values[-HISTORY:]) + 1e-4 * share * slope and share > 1e-3:
            share /= 4
            new_value, new_gradient = at(z + share * direction)
        moved = share * direction
        bend = -float(moved @ (new_gradient - gradient))
        z, gradient = z + moved, new_gradient
        values.append(new_value)
        # Where the loss curves upwards along the step, the longest one is tried next.
        longest = MAX_MOVE / max(float(gradient.abs().max()), 1e-30)
        step = min(float(moved @ moved) / bend, longest) if bend > 0 else longest
    return max(values)


def top_eigenvalue(
    hessian_product: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    num_iterations: int = 30,
    tolerance: float = 1e-3,
) -> float:
    """The largest eigenvalue of a symmetric matrix by the Lanczos iteration.

    Args:
        hessian_product: H v for a vector v, [n].
        start: A random vector, [n].
        num_iterations: Products at most.
        tolerance: It ends when the residual is this small against the eigenvalue.

    Returns:
        NaN where a product is not finite.

    Source: Golub and Van Loan, Matrix Computations, 4th ed., sec. 10.1. The vectors are not kept
        and not made orthogonal again: what is lost are multiple eigenvalues, not the largest.
    """
    before = torch.zeros_like(start)
    vector = start / start.norm()
    diagonal: list[float] = []
    off_diagonal: list[float] = []
    value = 0.0
    for _ in range(num_iterations):
        product = hessian_product(vector)
        if not bool(torch.isfinite(product).all()):
            return math.nan
        diagonal.append(float(vector @ product))
        product = product - diagonal[-1] * vector
        if off_diagonal:
            product = product - off_diagonal[-1] * before
        size = float(product.norm())
        value, last = _largest_of_tridiagonal(diagonal, off_diagonal)
        if size * abs(last) <= tolerance * abs(value):
            break
        off_diagonal.append(size)
        before, vector = vector, product / size
    return value


def _largest_of_tridiagonal(
    diagonal: Sequence[float], off_diagonal: Sequence[float]
) -> tuple[float, float]:
    """The largest eigenvalue, and the last component of its unit vector."""
    matrix = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
    if off_diagonal:
        beside = torch.tensor(off_diagonal, dtype=torch.float64)
        matrix += torch.diag(beside, 1) + torch.diag(beside, -1)
    values, vectors = torch.linalg.eigh(matrix)
    return float(values[-1]), float(vectors[-1, -1])


@dataclass(frozen=True)
class LossSurface:
    """The mean loss of fixed examples as a function of the weights as one vector.

    Attributes:
        parameters: The trained weights; left as they were after every call.
        losses: The loss sum of each part of this worker's examples at the present weights, in
            evaluation mode, as thunks: one graph is held at a time.
        num_targets: Over all workers.
        sum_over_workers: Adds up the workers' vectors or numbers.
    """

    parameters: Sequence[Tensor]
    losses: Sequence[Callable[[], Tensor]]
    num_targets: int
    sum_over_workers: Callable[[Tensor], Tensor]

    def weights(self) -> Tensor:
        """The present weights, [n]."""
        return torch.cat([p.detach().flatten() for p in self.parameters])

    def loss_and_gradient(self, weights: Tensor) -> tuple[float, Tensor]:
        """Mean loss in nats per target and its gradient, at other weights."""
        present = self.weights()
        self._set(weights)
        try:
            total = torch.zeros(len(weights) + 1, dtype=torch.float64, device=weights.device)
            for loss_of_part in self.losses:
                loss = loss_of_part()
                total[0] += loss.detach()
                total[1:] += self._flat(
                    torch.autograd.grad(loss, self.parameters, materialize_grads=True)
                )
        finally:
            self._set(present)
        total = self.sum_over_workers(total) / self.num_targets
        return float(total[0]), total[1:].to(weights.dtype)

    def hessian_product(self, vector: Tensor) -> Tensor:
        """The Hessian of the mean loss at the present weights times a vector, [n]."""
        total = torch.zeros_like(vector, dtype=torch.float64)
        for loss_of_part in self.losses:
            # The fused attention kernels have no second derivative.
            with sdpa_kernel(SDPBackend.MATH):
                gradients = torch.autograd.grad(
                    loss_of_part(), self.parameters, create_graph=True, materialize_grads=True
                )
                along = self._flat(gradients) @ vector
            total += self._flat(torch.autograd.grad(along, self.parameters, materialize_grads=True))
        return (self.sum_over_workers(total) / self.num_targets).to(vector.dtype)

    @staticmethod
    def _flat(gradients: Sequence[Tensor]) -> Tensor:
        return torch.cat([gradient.flatten() for gradient in gradients])

    @torch.no_grad()
    def _set(self, weights: Tensor) -> None:
        sizes = [p.numel() for p in self.parameters]
        for parameter, own in zip(self.parameters, weights.split(sizes), strict=True):
            parameter.copy_(own.view_as(parameter))
