"""How far replicates scatter: between seeds of one group, and between groups around a curve."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtrc  # pyright: ignore -- scipy ships no types

from scaling.analysis.statistics.profile import Array
from scaling.analysis.statistics.uncertainty import t_quantile

_SUSPECTED = 0.25
"""Below this probability a misfit counts in the error. Higher than a claim needs: taking a misfit
for none makes an interval too narrow, and taking none for one only wide."""
_CLAIMED = 0.1
"""Below this probability a misfit is said to be one."""
_SHARES_SOMETHING = 0.25
"""Likewise for what the groups of one seed share."""


@dataclass(frozen=True)
class ErrorVariance:
    """Variance of one value around a fitted curve.

    Attributes:
        degrees: Of freedom behind it.
        misfit: Whether groups scatter around the curve more than their replicates explain.
        is_suspected: Whether they may, so that their own scatter counts.
    """

    variance: float
    degrees: float
    misfit: bool = False
    is_suspected: bool = False

    @property
    def allowance(self) -> float:
        """By how much one parameter may raise the sum of squares inside its 90% interval."""
        return t_quantile(self.degrees) ** 2 * self.variance


@dataclass(frozen=True)
class Scatter:
    """Values in groups.

    Attributes:
        groups: What tells the groups apart, as numbers, rising.
        means: Of each group.
        counts: Values in each group.
        weights: Of each group's mean in a fit, as many as values in all.
        squares: Sum of squares over seeds, inside of the groups; without what the groups of a
            seed share, where all have the same seeds and share something.
        degrees: Of freedom of `squares`; zero without replicates, or where none of them differ,
            as on one grid of evaluations: their scatter is not known then.
        shared_stderr: Standard error of all means together from what a seed shares over groups.
        num_seeds: Of groups that share something; 0 for others.
        deviations: Of each group's values from its mean, by seed where `is_paired`.
        is_paired: Whether every group has each seed once.
    """

    groups: Array
    means: Array
    counts: Array
    weights: Array
    squares: float
    degrees: int
    shared_stderr: float
    num_seeds: int
    deviations: tuple[Array, ...]
    is_paired: bool

    def error_by_seeds(self, influence: Array) -> ErrorVariance | None:
        """Of a value that moves with each group's mean by so much, from the replicates alone.

        Where every seed ran in every group, each seed gives one such value, whatever its groups
        share. Else groups count by themselves, each with the variance of its own replicates.

        Args:
            influence: Change of the value with each group's mean.

        Returns:
            None where a group has no replicate, or no replicates differ.

        Source: an estimate that need not fit, White 1982 (Econometrica 50); degrees of freedom,
            Satterthwaite 1946.
        """
        if self.counts.min() < 2 or self.degrees == 0:
            return None
        if self.is_paired:
            each = influence @ np.stack(self.deviations)
            spare = len(each) - 1
            return ErrorVariance(float((each**2).sum()) / spare / len(each), spare)
        parts = [
            float(weight**2 * (own**2).sum()) / (len(own) - 1) / len(own)
            for weight, own in zip(influence, self.deviations, strict=True)
        ]
        total = sum(parts)
        below = sum(v**2 / (len(own) - 1) for v, own in zip(parts, self.deviations, strict=True))
        return ErrorVariance(total, total**2 / below if below > 0 else 1.0)

    @property
    def shared_allowance(self) -> float:
        """Half of a 90% interval from what seeds share; 0 where they share nothing."""
        return t_quantile(self.num_seeds - 1) * self.shared_stderr if self.shared_stderr else 0.0

    def error(self, around: float, parameters: int) -> ErrorVariance | None:
        """What one value scatters around a curve that was fitted to the groups' means.

        Args:
            around: Sum of squares of the means around the curve, with their weights.
            parameters: Of the curve.

        Returns:
            None where the groups leave no degree of freedom.

        Source: lack of fit, Bates & Watts 1988, Nonlinear regression analysis, sec. 1.3.2.
        """
        spare = len(self.groups) - parameters
        if spare < 1:
            return None
        if self.degrees == 0:
            return ErrorVariance(around / spare, spare)
        explained = self.squares / self.degrees
        ratio = around / spare / explained if explained > 0 else math.inf
        chance = float(fdtrc(spare, self.degrees, ratio))  # pyright: ignore -- no types
        if around > 0 and chance < _SUSPECTED:
            return ErrorVariance(around / spare, spare, misfit=chance < _CLAIMED, is_suspected=True)
        pooled = spare + self.degrees
        return ErrorVariance((around + self.squares) / pooled, pooled)


def judged(
    scatter: Scatter, least: Callable[[Scatter], float], parameters: int
) -> tuple[Scatter, ErrorVariance | None]:
    """The scatter with the weights that suit it, and the error around the curve fitted so.

    Groups count by their values as long as these are all that scatters. Where the groups scatter
    as well, a group of many values is hardly surer than one of few, and all count alike.

    Args:
        scatter: Weighted by its counts.
        least: Sum of squares around the curve that fits best, with a scatter's weights.
        parameters: Of the curve.
    """
    error = scatter.error(least(scatter), parameters)
    if error is None or not error.is_suspected or np.ptp(scatter.counts) == 0:
        return scatter, error
    even = replace(scatter, weights=_alike(scatter.counts))
    spare = len(scatter.groups) - parameters
    return even, replace(error, variance=least(even) / spare)


def _alike(counts: Array) -> Array:
    return np.full(len(counts), counts.mean())


def scatter_of(
    groups: Sequence[float], values: Array, seeds: Sequence[int | None] | None = None
) -> Scatter:
    """Split the scatter of values into that of groups, of seeds, and of what seeds share.

    Args:
        groups: The group of each value.
        values: As many.
        seeds: The seed of each value; None where it is not known.
    """
    labels, places = np.unique(np.asarray(groups, dtype=np.float64), return_inverse=True)
    counts = np.bincount(places).astype(np.float64)
    means = np.bincount(places, weights=values) / counts
    residuals = values - means[places]
    squares, degrees = float((residuals**2).sum()), len(values) - len(labels)
    weights = counts
    if len(set(zip(places.tolist(), values.tolist(), strict=True))) == len(labels):
        squares, degrees, seeds, weights = 0.0, 0, None, _alike(counts)
    paired = _paired(places, seeds, len(labels))
    order = np.arange(len(values)) if paired is None else np.argsort(paired, kind="stable")
    apart = tuple(residuals[order][places[order] == group] for group in range(len(labels)))
    alone = Scatter(
        labels, means, counts, weights, squares, degrees, 0.0, 0, apart, paired is not None
    )
    if paired is None:
        return alone
    num_seeds = int(paired.max()) + 1
    # two-way analysis of variance: a seed's mean residual is what its groups share
    by_seed = np.bincount(paired, weights=residuals) / len(labels)
    between = float(len(labels) * (by_seed**2).sum())
    own = degrees - (num_seeds - 1)
    within = max(squares - between, 0.0)
    excess = between / (num_seeds - 1) - within / own
    ratio = between / (num_seeds - 1) / (within / own) if within > 0 else math.inf
    chance = float(fdtrc(num_seeds - 1, own, ratio))  # pyright: ignore -- no types
    if excess <= 0 or chance >= _SHARES_SOMETHING:
        return alone
    shared = math.sqrt(excess / len(values))
    return replace(alone, squares=within, degrees=own, shared_stderr=shared, num_seeds=num_seeds)


def _paired(
    places: NDArray[np.intp], seeds: Sequence[int | None] | None, num_groups: int
) -> NDArray[np.intp] | None:
    """The place of each value's seed where every group has each seed once; else None."""
    if seeds is None or num_groups < 2 or any(seed is None for seed in seeds):
        return None
    known, order = np.unique(np.asarray(seeds), return_inverse=True)
    pairs = set(zip(places.tolist(), order.tolist(), strict=True))
    complete = len(pairs) == len(places) == num_groups * len(known)
    return order.astype(np.intp) if complete and len(known) > 1 else None
