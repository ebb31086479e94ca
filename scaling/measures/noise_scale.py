"""The gradient noise scale from the norms of gradients of parts of one batch.

Source: McCandlish et al. 2018 (arXiv:1812.06162) appendix A.1, with the two batch sizes taken
from one step: its parts (workers or micro-batches) and the whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class NoiseEstimate:
    """Unbiased estimates from one or many steps; either may be negative by chance.

    Attributes:
        sq_norm: |G|² of the mean gradient of the sampling distribution.
        covariance_trace: tr Σ of one example's gradient.
    """

    sq_norm: float
    covariance_trace: float

    @property
    def noise_scale(self) -> float | None:
        """B_simple = tr Σ / |G|² in examples (eq. 2.9); None while an estimate is not positive."""
        if self.sq_norm <= 0 or self.covariance_trace <= 0:
            return None
        return self.covariance_trace / self.sq_norm


def estimate_noise(
    part_sq_norms: Sequence[float],
    part_sizes: Sequence[float],
    whole_sq_norm: float,
    *,
    num_train: int | None,
) -> NoiseEstimate:
    """One step's estimate from the squared gradient norms of its parts and of the whole.

    With E|G_b|² = |G|² + tr Σ / b, two batch sizes give both unknowns; parts of different sizes
    enter by the mean of 1 / b.

    Args:
        part_sq_norms: Squared norm of each part's mean gradient.
        part_sizes: Examples in each part, two parts at least; where examples have unequal
            numbers of targets, the part's share of targets × the examples of the batch.
        whole_sq_norm: Squared norm of the whole batch's mean gradient, before clipping.
        num_train: Size of the train set that is sampled without replacement; None when every
            example is drawn afresh.

    Returns:
        Estimates for the sampling distribution. Drawing without replacement from N examples,
        the difference of the two equations gives |G|² of the population that the train set
        stands for; tr Σ / N is added to make it that of the train set itself.
    """
    inverse_part = sum(1 / size for size in part_sizes) / len(part_sizes)
    inverse_whole = 1 / sum(part_sizes)
    mean_part = sum(part_sq_norms) / len(part_sq_norms)
    trace = (mean_part - whole_sq_norm) / (inverse_part - inverse_whole)
    sq_norm = whole_sq_norm - trace * inverse_whole
    if num_train is not None:
        sq_norm += trace / num_train
    return NoiseEstimate(sq_norm, trace)


class RunningNoise:
    """Exponential running means of |G|² and tr Σ, so that their ratio is a ratio of means.

    A mean of ratios is biased upwards: one step's |G|² can be close to zero.

    Args:
        half_life: Estimates after which one counts half.
    """

    def __init__(self, half_life: float = 8.0) -> None:
        self._decay = 0.5 ** (1 / half_life)
        self._weight = 0.0
        self._sq_norm = 0.0
        self._trace = 0.0

    def add(self, estimate: NoiseEstimate) -> None:
        """Take in one step's estimate."""
        self._weight = self._decay * self._weight + 1
        share = 1 / self._weight
        self._sq_norm += share * (estimate.sq_norm - self._sq_norm)
        self._trace += share * (estimate.covariance_trace - self._trace)

    @property
    def mean(self) -> NoiseEstimate | None:
        """The running means; None before the first estimate."""
        if not self._weight:
            return None
        return NoiseEstimate(self._sq_norm, self._trace)

    def state(self) -> tuple[float, float, float]:
        """What a continued run needs, for `restore`."""
        return self._weight, self._sq_norm, self._trace

    def restore(self, state: tuple[float, float, float]) -> None:
        """Go on from what `state` gave."""
        self._weight, self._sq_norm, self._trace = state
