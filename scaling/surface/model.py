"""A Gaussian process of the loss, fitted to trials: scales by evidence, cliffs, seeds, noise.

Rasmussen & Williams 2006 (Gaussian Processes for Machine Learning), ch. 2 and 5.4. Its prior is
that of `scaling.surface.covariance`.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular  # pyright: ignore -- scipy ships no types

from scaling.surface.covariance import Family, Parts, Scales, prior_covariance, prior_mean
from scaling.surface.space import Array, Coordinates, Labels

_DIVERGED_ABOVE, _MISSED_ABOVE, _LOST_SD = 1.5, 0.75, 1.0
"""Units above the worst excess seen over a cell's best at which a trial without a loss counts;
above what it took at least, where that is known; and how loosely both are meant."""
_JITTER, _DRAWN_JITTER = 1e-9, 1e-8
_NEGLIGIBLE = 5.0
"""Nats of evidence below the best scales at which others no longer count."""
_MOST_LOG_EXCESS = 50.0

_FACTORS: dict[str, tuple[float, ...]] = {
    "unit": (0.25, 0.5, 1, 2, 4, 8),
    "shape": (1 / 3, 1, 10 / 3),
    "effect": (0.3, 1, 3),
}
"""Values that are tried of other scales, over their prior medians."""
_LOG_SD = {"unit": 1.0, "noise": 1.5, "shape": 1.0, "local": 2.0, "effect": 1.0}
"""Of the lognormal prior of each scale."""
_OF_REPLICATES = (0.6, 0.8, 1, 1.3, 1.8)
"""Values of the noise that are tried, over the standard deviation of replicates."""
_OF_SEEDS = (0.0, 0.7, 2.0, 6.0)
"""Values of what a seed adds that are tried, all as likely."""


@dataclass(frozen=True)
class Replicates:
    """What runs of one recipe with several seeds say about a trial's noise.

    Attributes:
        sd: Standard deviation, in the loss's unit.
        degrees: Degrees of freedom behind it.
    """

    sd: float
    degrees: float


@dataclass(frozen=True)
class Process:
    """A Gaussian process with the trials taken into account.

    Attributes:
        family: Of its prior.
        scales: Of its prior.
        at: [n] where the trials lie.
        factor: [n, n] lower Cholesky factor of their covariance, noise included.
        whitened: [n] their losses less the prior mean, divided by `factor`.
        centre: What the losses are taken from, in units.
        evidence: Log marginal likelihood plus log prior of the scales.
    """

    family: Family
    scales: Scales
    at: Coordinates
    factor: Array
    whitened: Array
    centre: float
    evidence: float

    def mean(self, at: Coordinates) -> Array:
        """[m] expected loss; above a cell's best by more than a unit, see `Scales.unit`."""
        cross = prior_covariance(at, self.at, self.family, self.scales)
        return (
            cross @ self._weights + prior_mean(at, self.scales) + self.centre
        ) * self.scales.unit

    @cached_property
    def _weights(self) -> Array:
        return np.asarray(solve_triangular(self.factor.T, self.whitened))

    def covariance(self, at: Coordinates) -> Array:
        """[m, m] of the loss without noise, in its squared unit."""
        cross = prior_covariance(at, self.at, self.family, self.scales)
        solved = np.asarray(solve_triangular(self.factor, cross.T, lower=True))
        prior = prior_covariance(at, at, self.family, self.scales)
        return (prior - solved.T @ solved) * self.scales.unit**2

    def draws(self, cross: Array, prior: Array, expected: Array, noise: Array) -> Array:
        """[draws, m] surfaces at places.

        Args:
            cross: [m, n] prior covariance of the places and the trials, in units.
            prior: [m, m] that of the places; what is above the diagonal is not read.
            expected: [m] the prior mean there.
            noise: [m, draws] standard normal numbers.
        """
        solved = np.asarray(solve_triangular(self.factor, cross.T, lower=True))
        covariance = solved.T @ solved
        np.subtract(prior, covariance, out=covariance)
        covariance *= self.scales.unit**2
        mean = (cross @ self._weights + expected + self.centre) * self.scales.unit
        return (mean[:, None] + _root(covariance) @ noise).T

    def in_full(self, losses: Array, lowest: Array) -> Array:
        """Losses of this process with their whole excess; see `Scales.unit`.

        Args:
            losses: [..., n] as the process has them.
            lowest: [n] about the least loss of each one's cell.
        """
        excess = (losses - lowest) / self.scales.unit
        tall = np.exp(np.clip(excess - 1, 0.0, _MOST_LOG_EXCESS))
        return lowest + self.scales.unit * np.where(excess > 1, tall, excess)


@dataclass(frozen=True)
class Trials:
    """What a process is fitted to.

    Attributes:
        at: [n] where the trials lie.
        losses: [n] in any unit; NaN where a trial diverged.
        lowest: [n] about the least loss of each trial's cell.
        num_seeds: [n] runs that each loss is the mean of.
        replicates: What those say of the noise; None where each is a single run.
        cells: [n] the cell of each trial.
        seeds: [n] the seed of each trial; None where all trials have the same ones.
        at_least: [n] what a trial without a loss took at least; NaN where nothing is known.
    """

    at: Coordinates
    losses: Array
    lowest: Array
    num_seeds: Array
    replicates: Replicates | None = None
    cells: Labels | None = None
    seeds: Labels | None = None
    at_least: Array | None = None

    @cached_property
    def alike(self) -> Array:
        """[n, n] 1 where two trials have the same seed, 2 where they also have the same cell."""
        assert self.seeds is not None
        assert self.cells is not None
        same_seed = self.seeds[:, None] == self.seeds[None]
        same_cell = self.cells[:, None] == self.cells[None]
        return same_seed * (1.0 + same_cell)

    @cached_property
    def prior(self) -> Scales:
        """The prior medians of the scales, and a value of the seeds' part to start from."""
        seed = 0.0 if self.seeds is None else _OF_SEEDS[2]
        excess = self.losses - self.lowest
        above = excess[np.isfinite(excess) & (excess > 0)]
        unit = float(np.median(above)) if len(above) else 1.0
        if self.replicates is None:
            return Scales(unit, seed=seed)
        return Scales(unit, noise=self.replicates.sd / unit, seed=seed)


def draw(processes: Sequence[Process], at: Coordinates, noises: Sequence[Array]) -> list[Array]:
    """[draws, m] surfaces at places, of each of the processes of one fit.

    Paths of one slope share most of their covariances, so their processes are drawn together.

    Args:
        processes: Of one fit.
        at: m places.
        noises: [m, draws] standard normal numbers, for each process.
    """
    found: dict[int, Array] = {}
    cross = prior = None
    for slope in dict.fromkeys(process.scales.slope for process in processes):
        own = [place for place, one in enumerate(processes) if one.scales.slope == slope]
        first = processes[own[0]]
        cross = Parts.between(at, first.at, first.family, slope, known=cross)
        prior = Parts.between(at, at, first.family, slope, is_lower=True, known=prior)
        expected = prior_mean(at, first.scales)
        for place in own:
            scales = processes[place].scales
            covariances = cross.covariance(scales), prior.covariance(scales)
            found[place] = processes[place].draws(*covariances, expected, noises[place])
    return [found[place] for place in range(len(processes))]


def _root(covariance: Array) -> Array:
    """A lower Cholesky factor; smooth covariances are singular but for rounding.

    What is above the diagonal is not read. The diagonal is changed.
    """
    own = np.diag(covariance).copy()
    jitter = _DRAWN_JITTER * float(own.max())
    while True:
        np.fill_diagonal(covariance, own + jitter)
        try:
            return np.asarray(np.linalg.cholesky(covariance), dtype=np.float64)
        except np.linalg.LinAlgError:
            jitter *= 10


def fit(trials: Trials, family: Family) -> list[Process]:
    """The processes whose scales have the highest evidence, the best one first.

    Unit, noise and residual depend on each other and are varied together, then path and shape,
    then unit and noise again; with several seeds their part too, and then all once more. All that
    came close on the way are kept, so that draws can tell how little the data say of them.
    """
    prior = trials.prior
    effect = ("effect",) if trials.at.numbers.shape[1] + trials.at.labels.shape[1] else ()
    shape = ("shape",) if family.has_shapes else ()
    tried: set[Scales] = set()

    @cache
    def parts(slope: float) -> Parts:
        return Parts.between(trials.at, trials.at, family, slope, is_lower=True)

    @cache
    def covariance(shapes: Scales) -> Array:
        return parts(shapes.slope).covariance(shapes)

    @cache
    def counted(unit: float) -> _Counted:
        return _counted(trials, unit)

    def process(scales: Scales) -> Process:
        tried.add(scales)
        alike = covariance(replace(scales, unit=1.0, noise=0.0, seed=0.0))
        return _with_scales(trials, family, scales, alike, counted(scales.unit))

    groups = [("unit", "noise", "local"), ("slope", *shape, *effect), ("unit", "noise")]
    if trials.seeds is not None:
        groups = [*groups[:2], ("unit", "noise", "seed"), *groups[:2]]
    best = process(prior)
    close = [best]
    for names in groups:
        lists = [_values(name, family, prior, trials.replicates) for name in names]
        for values in itertools.product(*lists):
            changes = dict(zip(names, values, strict=True))
            if trials.replicates is not None and "noise" in changes:
                changes["noise"] *= prior.unit / changes["unit"]  # one noise in the loss's unit
            scales = replace(best.scales, **changes)
            if scales in tried:
                continue
            found = process(scales)
            best = max(best, found, key=lambda process: process.evidence)
            if found.evidence > best.evidence - _NEGLIGIBLE:
                close.append(found)
    close = [found for found in close if found.evidence > best.evidence - _NEGLIGIBLE]
    return sorted(close, key=lambda found: -found.evidence)[: family.num_processes]


def _values(
    name: str, family: Family, prior: Scales, replicates: Replicates | None
) -> Sequence[float]:
    if name == "slope":
        return family.slopes
    if name == "seed":
        return _OF_SEEDS
    if name == "noise" and replicates is not None:
        return [prior.noise * factor for factor in _OF_REPLICATES]
    factors = {"noise": family.noises, "local": family.locals} | _FACTORS
    return [float(getattr(prior, name)) * factor for factor in factors[name]]


@dataclass(frozen=True)
class _Counted:
    """The losses of the trials in some unit, high ones by their logarithm.

    `spread` is what the noise near the cliff grows with, and `log_slopes` the log density of the
    losses in their own unit over that of `losses`.
    """

    known: NDArray[np.bool_]
    losses: Array
    spread: Array
    centre: float
    log_slopes: float


def _counted(trials: Trials, unit: float) -> _Counted:
    excess, counted = _by_logarithm(trials.losses, trials.lowest, unit)
    tall = np.maximum(excess, 1.0)
    known = np.isfinite(counted)
    log_slopes = -float(np.log(tall[known]).sum()) - int(known.sum()) * math.log(unit)
    depth = trials.lowest / unit
    worst = float((counted - depth)[known].max()) if known.any() else 0.0
    lost = depth + worst + _DIVERGED_ABOVE
    if trials.at_least is not None:
        least = _by_logarithm(trials.at_least, trials.lowest, unit)[1] + _MISSED_ABOVE
        lost = np.where(np.isfinite(least), least, lost)
    counted = np.where(known, counted, lost)
    spread = np.maximum(np.where(known, excess, 0.0) - 0.5, 0.0)
    spread = np.where(spread > 0.5, 0.5 + np.log(np.maximum(spread + 0.5, 1.0)), spread)
    return _Counted(known, counted, spread, float(np.median(counted)), log_slopes)


def _by_logarithm(losses: Array, lowest: Array, unit: float) -> tuple[Array, Array]:
    """[n] and [n] the excess over `lowest`, and the losses with it counted, both in units."""
    excess = (losses - lowest) / unit
    tall = np.where(excess > 1, 1 + np.log(np.maximum(excess, 1.0)), excess)
    return excess, lowest / unit + tall


def _with_scales(
    trials: Trials, family: Family, scales: Scales, covariance: Array, counted: _Counted
) -> Process:
    noise = scales.noise**2 / trials.num_seeds + (family.cliff_noise * counted.spread) ** 2
    variance = np.where(counted.known, noise, _LOST_SD**2) + _JITTER
    total = covariance.copy()
    total.flat[:: len(total) + 1] += variance
    if scales.seed > 0:
        total += (scales.seed * scales.noise) ** 2 * trials.alike
    factor = np.asarray(np.linalg.cholesky(total), dtype=np.float64)
    residual = counted.losses - counted.centre - prior_mean(trials.at, scales)
    solved = solve_triangular(factor, residual, lower=True, check_finite=False)
    whitened = np.asarray(solved)
    likelihood = -0.5 * float(whitened @ whitened) - float(np.log(np.diag(factor)).sum())
    evidence = likelihood + counted.log_slopes + _log_prior(scales, trials)
    return Process(family, scales, trials.at, factor, whitened, counted.centre, evidence)


def _log_prior(scales: Scales, trials: Trials) -> float:
    total, prior, replicates = 0.0, trials.prior, trials.replicates
    for name, sd in _LOG_SD.items():
        if name == "noise" and replicates is not None:
            ratio = (replicates.sd / (scales.noise * scales.unit)) ** 2
            total += replicates.degrees / 2 * (math.log(ratio) - ratio)
        else:
            total -= 0.5 * (math.log(getattr(scales, name) / getattr(prior, name)) / sd) ** 2
    return total
