"""What a search on the loss surface tries next, round after round; pure functions.

A round follows from the trials of the rounds before it and from nothing else: not from the order
in which they ended, nor from how many run side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scaling.spec.phases import Stop
from scaling.surface.loss_surface import CellBest, Limit, LossSurface, Outcome
from scaling.surface.space import RATE, Array, Labels, Space

_MOST_IN_DESIGN = 8
"""Trials of the space-filling design, plus two for each further hyperparameter."""
_MOST_LOOKED_AT = 48
"""Candidates of a cell that a step considers: those whose loss may be the lowest."""
_NUM_DRAWS = 64
_QUANTILES: Array = np.linspace(-1.8, 1.8, 7)
_WEIGHTS: Array = np.exp(-(_QUANTILES**2) / 2) / np.exp(-(_QUANTILES**2) / 2).sum()

Proposal = tuple[int, dict[str, Any]]
"""A cell's index and the nuisance hyperparameters to try there."""


@dataclass(frozen=True)
class SurfaceSearch:
    """A search of all cells together.

    Attributes:
        space: The cells, and what is searched in each.
        num_trials: At most so many, of all cells together; at least one a cell.
        round_size: Trials of every round but the first, which is a space-filling design.
        seed: Of the design.
        stop: When to end before `num_trials`; None for never.
        prior_peak_lr: A rate that is thought to be good at the middle batch size.
    """

    space: Space
    num_trials: int
    round_size: int
    seed: int
    stop: Stop | None = None
    prior_peak_lr: float | None = None

    @property
    def num_in_design(self) -> int:
        """Trials of the first round."""
        return min(_MOST_IN_DESIGN + 2 * max(len(self.space.axes) - 1, 0), self.num_trials)

    def next_round(self, outcomes: Sequence[Outcome]) -> list[Proposal]:
        """The trials of the next round.

        Args:
            outcomes: Those of all earlier rounds, in the order in which they were proposed.

        Returns:
            None of them where the search is over.
        """
        return [] if self.is_over(outcomes) else self.proposals(outcomes, len(outcomes))

    def is_over(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether the budget is spent, or every cell's regret is small enough."""
        if len(outcomes) >= self.num_trials:
            return True
        if self.stop is None or {o.cell for o in outcomes} != set(range(len(self.space.cells))):
            return False
        bests = self.best(outcomes)
        return all(best.probability >= self.stop.with_probability for best in bests)

    def proposals(self, outcomes: Sequence[Outcome], num_proposed: int) -> list[Proposal]:
        """The next round whether or not the search is over.

        Args:
            outcomes: Those known of the trials proposed so far.
            num_proposed: How many those were.
        """
        if num_proposed == 0 or not outcomes:
            return self._design()
        left = self.num_trials - num_proposed
        surface = LossSurface(self.space, outcomes)
        return _steps(surface, outcomes, min(left, self.round_size), left)

    def best(self, outcomes: Sequence[Outcome]) -> list[CellBest]:
        """Each cell's best recipe so far, with its expected regret."""
        stop = self.stop
        limit = Limit() if stop is None else Limit(stop.regret_at_most_ratio, stop.regret_at_most)
        return LossSurface(self.space, outcomes).cells(limit)

    def _design(self) -> list[Proposal]:
        """Cells in turn, spread over their order; everything else quasi-random, stratified."""
        from scipy.stats import qmc  # slow to import, and a plan draws no design

        count, num_cells = self.num_in_design, len(self.space.cells)
        axes = self.space.axes
        net = qmc.Sobol(len(axes) + 1, scramble=True, rng=self.seed).random(
            2 ** max(count - 1, 1).bit_length()
        )[:count]
        order = np.argsort(np.argsort(net[:, 0]))
        if count <= num_cells:
            cells = np.round(np.linspace(0, num_cells - 1, count)).astype(int)
        else:
            cells = np.sort(np.arange(count) % num_cells)
        proposals = [
            (
                int(cells[order[k]]),
                {axis.name: axis.at_share(float(net[k, 1 + i])) for i, axis in enumerate(axes)},
            )
            for k in range(count)
        ]
        if self.prior_peak_lr is not None and self.space.axis(RATE) is not None:
            middle = min(proposals, key=lambda p: abs(p[0] - (num_cells - 1) / 2))
            middle[1][RATE] = self.prior_peak_lr
        return proposals


def _steps(
    surface: LossSurface, outcomes: Sequence[Outcome], count: int, left: int
) -> list[Proposal]:
    """The next trials, each in the cell whose regret is expected to be the largest.

    In that cell it is the one after which the picks of all cells are expected to be best:
    the knowledge gradient for correlated normal beliefs (Frazier, Powell & Dayanik 2009, INFORMS
    Journal on Computing 21), summed over cells. A trial of the same round is taken into account
    by what it will make certain, at the loss that is expected of it.
    """
    mean, covariance = surface.mean, surface.covariance
    scales = surface.processes[0].scales
    noise = (scales.noise * scales.unit) ** 2
    every = [candidate for cell in surface.candidates for candidate in cell]
    tried = {_key((o.cell, o.point)) for o in outcomes}
    cells = {o.cell for o in outcomes}
    proposals: list[Proposal] = []
    for step in range(count):
        untried = set(range(len(surface.candidates))) - cells
        must = untried if left - step <= len(untried) else set()
        looked_at = _looked_at(surface, mean, covariance)
        new: list[int] = []
        for cell in np.argsort(-_regrets(mean, covariance, looked_at), kind="stable"):
            if not must or int(cell) in must:
                new = [int(k) for k in looked_at[cell] if _key(every[k]) not in tried]
            if new:
                break
        if not new:
            break
        best = new[int(np.argmin(_expected(mean, covariance, looked_at, np.array(new), noise)))]
        cell, point = every[best]
        proposals.append((cell, dict(point)))
        tried.add(_key(every[best]))
        cells.add(cell)
        column = covariance[:, best].copy()
        covariance = covariance - np.outer(column, column) / (column[best] + noise)
    return proposals


def _key(candidate: tuple[int, Mapping[str, Any]]) -> tuple[Any, ...]:
    cell, point = candidate
    return cell, tuple(sorted(point.items(), key=str))


def _regrets(mean: Array, covariance: Array, looked_at: Labels) -> Array:
    """[cells] how far the loss of each cell's pick is expected to be above its least."""
    regrets: list[float] = []
    for places in looked_at:
        places = np.unique(places)
        variances, vectors = np.linalg.eigh(covariance[np.ix_(places, places)])
        noise = np.random.default_rng(0).standard_normal((len(places), _NUM_DRAWS))
        drawn = mean[places, None] + (vectors * np.sqrt(np.maximum(variances, 0.0))) @ noise
        pick = int(np.argmin(mean[places]))
        regrets.append(float((drawn[pick] - drawn.min(axis=0)).mean()))
    return np.array(regrets)


def _looked_at(surface: LossSurface, mean: Array, covariance: Array) -> Labels:
    """[cells, most] the candidates of each cell whose loss may be the lowest."""
    hopeful = mean - 2 * np.sqrt(np.maximum(np.diag(covariance), 0.0))
    rows = []
    for cell in range(len(surface.candidates)):
        own = np.flatnonzero(surface.cell_of == cell)
        best = own[np.argsort(hopeful[own], kind="stable")[:_MOST_LOOKED_AT]]
        rows.append(np.resize(best, _MOST_LOOKED_AT))
    return np.array(rows, dtype=np.intp)


def _expected(
    mean: Array, covariance: Array, looked_at: Labels, new: Labels, noise: float
) -> Array:
    """[new] sum over cells of the least mean that is expected after trying each candidate."""
    moves = covariance[np.ix_(looked_at.ravel(), new)] / np.sqrt(covariance[new, new] + noise)
    after = mean[looked_at].reshape(-1)[:, None, None] + moves[:, :, None] * _QUANTILES
    least = after.reshape(*looked_at.shape, len(new), len(_QUANTILES)).min(axis=1)
    return least.sum(axis=0) @ _WEIGHTS
