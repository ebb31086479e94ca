"""How the best learning rate moves with the batch: a power, a surge, and the evidence for each.

Every cell's profile (see `basin`) says how much worse its losses fit when its optimum is moved.
A law that ties the optima of all cells has the sum of the profiles along it, so a cell whose
optimum is badly known, or known on one side only, counts for as much as it says.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import stdtr  # pyright: ignore -- scipy ships no types

from scaling.analysis.learning_rate.basins import Array, Basin, Basins
from scaling.analysis.learning_rate.curves import LrCurve, basins_of
from scaling.analysis.learning_rate.parabola import least_over_ratios
from scaling.analysis.statistics.uncertainty import (
    ABSENT,
    Estimate,
    Interval,
    SeedVariance,
    holm,
    t_quantile,
)

REFERENCE_EXPONENTS = (0.0, 0.5, 1.0)
"""No move, the square root (Malladi et al. 2022), linear (Goyal et al. 2017)."""
FAIRLY_STRONG, STRONG = 8.0, 32.0
"""Likelihood ratios, Royall 1997, Statistical evidence, sec. 1.6."""
FEWEST_FOR_INTERVAL = 3
"""Batch sizes that an interval of the exponent needs."""
FEWEST_FOR_SURGE = 5
"""Batch sizes that the law that turns needs."""
_EXPONENTS = (-2.5, 3.5)
_SURGE_REACH = 64.0
_PLACES = 33
_ZOOMS = 5
_LEVELS = (49, 13, 13, 13)
_FEWEST_RATES = 3
_MUCH_SCATTER = 2.0
"""Times the noise's variance from which on a law counts as not fitting."""
_BEYOND_CLIFF = 400.0
"""Squares, in units of the noise, for an optimum where trials diverge."""


Strength = Literal["strong", "fairly_strong", "not_strong"]
NoSurge = Literal["no_power", "few_batch_sizes", "turn_outside", "not_by_surface"]
"""No power to set it against; fewer than FEWEST_FOR_SURGE batch sizes; a turn that is not among
those tried; an exponent that is read from the surface, whose `turns` says the like."""
NoTurn = Literal["no_surface", "few_batch_sizes", "best_at_edge", "hardly_any"]
"""No surface through the best rates; fewer than four batch sizes; most drawn paths leave the rates
tried; hardly any turns."""
NoExponent = Literal[
    "cells_differ_otherwise", "no_rates_searched", "few_points", "best_at_edge",
    "law_does_not_fit", "too_noisy",
]  # fmt: skip
"""Cells that differ in more than the batch size; fewer than three rates in every cell; too few
batch sizes or rates; too few cells with their best rate inside the rates tried; best rates that
scatter about a power, or basins about a shape, by more than noise; losses too noisy to bound it."""


@dataclass(frozen=True)
class Evidence:
    """What the data say about one reference exponent.

    Attributes:
        exponent: 0, ½ or 1.
        p_value: Two-sided, of Student's t of the distance from the fitted exponent.
        p_value_holm: The same, for three such tests together (Holm 1979).
        likelihood_ratio: How many times likelier the data are under the fitted exponent than
            under this one; never below 1.
        is_bound: Whether that is the least that it is, and the p-values the most that they are,
            since no draw of the surface is so far away.
    """

    exponent: float
    p_value: float
    p_value_holm: float
    likelihood_ratio: float
    is_bound: bool = False

    @property
    def strength(self) -> Strength:
        """How strongly the likelihood ratio speaks against the exponent."""
        if self.likelihood_ratio >= STRONG:
            return "strong"
        return "fairly_strong" if self.likelihood_ratio >= FAIRLY_STRONG else "not_strong"


@dataclass(frozen=True)
class Surge:
    """The best rate rises with the square root of the batch, turns, and falls again.

    Attributes:
        noise_batch: The batch at which the best rate is highest (B_n), in examples.
        peak_lr: The best rate there (η_max).
        over_power: How many times likelier the data are under it than under a power of the
            batch; both have two parameters. None where they cannot be compared.
        preferred: True where that is at least FAIRLY_STRONG and the turn is inside the batches.
        missing: Why something is missing; None when nothing is.
    """

    noise_batch: Estimate = ABSENT
    peak_lr: float | None = None
    over_power: float | None = None
    preferred: bool = False
    num_batch_sizes: int = 0
    missing: NoSurge | None = "no_power"


@dataclass(frozen=True)
class BestRate:
    """The best rate of one batch size; an end of its interval may be infinite."""

    global_batch_size: int
    peak_lr: float | None
    interval: Interval | None


@dataclass(frozen=True)
class Turn:
    """The path of best rates rises up to a batch size and then stays or falls.

    Attributes:
        at: That batch size; None where hardly any drawn path turns.
        interval: Of it, over the drawn paths that turn.
        probability: Share of them; None where the surface does not tell.
        missing: Why something is missing; None when nothing is.
        falls: Whether most of the drawn paths that turn fall beyond it.
    """

    at: float | None = None
    interval: Interval | None = None
    probability: float | None = None
    missing: NoTurn | None = "no_surface"
    falls: bool = False


@dataclass(frozen=True)
class LrScaling:
    """best rate ∝ global_batch_size^exponent.

    Attributes:
        exponent: Over the cells whose optimum lies inside the rates tried.
        batch_sizes: Of those cells.
        missing: Why the exponent or its interval is missing; None when neither is.
        evidence: One entry for each reference exponent; empty without an interval.
        surge: The law that turns, beside the power.
        scatter: How many times the optima scatter about the power, in variance, over what the
            noise of the trials explains; near 1 when a power is enough. None where unknown.
        middle: (batch, best rate) on the fitted power, at the geometric mean of the batches.
        has_common_shape: False where no shape of the basin fits all cells, so that the best rates
            are bounded by clear rises instead.
        is_shape_checked: Whether there were replicates to refuse the common shape; without them
            residuals of neighbouring rates alone can.
        from_surface: Whether the exponent is read from draws of the surface.
        turns: Where the path of best rates stops rising, by the surface.
    """

    exponent: Estimate
    batch_sizes: tuple[int, ...] = ()
    missing: NoExponent | None = None
    evidence: tuple[Evidence, ...] = ()
    surge: Surge = Surge()
    scatter: float | None = None
    middle: tuple[float, float] | None = None
    has_common_shape: bool = True
    is_shape_checked: bool = False
    from_surface: bool = False
    path: tuple[BestRate, ...] = ()
    turns: Turn = Turn()


@dataclass(frozen=True)
class _Law:
    """A family of laws with one parameter besides the level, tied to the cells' profiles.

    `shift` is the log of the best rate in each cell, up to the level, at a parameter.
    """

    shift: Callable[[float], Array]
    low: float
    high: float
    basins: Basins
    cells: Sequence[Basin]

    def along(self, parameters: Array) -> tuple[Array, Array]:
        """Least sum of squares over level and asymmetry at each parameter, and that level."""
        shifts = np.array([self.shift(float(value)) for value in parameters])
        lows = np.array([cell.grid[0] for cell in self.cells])
        highs = np.array([cell.grid[-1] for cell in self.cells])
        low, high = (lows - shifts).min(axis=1), (highs - shifts).max(axis=1)
        squares, levels = np.zeros(len(shifts)), np.zeros(len(shifts))
        rows = np.arange(len(shifts))
        for places in _LEVELS:
            tried = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, places)
            heights = self._at(shifts, tried)
            best = np.argmin(heights, axis=1)
            squares, levels = heights[rows, best], tried[rows, best]
            step = (high - low) / (places - 1)
            low, high = levels - step, levels + step
        return squares, levels

    def _at(self, shifts: Array, levels: Array) -> Array:
        steep = _BEYOND_CLIFF * (self.basins.variance or 0.0)
        sums = [
            sum(
                cell.at(levels + shifts[:, i, None], ratio, steep)
                for i, cell in enumerate(self.cells)
            )
            for ratio in range(len(self.basins.ratios))
        ]
        return least_over_ratios(np.array(sums))


@dataclass(frozen=True)
class _Fit:
    """A law at its best."""

    law: _Law
    value: float
    level: float
    squares: float

    def above(self, parameter: float) -> float:
        """Squares at a parameter above the least."""
        return max(float(self.law.along(np.array([parameter]))[0][0]) - self.squares, 0.0)


@dataclass(frozen=True)
class _Scale:
    """What squares are measured in: the noise, with what it leaves unexplained."""

    variance: float
    degrees: float
    scatter: float


def lr_scaling(
    batch_sizes: Sequence[int], curves: Sequence[LrCurve], noise: SeedVariance | None = None
) -> LrScaling:
    """The law of the best rate over batch sizes.

    The exponent is where the sum of the cells' profiles is least. Its interval is where that sum
    stays within t² times the variance of the noise (Bates & Watts 1988, sec. 6.1). Where the
    optima scatter about the power by more than the noise explains, the variance is multiplied
    by that much (Birge 1932) and the degrees of freedom are those of the sum (Satterthwaite
    1946), hardly more than batch sizes − 2 where the scatter is large.

    Args:
        batch_sizes: Examples per step, one a cell whose optimum is inside the rates tried.
        curves: Of each.
        noise: Of a trial's loss by replicates, where there are any.

    Returns:
        No value with fewer than two batch sizes; no interval with fewer than three, without
        spare trials, or when the data bound the exponent on one side alone.
    """
    sizes = tuple(batch_sizes)
    basins = basins_of(curves, noise)
    cells = [cell for cell in basins.cells if cell is not None]
    if len(set(sizes)) < 2 or len(cells) < len(sizes):
        return LrScaling(Estimate(count=len(sizes)), sizes)
    logs = np.log(np.array(sizes, dtype=np.float64))
    centred = logs - logs.mean()
    fit = _fit(_Law(lambda p: p * centred, *_EXPONENTS, basins, cells))
    middle = (math.exp(float(logs.mean())), math.exp(fit.level))
    scale = _scale(fit)
    law = LrScaling(
        Estimate(fit.value, None, len(sizes)),
        sizes,
        middle=middle,
        has_common_shape=basins.is_shared,
        is_shape_checked=noise is not None,
    )
    if scale is None or len(set(sizes)) < FEWEST_FOR_INTERVAL:
        return law
    interval = _interval(fit, scale)
    return replace(
        law,
        exponent=replace(law.exponent, interval=interval),
        evidence=_evidence(fit, scale) if interval else (),
        surge=_surge(sizes, fit, scale),
        scatter=scale.scatter,
    )


def _fit(law: _Law) -> _Fit:
    """The law with the least squares, by narrowing grids."""
    low, high = law.low, law.high
    value, level, least = low, 0.0, math.inf
    for _ in range(_ZOOMS):
        parameters = np.linspace(low, high, _PLACES)
        squares, levels = law.along(parameters)
        best = int(np.argmin(squares))
        if squares[best] <= least:
            value, level, least = float(parameters[best]), float(levels[best]), float(squares[best])
        step = (high - low) / (_PLACES - 1)
        low, high = max(value - step, law.low), min(value + step, law.high)
    return _Fit(law, value, level, least)


def _scale(fit: _Fit) -> _Scale | None:
    """The unit of squares; None without spare trials to estimate the noise."""
    variance, spare = fit.law.basins.variance, fit.law.basins.degrees
    if variance is None:
        return None
    between = len(fit.law.cells) - 2
    apart = variance * spare
    excess = max(fit.squares - apart, 0.0)
    if between < 1:
        return _Scale(variance, spare, 1.0)
    if excess <= between * variance:
        pooled = (apart + excess) / (spare + between)
        scatter = excess / between / variance if variance > 0 else 1.0
        return _Scale(pooled, spare + between, scatter)
    total = excess / between
    degrees = total**2 / (variance**2 / spare + (total - variance) ** 2 / between)
    return _Scale(total, degrees, total / variance if variance > 0 else 1.0)


def _interval(fit: _Fit, scale: _Scale) -> Interval | None:
    limit = scale.variance * t_quantile(scale.degrees) ** 2
    low, high = (_bound(fit, end, limit) for end in (fit.law.low, fit.law.high))
    return None if low is None or high is None else (low, high)


def _bound(fit: _Fit, end: float, limit: float) -> float | None:
    """Where the limit is first passed between the best parameter and an end; None if nowhere."""
    inside, outside = fit.value, end
    for zoom in range(_ZOOMS):
        parameters = np.linspace(inside, outside, _PLACES)
        squares, _ = fit.law.along(parameters)
        beyond = np.nonzero(squares - fit.squares > limit)[0]
        beyond = beyond[beyond > 0]
        if len(beyond) == 0:
            return None if zoom == 0 else outside
        first = int(beyond[0])
        inside, outside = float(parameters[first - 1]), float(parameters[first])
    return inside


def _evidence(fit: _Fit, scale: _Scale) -> tuple[Evidence, ...]:
    """A test of each reference exponent, and the three together.

    Source: the likelihood of a location under Student's t, (1 + t²/ν)^(−(ν+1)/2).
    """
    if scale.variance <= 0:
        return ()
    squares = [fit.above(p) / scale.variance for p in REFERENCE_EXPONENTS]
    degrees = scale.degrees
    tails = [2 * float(stdtr(degrees, -math.sqrt(s))) for s in squares]  # pyright: ignore
    together = holm(tails)
    return tuple(
        Evidence(p, tail, joint, capped((degrees + 1) / 2 * math.log1p(s / degrees)))
        for p, s, tail, joint in zip(REFERENCE_EXPONENTS, squares, tails, together, strict=True)
    )


def capped(log_ratio: float) -> float:
    """A likelihood ratio; beyond a trillion the shape of the tails says nothing any more."""
    return math.exp(min(log_ratio, math.log(1e12)))


def _surge(sizes: Sequence[int], power: _Fit, scale: _Scale) -> Surge:
    """η = η_max / ½(√(B_n/B) + √(B/B_n)) in place of the power.

    Both laws have two parameters, so that the corrected Akaike criterion prefers the one with
    the smaller squares, and the ratio of their likelihoods says how clearly. A scatter beyond
    the noise that both leave counts as noise. A turn outside of the batches tried is a power.

    Source: Li et al. 2024 (arXiv:2405.14578) eq. 22; for the criterion, Hurvich & Tsai 1989.
    """
    count = len(set(sizes))
    if count < FEWEST_FOR_SURGE:
        return Surge(num_batch_sizes=count, missing="few_batch_sizes")
    logs = np.log(np.array(sizes, dtype=np.float64))
    reach = math.log(_SURGE_REACH)

    def shift(turn: float) -> Array:
        return -np.log(np.cosh((logs - turn) / 2))

    ends = (float(logs.min()) - reach, float(logs.max()) + reach)
    fit = _fit(_Law(shift, *ends, power.law.basins, power.law.cells))
    smaller = _scale(fit)
    unit = min(scale.variance, smaller.variance if smaller else scale.variance)
    over = (power.squares - fit.squares) / (2 * unit) if unit > 0 else 0.0
    over_power = math.exp(max(min(over, math.log(1e12)), -math.log(1e12)))
    bounds = _interval(fit, smaller) if smaller else None
    inside = float(logs.min()) < fit.value < float(logs.max())
    interval = None if bounds is None else (math.exp(bounds[0]), math.exp(bounds[1]))
    return Surge(
        noise_batch=Estimate(math.exp(fit.value), interval, count) if inside else ABSENT,
        peak_lr=math.exp(fit.level) if inside else None,
        over_power=over_power,
        preferred=inside and over_power >= FAIRLY_STRONG,
        num_batch_sizes=count,
        missing=None if inside else "turn_outside",
    )


def why_no_interval(law: LrScaling, curves: Sequence[LrCurve]) -> NoExponent:
    """What keeps a law from having an interval.

    Args:
        law: Without one.
        curves: Of every cell with a rate, also those that it is not fitted to.
    """
    few_rates = max((len(c.rates_tried) for c in curves), default=0) < _FEWEST_RATES
    if len(curves) < FEWEST_FOR_INTERVAL or (few_rates and not law.from_surface):
        return "few_points"
    rates = [rate for curve in curves for rate in curve.rates_tried]
    inside = [curve for curve in curves if not _is_at_edge(curve, min(rates), max(rates))]
    if len(inside) < FEWEST_FOR_INTERVAL:
        return "best_at_edge"
    if not all(curve.has_common_shape for curve in curves) or (law.scatter or 0.0) > _MUCH_SCATTER:
        return "law_does_not_fit"
    has_spare = law.from_surface or law.scatter is not None
    return "too_noisy" if has_spare else "few_points"


def _is_at_edge(curve: LrCurve, lowest: float, highest: float) -> bool:
    """Whether a best rate may lie beyond those tried at any batch size.

    An interval that is open on one side says so where it leaves out half of the rates or more;
    one that leaves out less says that the losses are noisy.
    """
    if curve.edge is not None or curve.interval is None:
        return curve.edge is not None
    low, high = curve.interval
    if math.isfinite(low) and math.isfinite(high):
        return False
    held = math.log(min(high, highest) / max(low, lowest))
    return held <= math.log(highest / lowest) / 2
