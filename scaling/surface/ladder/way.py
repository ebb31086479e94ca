"""The way of the bottom: how a ladder's best rate and batch move with the size.

With s the octaves of a size's numbers above the ladder's middle and c = Σ s those of compute, each
of log best rate and log best batch is

    intercept + slopes · s + bend · c² + walk(s) + scatter,

where the bend is 0 in the straight form, `walk` is a Brownian field (its variance between two
sizes grows in proportion to their distance) and `scatter` is independent from size to size. The
walk is what no fit of a line can know: outside the sizes a prediction's variance grows with the
distance from them. Everything is normal given the form and the sizes of walk and scatter; those
are averaged over by their evidence. That evidence is, by the chain rule, the product of the
densities with which smaller sizes predict each next one (Dawid 1984, Statistical theory: the
prequential approach): the back-test decides how far the bottom may stray from its line.

Kriging with a linear variogram: Matheron 1963; Stein 1999, Interpolation of spatial data, ch. 1.
Brownian fields over several axes: Lévy 1948. Constants are priors, given in docs/statistics.md.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scaling.surface.space import Array

_INTERCEPT_SD = 4.0
"""Octaves about the middle of what was tried."""
_BEND_SD = 0.012
"""Octaves for each squared octave of compute: over ten octaves an exponent changes by 0.24."""
_LOG_SD = 1.2
"""Of the lognormal priors of walk and scatter."""
_NEGLIGIBLE, _MOST_MEMBERS = 7.0, 80
"""Nats below the best member at which others no longer count, and how many count at most."""


@dataclass(frozen=True)
class Output:
    """What is known beforehand of one coordinate of the bottom.

    Attributes:
        slope: Prior mean of the exponent of each of a size's numbers.
        slope_sd: Its prior standard deviation.
        walk: Prior median of the walk, in octaves at one octave's distance.
        scatter: Prior median of the scatter, in octaves.
    """

    slope: float
    slope_sd: float
    walk: float
    scatter: float


RATE = Output(slope=0.0, slope_sd=0.6, walk=0.03, scatter=0.03)
BATCH = Output(slope=0.2, slope_sd=0.5, walk=0.04, scatter=0.04)
OUTPUTS = (RATE, BATCH)


@dataclass(frozen=True)
class Form:
    """One form of the way in one coordinate.

    Attributes:
        is_bent: Whether it is a parabola in log compute, and not a line.
        walk: Standard deviation of the walk between sizes an octave apart, in octaves.
        scatter: Of the independent part, in octaves.
    """

    is_bent: bool
    walk: float
    scatter: float


WALKS = (0.004, 0.015, 0.04, 0.1, 0.25)
SCATTERS = (0.004, 0.02, 0.06, 0.15, 0.35)
FORMS = tuple(itertools.starmap(Form, itertools.product((False, True), WALKS, SCATTERS)))


@dataclass(frozen=True)
class Targets:
    """Linear functionals of the way.

    Attributes:
        rows: [m, axes + 2] of intercept, slopes and bend.
        places: [m, axes] where the walk is taken; at 0 it is 0.
    """

    rows: Array
    places: Array


def bottoms_at(scale: Array) -> Targets:
    """The bottom's coordinate at some sizes, [m, axes] octaves above the middle."""
    compute = scale.sum(axis=1, keepdims=True)
    return Targets(np.concatenate([np.ones_like(compute), scale, compute**2], axis=1), scale)


def slopes_at(place: Array) -> Targets:
    """Its local exponents of each of the size's numbers, at one size [axes]."""
    axes = len(place)
    bend = np.full((axes, 1), 2 * place.sum())
    rows = np.concatenate([np.zeros((axes, 1)), np.eye(axes), bend], axis=1)
    return Targets(rows, np.zeros((axes, axes)))


def prior_mean(targets: Targets, output: Output, middle: float) -> Array:
    """[m] before any run; `middle` is the mean of what was tried."""
    axes = targets.places.shape[1]
    return targets.rows @ np.array([middle, *[output.slope] * axes, 0.0])


def prior_covariance(one: Targets, other: Targets, output: Output, form: Form) -> Array:
    """[len(one), len(other)] without scatter."""
    axes = one.places.shape[1]
    bend = _BEND_SD if form.is_bent else 0.0
    sd = np.array([_INTERCEPT_SD, *[output.slope_sd] * axes, bend])
    return (one.rows * sd**2) @ other.rows.T + form.walk**2 * _brownian(one.places, other.places)


def sizes_covariance(sizes: Targets, output: Output, form: Form) -> Array:
    """[sizes, sizes] of the bottoms themselves, scatter included."""
    own = form.scatter**2 * np.eye(len(sizes.rows))
    return prior_covariance(sizes, sizes, output, form) + own


def _brownian(one: Array, other: Array) -> Array:
    """Covariance of Lévy's Brownian field that is 0 at the origin."""
    apart = np.linalg.norm(one[:, None] - other[None], axis=2)
    return 0.5 * (np.linalg.norm(one, axis=1)[:, None] + np.linalg.norm(other, axis=1) - apart)


@dataclass(frozen=True)
class Member:
    """One form for each coordinate, with the bottoms that follow.

    Attributes:
        forms: Of the rate's way and of the batch's.
        weight: By evidence; those of all members sum to 1.
        mean: [2 · sizes] bottoms less their prior mean: all rates', then all batches'.
        covariance: [2 · sizes, 2 · sizes] of these.
    """

    forms: tuple[Form, Form]
    weight: float
    mean: Array
    covariance: Array


@dataclass(frozen=True)
class Bottoms:
    """What the runs say of each size's bottom, whatever the way: a normal likelihood.

    Attributes:
        scale: [sizes, axes] octaves above the ladder's middle.
        precision: [2 · sizes, 2 · sizes] of all sizes' log rates, then of all their log batches.
        information: [2 · sizes] precision times the likeliest bottoms.
        middles: The means of log rate and log batch over what was tried.
    """

    scale: Array
    precision: Array
    information: Array
    middles: tuple[float, float]


class Way:
    """The way of the bottom given what the runs say of each size's."""

    def __init__(self, bottoms: Bottoms) -> None:
        self._bottoms = bottoms
        self._sizes = bottoms_at(bottoms.scale)

    @cached_property
    def members(self) -> list[Member]:
        """All combinations of forms that count, the best one first."""
        bottoms, count = self._bottoms, len(self._bottoms.scale)
        mean = self._prior_mean(self._sizes)
        pull = bottoms.information - bottoms.precision @ mean
        rate, batch = (
            np.linalg.cholesky(
                np.stack([sizes_covariance(self._sizes, output, form) for form in FORMS])
            )
            for output in OUTPUTS
        )
        penalty = np.array([_log_prior(output, form) for output in OUTPUTS for form in FORMS])
        penalties = penalty[: len(FORMS), None] + penalty[len(FORMS) :]
        found: list[tuple[float, int, int, Array, Array]] = []
        for first, root_rate in enumerate(rate):
            root = np.zeros((len(FORMS), 2 * count, 2 * count))
            root[:, :count, :count] = root_rate
            root[:, count:, count:] = batch
            inner = root.transpose(0, 2, 1) @ bottoms.precision @ root + np.eye(2 * count)
            factor = np.linalg.cholesky(inner)
            solved = np.linalg.solve(factor, root.transpose(0, 2, 1))
            whitened = solved @ pull
            evidence = 0.5 * (whitened**2).sum(axis=1) + penalties[first]
            evidence -= np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
            found += [
                (float(evidence[n]), first, n, whitened[n], solved[n]) for n in range(len(FORMS))
            ]
        found.sort(key=lambda entry: -entry[0])
        kept = [entry for entry in found if entry[0] > found[0][0] - _NEGLIGIBLE][:_MOST_MEMBERS]
        total = sum(np.exp(entry[0] - found[0][0]) for entry in kept)
        return [
            Member(
                (FORMS[first], FORMS[second]),
                float(np.exp(evidence - found[0][0]) / total),
                solved.T @ whitened,
                solved.T @ solved,
            )
            for evidence, first, second, whitened, solved in kept
        ]

    def expected(self, targets: Targets) -> Array:
        """[m, 2] means for the rate and for the batch."""
        parts = [member.weight * self._given(member, targets)[0] for member in self.members]
        return np.sum(parts, axis=0).reshape(2, -1).T

    def draws(self, targets: Targets, num_draws: int, rng: np.random.Generator) -> Array:
        """[num_draws, m, 2] the functionals for the rate and for the batch."""
        weights = [member.weight for member in self.members]
        counts = rng.multinomial(num_draws, weights)
        drawn: list[Array] = []
        for member, count in zip(self.members, counts, strict=True):
            if count:
                mean, covariance = self._given(member, targets)
                values, vectors = np.linalg.eigh(covariance)
                root = vectors * np.sqrt(np.maximum(values, 0.0))
                drawn.append(mean + rng.standard_normal((count, len(mean))) @ root.T)
        return np.concatenate(drawn).reshape(num_draws, 2, -1).transpose(0, 2, 1)

    def _prior_mean(self, targets: Targets) -> Array:
        pairs = zip(OUTPUTS, self._bottoms.middles, strict=True)
        return np.concatenate([prior_mean(targets, output, middle) for output, middle in pairs])

    def _given(self, member: Member, targets: Targets) -> tuple[Array, Array]:
        """[2m] mean and [2m, 2m] covariance of the functionals under one member."""
        count, num = len(self._bottoms.scale), len(targets.rows)
        weights, own = np.zeros((2 * num, 2 * count)), np.zeros((2 * num, 2 * num))
        for place, (output, form) in enumerate(zip(OUTPUTS, member.forms, strict=True)):
            here = slice(place * num, (place + 1) * num)
            sizes = slice(place * count, (place + 1) * count)
            cross = prior_covariance(targets, self._sizes, output, form)
            known = sizes_covariance(self._sizes, output, form)
            weights[here, sizes] = np.linalg.solve(known, cross.T).T
            own[here, here] = (
                prior_covariance(targets, targets, output, form) - weights[here, sizes] @ cross.T
            )
        mean = self._prior_mean(targets) + weights @ member.mean
        return mean, own + weights @ member.covariance @ weights.T


def _log_prior(output: Output, form: Form) -> float:
    walk, scatter = np.log(form.walk / output.walk), np.log(form.scatter / output.scatter)
    return float(-0.5 * (walk**2 + scatter**2) / _LOG_SD**2)
