"""The surface through a search's trials: each cell's best recipe, and how sure that is."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from scaling.surface.covariance import TO_SEARCH, Family
from scaling.surface.model import Process, Replicates, Trials, draw, fit
from scaling.surface.space import BATCH, Array, Axis, Coordinates, Labels, Space

_NUM_RATES = 49
"""Rates at which the surface is looked at; an eighth of an octave apart over six octaves."""
_NUM_LEVELS = 4
"""Values of another range that it is looked at."""
_MOST_SETTINGS = 24
"""Combinations of the other hyperparameters that it is looked at, in each cell."""
_MOST_CANDIDATES, _FEWEST_CANDIDATES = 3000, 12
"""Points of all cells together, and of one, at which it is looked at."""
_NUM_DRAWS = 256
_SMALL = 1e-12
_CLEAR_RISE = 6 * math.sqrt(2)
"""Standard deviations of a trial above the least loss of its cell from which on it is no noise."""
_MOST_LOG_LOSS = 100.0
"""Beyond this a drawn loss says no more than that the run is lost."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        cell: Index of its cell.
        point: Its nuisance hyperparameters.
        value: The objective, lower is better; None where it diverged or missed the target.
        num_seeds: Runs that `value` is the mean of.
        seed: Of a single run.
        at_least: Of a trial that missed the target, what it would have taken at least.
    """

    cell: int
    point: Mapping[str, Any]
    value: float | None
    num_seeds: int = 1
    seed: int | None = None
    at_least: float | None = None


@dataclass(frozen=True)
class CellBest:
    """What the surface says of one cell.

    Attributes:
        point: The recipe whose expected loss is the least.
        value: The loss expected of it, in the objective's unit; None where no trial has one.
        expected_regret: How far that is expected to be above the cell's least loss, same unit.
        expected_regret_ratio: The same over the cell's least loss, or over its best value of
            what is maximized; None where losses are neither all above zero nor all, but for
            some of exactly zero, below.
        probability: That the regret is within the limit asked for.
    """

    point: Mapping[str, Any]
    value: float | None
    expected_regret: float
    expected_regret_ratio: float | None
    probability: float


@dataclass(frozen=True)
class Limit:
    """A regret small enough: `ratio` of the cell's least loss, or `value` in its unit."""

    ratio: float | None = None
    value: float | None = None

    def is_passed(self, best: "CellBest") -> bool:
        """Whether the expected regret of a cell's best recipe is larger."""
        ratio = best.expected_regret_ratio
        if self.ratio is not None and ratio is not None and ratio > self.ratio:
            return True
        return self.value is not None and best.expected_regret > self.value


class LossSurface:
    """One surface through the trials of all cells.

    Losses that are all positive are compared by their ratios, others by their differences: what
    is maximized counts negative, and its regret may be taken over its best value.
    """

    def __init__(
        self,
        space: Space,
        outcomes: Sequence[Outcome],
        replicates: Replicates | None = None,
        family: Family = TO_SEARCH,
    ) -> None:
        """The surface; `replicates` are of the objective as it is fitted, see the class."""
        self.space = space
        self._family = family
        self._replicates = replicates
        self._outcomes = outcomes
        values = np.array([math.nan if o.value is None else o.value for o in outcomes])
        known = values[np.isfinite(values)]
        self._has_losses = len(known) > 0
        self._is_ratio = self._has_losses and bool((known > 0).all())
        self._is_maximized = bool((known <= 0).all() and (known < 0).any())
        self._losses: Array = np.log(values) if self._is_ratio else values
        least = np.array([math.nan if o.at_least is None else o.at_least for o in outcomes])
        self._at_least: Array = np.log(least) if self._is_ratio else least
        self._cell: Labels = np.array([o.cell for o in outcomes], dtype=np.intp)
        self._noises: dict[tuple[int, int], list[Array]] = {}
        self.candidates = [_candidates(space, cell, outcomes) for cell in range(len(space.cells))]
        self.places = space.coordinates([c for cell in self.candidates for c in cell])
        self.cell_of: Labels = np.repeat(
            np.arange(len(self.candidates)), [len(c) for c in self.candidates]
        )

    @property
    def _seeds(self) -> Labels | None:
        """Which seed each trial has; None where all have the same one or are means over seeds.

        A lost trial has no loss that a seed could add to, so it is alike no other one.
        """
        different = list(dict.fromkeys(o.seed for o in self._outcomes if o.value is not None))
        if len(different) < 2:
            return None
        labels = [
            len(different) + place if outcome.value is None else different.index(outcome.seed)
            for place, outcome in enumerate(self._outcomes)
        ]
        return np.array(labels, dtype=np.intp)

    @property
    def processes(self) -> list[Process]:
        """Those with the highest evidence, the best one first."""
        return self._fitted[0]

    @cached_property
    def _fitted(self) -> tuple[list[Process], Array]:
        """The processes, and each cell's least loss, which is known after a first fit."""
        losses = self._losses
        finite = losses[np.isfinite(losses)]
        least = np.full(len(self.candidates), finite.min() if len(finite) else 0.0)
        trials = Trials(
            self.space.coordinates([(o.cell, o.point) for o in self._outcomes]),
            losses,
            least[self._cell],
            np.array([o.num_seeds for o in self._outcomes], dtype=np.float64),
            self._replicates,
            self._cell,
            self._seeds,
            self._at_least,
        )
        first = fit(trials, TO_SEARCH)[0]
        mean = first.in_full(first.mean(self.places), least[self.cell_of])
        for cell in range(len(least)):
            seen = losses[(self._cell == cell) & np.isfinite(losses)]
            least[cell] = min([float(mean[self.cell_of == cell].min()), *seen])
        return fit(replace(trials, lowest=least[self._cell]), self._family), least

    @cached_property
    def mean(self) -> Array:
        """Expected loss of all candidates; its logarithm where losses are ratios."""
        return self.processes[0].mean(self.places)

    @property
    def covariance(self) -> Array:
        """Of the losses of all candidates, as `mean` has them."""
        return self.processes[0].covariance(self.places)

    @cached_property
    def best(self) -> list[int]:
        """Of each cell, the index of the candidate with the least mean."""
        mean = self.mean
        return [
            int(np.flatnonzero(self.cell_of == cell)[np.argmin(mean[self.cell_of == cell])])
            for cell in range(len(self.candidates))
        ]

    def recipe(self, cell: int) -> Mapping[str, Any]:
        """The nuisance hyperparameters whose expected loss is the least in a cell."""
        every = [candidate for candidates in self.candidates for candidate in candidates]
        return every[self.best[cell]][1]

    def rates_tried(self, cell: int) -> tuple[float, float] | None:
        """Logarithms of the lowest and the highest rate tried in a cell; None where none was."""
        tried = self._rates[self._cell == cell]
        return (float(tried.min()), float(tried.max())) if len(tried) else None

    def rises(self, cell: int) -> tuple[bool, bool]:
        """Whether the losses of a cell clearly rise towards its lowest and its highest rate.

        Clearly is by six standard deviations of two trials' difference, as replicates show it, and
        unknown, so False, without any. A diverged trial is as high as can be.
        """
        tried, losses = self._rates[self._cell == cell], self._losses[self._cell == cell]
        if not self._has_replicates or not np.isfinite(losses).any():
            return False, False
        scales, least = self.processes[0].scales, float(np.nanmin(losses))
        clear = _CLEAR_RISE * math.hypot(1, 2 * scales.seed) * scales.noise * scales.unit
        above = np.where(np.isfinite(losses), losses, math.inf) - least > clear
        low, high = (bool(above[tried == end].all()) for end in (tried.min(), tried.max()))
        return low, high

    @cached_property
    def _has_replicates(self) -> bool:
        """Whether some recipe ran with several seeds."""
        if self._replicates is not None:
            return True
        places = [(o.cell, *sorted(o.point.items())) for o in self._outcomes if o.value is not None]
        return self._seeds is not None and len(set(places)) < len(places)

    @cached_property
    def _rates(self) -> Array:
        """[n] logarithm of each trial's rate."""
        assert self.space.rate is not None
        return np.log([o.point[self.space.rate.name] for o in self._outcomes])

    def expected(self, cell: int, point: Mapping[str, Any]) -> float:
        """The loss expected with some nuisance hyperparameters in a cell."""
        processes, lowest = self._fitted
        compressed = processes[0].mean(self.space.coordinates([(cell, point)]))
        mean = float(processes[0].in_full(compressed, lowest[[cell]])[0])
        return math.exp(min(mean, _MOST_LOG_LOSS)) if self._is_ratio else mean

    def draws(self, places: Coordinates, num_draws: int = _NUM_DRAWS) -> Array:
        """[num_draws, len(places)] surfaces, of the processes in proportion to their evidence."""
        return np.concatenate([drawn for _, drawn in self._drawn(places, num_draws)])

    def loss_draws(self, places: Coordinates, cells: Labels, num_draws: int) -> Array:
        """[num_draws, len(places)] losses in the objective's unit, high ones in full.

        Args:
            places: Where.
            cells: [len(places)] the cell of each place.
            num_draws: How many surfaces.
        """
        lowest = self._fitted[1][cells]
        drawn = [p.in_full(draws, lowest) for p, draws in self._drawn(places, num_draws)]
        losses = np.concatenate(drawn)
        return np.exp(np.minimum(losses, _MOST_LOG_LOSS)) if self._is_ratio else losses

    def _drawn(self, places: Coordinates, num_draws: int) -> list[tuple[Process, Array]]:
        asked = len(places), num_draws
        if asked not in self._noises:  # the same ones for every cell and every batch size
            self._noises = {asked: self._noise(*asked)}
        noises = self._noises[asked]
        drawn = [
            process for process, noise in zip(self.processes, noises, strict=True) if noise.shape[1]
        ]
        own = [noise for noise in noises if noise.shape[1]]
        return list(zip(drawn, draw(drawn, places, own), strict=True))

    def _noise(self, num_places: int, num_draws: int) -> list[Array]:
        """[num_places, draws] standard normal numbers for each process's share of the draws."""
        rng = np.random.default_rng(0)
        evidence = np.array([process.evidence for process in self.processes])
        weights = np.exp(evidence - evidence.max())
        counts = rng.multinomial(num_draws, weights / weights.sum())
        return [rng.standard_normal((num_places, count)) for count in counts]

    def cells(self, limit: Limit) -> list[CellBest]:
        """Each cell's best recipe with its expected regret."""
        found: list[CellBest] = []
        for cell, best in enumerate(self.best):
            own = np.flatnonzero(self.cell_of == cell)
            draws = self.draws(self.places.take(own))
            picked, least = draws[:, best - own[0]], draws.min(axis=1)
            ratios, regrets, value = None, picked - least, float(self.mean[best])
            if self._is_ratio:
                ratios, value = np.expm1(regrets), math.exp(value)
                regrets = ratios * np.exp(least)
            elif self._is_maximized:
                ratios = regrets / np.maximum(-least, _SMALL)
            within = [
                part <= most
                for part, most in ((ratios, limit.ratio), (regrets, limit.value))
                if part is not None and most is not None
            ]
            found.append(
                CellBest(
                    self.candidates[cell][best - own[0]][1],
                    value if self._has_losses else None,
                    float(regrets.mean()),
                    None if ratios is None else float(ratios.mean()),
                    float(np.all(within, axis=0).mean()) if within else 0.0,
                )
            )  # fmt: skip
        return found


def _candidates(
    space: Space, cell: int, outcomes: Sequence[Outcome]
) -> list[tuple[int, Mapping[str, Any]]]:
    """Points of a cell at which the surface is looked at: rates × settings of the others."""
    rate, batch, others = space.rate, space.axis(BATCH), space.others
    most = max(_MOST_CANDIDATES // len(space.cells), _FEWEST_CANDIDATES)
    rates = rate.values(min(_NUM_RATES, most)) if rate else (None,)
    batches = batch.values(_NUM_LEVELS) if batch else (None,)
    most_settings = min(max(most // (len(rates) * len(batches)), 1), _MOST_SETTINGS)
    names = [axis.name for axis in others]
    return [
        (
            cell,
            ({rate.name: at} if rate else {})
            | ({BATCH: size} if batch else {})
            | dict(zip(names, setting, strict=True)),
        )
        for size in batches
        for setting in _settings(others, cell, outcomes, most_settings)
        for at in rates
    ]


def _settings(
    axes: Sequence[Axis], cell: int, outcomes: Sequence[Outcome], most: int
) -> list[tuple[Any, ...]]:
    """Combinations of values; where there are too many, evenly spread ones and the best tried."""
    count = math.prod(len(axis.choice) if axis.choice else _NUM_LEVELS for axis in axes)
    if count <= most:
        return list(itertools.product(*(axis.values(_NUM_LEVELS) for axis in axes)))
    from scipy.stats import qmc

    points = qmc.Sobol(len(axes), scramble=True, rng=0).random(2 ** (most - 1).bit_length())
    spread = [
        tuple(axis.at_share(float(share)) for axis, share in zip(axes, point, strict=True))
        for point in points
    ]
    ended = [o for o in outcomes if o.value is not None]
    ended.sort(key=lambda o: (o.cell != cell, o.value))
    tried = [tuple(o.point[axis.name] for axis in axes) for o in ended]
    best = list(dict.fromkeys(tried))[: (most + 1) // 2]
    return list(dict.fromkeys([*best, *spread]))[:most]
