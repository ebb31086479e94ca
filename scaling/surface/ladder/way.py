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
prequential approach): the back-test decides how far the bottom may stray from its line. Rate and
batch have as likely as not one form together, so that what one of them shows counts for both.

Kriging with a linear variogram: Matheron 1963; Stein 1999, Interpolation of spatial data, ch. 1.
Brownian fields over several axes: Lévy 1948. Constants are priors, given in docs/statistics.md.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scaling.surface.space import Array, Labels

_INTERCEPT_SD = 4.0
"""Octaves about the middle of what was tried."""
_BEND_SD = 0.012
"""Octaves for each squared octave of compute: over ten octaves an exponent changes by 0.24."""
_WALK, _SCATTER, _LOG_SD = 0.015, 0.02, 1.2
"""Medians in octaves of the lognormal priors of walk and scatter, and their standard deviation."""
_ALIKE = 0.5
"""Prior probability that rate and batch have the same form; else each has its own."""
_SAME = 1e-9
"""Octaves between two sizes that are one."""


@dataclass(frozen=True)
class Output:
    """What is known beforehand of one coordinate of the bottom.

    Attributes:
        slope: Prior mean of the exponent of each of a size's numbers.
        slope_sd: Its prior standard deviation.
    """

    slope: float
    slope_sd: float


OUTPUTS = (Output(slope=0.0, slope_sd=0.6), Output(slope=0.2, slope_sd=0.5))
"""Log rate and log batch."""


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
        are_sizes: Whether they are bottoms of sizes, each with its scatter.
        are_new: Whether a size that was run has another scatter than in its runs.
    """

    rows: Array
    places: Array
    are_sizes: bool
    are_new: bool = False


def bottoms_at(scale: Array, *, are_new: bool = False) -> Targets:
    """The bottom's coordinate at some sizes, [m, axes] octaves above the middle."""
    compute = scale.sum(axis=1, keepdims=True)
    rows = np.concatenate([np.ones_like(compute), scale, compute**2], axis=1)
    return Targets(rows, scale, are_sizes=True, are_new=are_new)


def slopes_at(place: Array) -> Targets:
    """Its local exponents of each of the size's numbers, at one size [axes]."""
    axes = len(place)
    bend = np.full((axes, 1), 2 * place.sum())
    rows = np.concatenate([np.zeros((axes, 1)), np.eye(axes), bend], axis=1)
    return Targets(rows, np.zeros((axes, axes)), are_sizes=False)


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


def covariance_of(targets: Targets, output: Output, form: Form) -> Array:
    """[m, m] of the functionals, with the scatter that sizes have."""
    own = form.scatter**2 if targets.are_sizes else 0.0
    return prior_covariance(targets, targets, output, form) + own * np.eye(len(targets.rows))


def _brownian(one: Array, other: Array) -> Array:
    """Covariance of Lévy's Brownian field that is 0 at the origin."""
    apart = np.linalg.norm(one[:, None] - other[None], axis=2)
    return 0.5 * (np.linalg.norm(one, axis=1)[:, None] + np.linalg.norm(other, axis=1) - apart)


@dataclass(frozen=True)
class Members:
    """Every pair of forms, of the rate's way and of the batch's, with the bottoms that follow.

    Attributes:
        first: [members] place in `FORMS` of the rate's.
        second: [members] of the batch's.
        weights: [members] by evidence; they sum to 1.
        means: [members, 2 · sizes] bottoms less their prior mean: all rates', then all batches'.
        roots: [members, 2 · sizes, 2 · sizes] R, where Rᵀ R is the covariance of these.
    """

    first: Labels
    second: Labels
    weights: Array
    means: Array
    roots: Array


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
    def _priors(self) -> list[Array]:
        """For the rate and for the batch, [forms, sizes, sizes] of the bottoms under each form."""
        return [
            np.stack([covariance_of(self._sizes, output, form) for form in FORMS])
            for output in OUTPUTS
        ]

    @cached_property
    def members(self) -> Members:
        """All pairs of forms."""
        bottoms, count = self._bottoms, len(self._bottoms.scale)
        pull = bottoms.information - bottoms.precision @ self._prior_mean(self._sizes)
        rate, batch = (np.linalg.cholesky(prior) for prior in self._priors)
        evidence = _log_prior()
        means, roots = list[Array](), list[Array]()
        for place, root_rate in enumerate(rate):
            root = np.zeros((len(FORMS), 2 * count, 2 * count))
            root[:, :count, :count] = root_rate
            root[:, count:, count:] = batch
            across = root.transpose(0, 2, 1)
            factor = np.linalg.cholesky(across @ bottoms.precision @ root + np.eye(2 * count))
            solved = np.linalg.solve(factor, across)
            whitened = solved @ pull
            evidence[place] += 0.5 * (whitened**2).sum(axis=1)
            evidence[place] -= np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
            means.append((whitened[:, None] @ solved)[:, 0])
            roots.append(np.asarray(solved, dtype=np.float64))
        weights = np.exp(evidence - evidence.max()).ravel()
        first, second = (part.ravel() for part in np.indices(evidence.shape))
        return Members(
            first, second, weights / weights.sum(), np.concatenate(means), np.concatenate(roots)
        )

    @property
    def likeliest(self) -> tuple[Form, Form]:
        """The forms of the best rate and of the best batch that have the most evidence."""
        best = int(self.members.weights.argmax())
        return FORMS[self.members.first[best]], FORMS[self.members.second[best]]

    def expected(self, targets: Targets) -> Array:
        """[m, 2] means for the rate and for the batch."""
        members = self.members
        loads, _ = self._given(targets, np.arange(len(members.weights)))
        above = members.weights @ (loads @ members.means[:, :, None])[:, :, 0]
        return (self._prior_mean(targets) + above).reshape(2, -1).T

    def draws(self, targets: Targets, num_draws: int, rng: np.random.Generator) -> Array:
        """[num_draws, m, 2] the functionals for the rate and for the batch."""
        members = self.members
        counts = rng.multinomial(num_draws, members.weights)
        drawn = np.flatnonzero(counts)
        loads, own = self._given(targets, drawn)
        spread = members.roots[drawn] @ loads.transpose(0, 2, 1)
        root = root_of(own + spread.transpose(0, 2, 1) @ spread)
        mean = self._prior_mean(targets) + (loads @ members.means[drawn][:, :, None])[:, :, 0]
        each = np.repeat(np.arange(len(drawn)), counts[drawn])
        noise = rng.standard_normal((num_draws, mean.shape[1], 1))
        found = mean[each] + (root[each] @ noise)[:, :, 0]
        return found.reshape(num_draws, 2, -1).transpose(0, 2, 1)

    def _prior_mean(self, targets: Targets) -> Array:
        pairs = zip(OUTPUTS, self._bottoms.middles, strict=True)
        return np.concatenate([prior_mean(targets, output, middle) for output, middle in pairs])

    def _given(self, targets: Targets, members: Labels) -> tuple[Array, Array]:
        """[members, 2m, 2 · sizes] how functionals depend on the bottoms; their covariance then."""
        count, num = len(self._bottoms.scale), len(targets.rows)
        loads = np.zeros((len(members), 2 * num, 2 * count))
        own = np.zeros((len(members), 2 * num, 2 * num))
        chosen = self.members.first[members], self.members.second[members]
        for place, (output, forms) in enumerate(zip(OUTPUTS, chosen, strict=True)):
            here = slice(place * num, (place + 1) * num)
            sizes = slice(place * count, (place + 1) * count)
            cross = np.stack([self._cross(targets, output, form) for form in FORMS])
            solved = np.linalg.solve(self._priors[place], cross.transpose(0, 2, 1))
            load = solved.transpose(0, 2, 1)
            before = np.stack([covariance_of(targets, output, form) for form in FORMS])
            left = before - load @ cross.transpose(0, 2, 1)
            loads[:, here, sizes], own[:, here, here] = load[forms], left[forms]
        return loads, own

    def _cross(self, targets: Targets, output: Output, form: Form) -> Array:
        """[m, sizes] covariance with the bottoms; a size that was run has its own scatter."""
        cross = prior_covariance(targets, self._sizes, output, form)
        if targets.are_sizes and not targets.are_new:
            apart = np.linalg.norm(targets.places[:, None] - self._sizes.places, axis=2)
            cross += form.scatter**2 * (apart < _SAME)
        return cross


def root_of(covariance: Array) -> Array:
    """[..., n, n] R with R Rᵀ the covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]


def _log_prior() -> Array:
    """[forms, forms] of a form for the rate and one for the batch."""
    walk = np.log([form.walk / _WALK for form in FORMS])
    scatter = np.log([form.scatter / _SCATTER for form in FORMS])
    one = np.exp(-0.5 * (walk**2 + scatter**2) / _LOG_SD**2)
    one /= one.sum()
    return np.log(_ALIKE * np.diag(one) + (1 - _ALIKE) * one[:, None] * one)
