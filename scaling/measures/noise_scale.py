"""The gradient noise scale from the norms of gradients of parts of one batch.

Source: McCandlish et al. 2018 (arXiv:1812.06162) appendix A.1, with the two batch sizes taken
from one step: its parts (workers or micro-batches) and the whole.
"""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields


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

    With E|G_b|² = |G|² + tr Σ / b, two batch sizes give both unknowns. Parts of different sizes
    are weighted by size: that is the sum of squares between the parts, with the least spread,
    and short parts, whose mean over targets is a biased ratio, count little.

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
    whole_size = sum(part_sizes)
    weighted = sum(norm * size for norm, size in zip(part_sq_norms, part_sizes, strict=True))
    mean_part = weighted / whole_size
    # The weighted mean of 1 / b is the number of parts over the whole's size.
    trace = (mean_part - whole_sq_norm) * whole_size / (len(part_sizes) - 1)
    sq_norm = whole_sq_norm - trace / whole_size
    if num_train is not None:
        sq_norm += trace / num_train
    return NoiseEstimate(sq_norm, trace)


def estimate_noise_by_example(
    *,
    mean_sq_norm: float,
    mean_sq_weight: float,
    whole_sq_norm: float,
    weighted_product: float,
    num_examples: int,
    num_train: int | None,
) -> NoiseEstimate:
    """One step's estimate from the gradients of all its examples.

    With g_i an example's gradient and m_i its targets, both over the mean number of targets, the
    batch's gradient is G = Σ g_i / B, and to first order its spread is that of g_i − m_i G.

    Args:
        mean_sq_norm: Mean of |g_i|² over the batch.
        mean_sq_weight: Mean of m_i²; 1 where all examples have as many targets.
        whole_sq_norm: |G|².
        weighted_product: G · (Σ m_i g_i / B).
        num_examples: Examples of the batch, B, two at least.
        num_train: As for `estimate_noise`.

    Source: the ratio estimator's linearized variance, Cochran 1977, Sampling Techniques, eq. 6.10.
    """
    spread = mean_sq_norm - 2 * weighted_product + mean_sq_weight * whole_sq_norm
    trace = spread * num_examples / (num_examples - 1)
    sq_norm = whole_sq_norm - trace / num_examples
    if num_train is not None:
        sq_norm += trace / num_train
    return NoiseEstimate(sq_norm, trace)


@dataclass(frozen=True)
class MeanNoise(NoiseEstimate):
    """Weighted means over the estimates of many steps.

    Attributes:
        stderr: Standard error of `noise_scale` in examples, from the spread of the steps'
            estimates; None where there is no noise scale or a single estimate.
    """

    stderr: float | None


@dataclass
class RunningNoise:
    """Exponential running means of |G|² and tr Σ, so that their ratio is a ratio of means.

    A mean of ratios is biased upwards: one step's |G|² can be close to zero.

    Attributes:
        half_life: Estimates after which one counts half.
    """

    half_life: float = 8.0
    _weight: float = 0.0
    _sq_weight: float = 0.0  # sum of the squared weights
    _sq_norm: float = 0.0
    _trace: float = 0.0
    # Weighted central moments of the pair, not of the ratio, which is known only at the end.
    _sq_norm_variance: float = 0.0
    _trace_variance: float = 0.0
    _covariance: float = 0.0

    def add(self, estimate: NoiseEstimate) -> None:
        """Take in one step's estimate, unless it is too large to be squared."""
        size = abs(estimate.sq_norm) + abs(estimate.covariance_trace)
        if not math.isfinite(4 * size * size):  # nor could a checkpoint with it be read
            return
        decay = 0.5 ** (1 / self.half_life)
        self._weight = decay * self._weight + 1
        self._sq_weight = decay**2 * self._sq_weight + 1
        share = 1 / self._weight
        from_sq_norm = estimate.sq_norm - self._sq_norm
        from_trace = estimate.covariance_trace - self._trace
        self._sq_norm += share * from_sq_norm
        self._trace += share * from_trace
        kept = 1 - share
        self._sq_norm_variance = kept * (
            self._sq_norm_variance + share * from_sq_norm * from_sq_norm
        )
        self._trace_variance = kept * (self._trace_variance + share * from_trace**2)
        self._covariance = kept * (self._covariance + share * from_sq_norm * from_trace)

    @property
    def mean(self) -> MeanNoise | None:
        """The running means; None before the first estimate."""
        if not self._weight:
            return None
        return MeanNoise(self._sq_norm, self._trace, self._stderr())

    def _stderr(self) -> float | None:
        """Standard error of the ratio of means by the delta method.

        With weights w the variance of a mean is Σw² / (Σw)² times that of one estimate, whose
        weighted sample variance is too small by 1 − Σw² / (Σw)². What the means drift within a
        half-life counts as spread, so the error is rather too large than too small.

        Source: the ratio estimator's linearized variance, Cochran 1977, Sampling Techniques,
            eq. 6.10: residuals tr Σ − B |G|² of the steps over the mean |G|².
        """
        ratio = NoiseEstimate(self._sq_norm, self._trace).noise_scale
        share = self._sq_weight / self._weight**2
        if ratio is None or share > 1 - 1e-9:
            return None
        residual_variance = (
            self._trace_variance
            - 2 * ratio * self._covariance
            + ratio * ratio * self._sq_norm_variance
        )
        return math.sqrt(max(residual_variance, 0.0) * share / (1 - share)) / self._sq_norm

    def state(self) -> tuple[float, ...]:
        """What a continued run needs, for `restore`."""
        return astuple(self)[1:]

    def restore(self, state: Sequence[float]) -> None:
        """Go on from what `state` gave."""
        for known, value in zip(fields(self)[1:], state, strict=True):
            setattr(self, known.name, value)
