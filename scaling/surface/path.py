"""The path of best rates over the batch sizes, from draws of the surface."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scaling.surface.loss_surface import LossSurface
from scaling.surface.space import TAILS, Array, Labels

_NUM_RATES, _FEWER_RATES = 161, 81
"""Rates at which each batch's loss is drawn, and where there are many batch sizes: a coarser grid
misses a bottom that is no parabola."""
_PLACES, _MOST_PLACES = 900, 2000
"""Rates of all batches together up to which there may be more than the fewer, and at most."""
MOST_CELLS = 100
"""Batch sizes that a path is drawn over."""
BEYOND = 0.3
"""How far beyond the rates tried a best rate is looked for, as a share of half their range."""
_CLEAR_RISE = 4.0
"""Standard deviations of the draws by which an end of the rates is surely above the least loss."""
_NUM_DRAWS = 1000
_SELDOM = 0.1
"""Share of the drawn paths below which no turn is read."""
_RISE, _STAYS = 0.1, 0.25
"""A path turns where it rises by more than this exponent, then by less than this share of it; it
falls where it then does so by more than that share."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class PathTurn:
    """Where a path of best rates stops rising.

    Attributes:
        probability: Share of the drawn paths that turn.
        at: Median batch size at which these do, in examples; None where hardly any turns.
        interval: Of it, at 90%.
        falls: Whether most of them fall beyond it.
    """

    probability: float
    at: float | None = None
    interval: Interval | None = None
    falls: bool = False


@dataclass(frozen=True)
class BestRates:
    """Draws of the best rate at each batch size.

    Attributes:
        batch_sizes: Rising.
        draws: [draws, batch sizes] logarithm of the rate at which a drawn surface is lowest.
        lowest: Logarithm of the lowest rate tried at any batch size.
        highest: Of the highest.
    """

    batch_sizes: tuple[int, ...]
    draws: Array
    lowest: float
    highest: float

    @cached_property
    def _log_batch(self) -> Array:
        return np.log(np.array(self.batch_sizes, dtype=np.float64))

    @property
    def rates(self) -> tuple[float, ...]:
        """The median of each batch size's best rate."""
        return tuple(float(np.exp(median)) for median in np.median(self.draws, axis=0))

    def interval(self, index: int) -> tuple[float | None, float | None]:
        """Of one best rate; an end is None where it lies beyond the rates tried."""
        low, high = np.quantile(self.draws[:, index], TAILS)
        return (
            math.exp(low) if low > self.lowest else None,
            math.exp(high) if high < self.highest else None,
        )

    def edge(self, index: int) -> Literal["low", "high"] | None:
        """The end of the rates tried at which, or beyond which, the median of one lies."""
        median = np.median(self.draws[:, index])
        return "low" if median <= self.lowest else "high" if median >= self.highest else None

    @cached_property
    def exponent(self) -> tuple[float, Interval]:
        """Slope of the log best rate over the log batch, by least squares: median and interval."""
        centred = self._log_batch - self._log_batch.mean()
        slopes = self.draws @ centred / float(centred @ centred)
        low, high = np.quantile(slopes, TAILS)
        return float(np.median(slopes)), (float(low), float(high))

    @property
    def is_cut(self) -> bool:
        """Whether most drawn paths leave the rates tried at their upper end."""
        return bool((self.draws >= self.highest).any(axis=1).mean() > 1 / 2)

    @cached_property
    def turn(self) -> PathTurn | None:
        """The batch size up to which the best rate rises and from which on it stays or falls.

        Each drawn path is fitted by two straight pieces that meet at one of the batch sizes. A best
        rate beyond those tried may be any higher one, so it does not stay.

        Returns:
            None without at least four batch sizes: then no path can be seen to turn.
        """
        inner = range(1, len(self.batch_sizes) - 1)
        if len(inner) < 2:
            return None
        fits = [self._two_pieces(place) for place in inner]
        best = np.argmin([squares for squares, _, _ in fits], axis=0)
        pick = np.arange(len(best))
        before = np.array([first for _, first, _ in fits])[best, pick]
        after = np.array([second for _, _, second in fits])[best, pick]
        later = np.arange(len(self.batch_sizes)) > best[:, None]
        leaves = (later & (self.draws >= self.highest)).any(axis=1)
        turns = (before > _RISE) & (after < _STAYS * before) & ~leaves
        probability = float(turns.mean())
        if probability < _SELDOM:
            return PathTurn(probability)
        at = np.array(self.batch_sizes)[1 + best[turns]]
        low, middle, high = np.quantile(at, (TAILS[0], 0.5, TAILS[1]), method="nearest")
        falls = bool((after < -_STAYS * before)[turns].mean() > 1 / 2)
        return PathTurn(probability, float(middle), (float(low), float(high)), falls)

    def _two_pieces(self, place: int) -> tuple[Array, Array, Array]:
        """Squares left, and the two slopes, of every draw with the turn at one batch size."""
        log_batch = self._log_batch - self._log_batch[place]
        pieces = np.stack(
            [np.ones_like(log_batch), np.minimum(log_batch, 0), np.maximum(log_batch, 0)], axis=1
        )
        solution = np.linalg.lstsq(pieces, self.draws.T, rcond=None)[0]
        left = ((self.draws.T - pieces @ solution) ** 2).sum(axis=0)
        return left, solution[1], solution[2]


def best_rates(
    surface: LossSurface, cells: Sequence[int], batch_sizes: Sequence[int]
) -> BestRates | None:
    """The best rates at some batch sizes, of cells that differ in that alone.

    Args:
        surface: Of all cells.
        cells: For each batch size the index of the cell whose best recipe has the other
            hyperparameters: its own, or that of the nearest batch size that was tried.
        batch_sizes: Rising; they need not have been tried.

    Returns:
        None where no rate was searched, or for more than a hundred batch sizes.
    """
    rate = surface.space.rate
    if rate is None or len(cells) > MOST_CELLS:
        return None
    low, high = rate.ends
    margin = BEYOND * (high - low) / 2
    fewer = min(_FEWER_RATES, _MOST_PLACES // len(cells))
    num_rates = min(_NUM_RATES, max(fewer, _PLACES // len(cells)))
    grid = np.linspace(low - margin, high + margin, num_rates)
    recipes = [surface.recipe(cell) for cell in cells]
    places: list[tuple[int, Mapping[str, Any]]] = [
        (cell, {**recipe, rate.name: math.exp(at)})
        for cell, recipe in zip(cells, recipes, strict=True)
        for at in grid
    ]
    at = [surface.space.batch_place(size) for size in batch_sizes]
    coordinates = replace(surface.space.coordinates(places), batch=np.repeat(at, num_rates))
    drawn = surface.draws(coordinates, _NUM_DRAWS).reshape(-1, len(cells), num_rates)
    ends = np.array([surface.rates_tried(cell) or (low, high) for cell in cells])
    first = np.minimum(np.searchsorted(grid, ends[:, 0]), num_rates - 1)
    last = np.searchsorted(grid, ends[:, 1]) - 1
    rising = np.array([surface.rises(cell) for cell in cells])
    held = _rising_beyond(drawn, first, np.maximum(first, last), rising)
    lowest = lowest_places(held, grid)
    return BestRates(tuple(batch_sizes), lowest, low, high)


def _rising_beyond(losses: Array, first: Labels, last: Labels, rising: NDArray[np.bool_]) -> Array:
    """[draws, cells, rates] losses, infinite beyond an end towards which they rise.

    A basin has one bottom: a curve that rises towards the end of a cell's rates does not fall again
    beyond it, where no trial holds a draw. That counts where the trials show the rise: by
    replicates, or where the loss at the end is above the least one by four standard deviations of
    the draws.

    Args:
        losses: Drawn ones.
        first: [cells] index of the lowest rate tried.
        last: [cells] index of the highest.
        rising: [cells, 2] whether replicates show a rise towards the lowest and the highest.
    """
    cell, rate, found = np.arange(len(first)), np.arange(losses.shape[2]), losses.copy()
    inside = (rate >= first[:, None]) & (rate <= last[:, None])
    at = np.where(inside, losses, math.inf).argmin(axis=2)
    least = np.where(inside, losses.mean(axis=0), math.inf).argmin(axis=1)
    sides = (first, rate < first[:, None], rising[:, 0]), (last, rate > last[:, None], rising[:, 1])
    for end, beyond, is_known in sides:
        rises = losses[:, cell, end] - losses[:, cell, least]
        is_clear = is_known | (rises.mean(axis=0) > _CLEAR_RISE * rises.std(axis=0))
        found[((at != end) & is_clear)[:, :, None] & beyond] = math.inf
    return found


def lowest_places(losses: Array, grid: Array) -> Array:
    """[draws, cells] where each curve is lowest, by a parabola through three points."""
    place = losses.argmin(axis=2)
    inner = np.clip(place, 1, len(grid) - 2)
    before, at, after = (
        np.take_along_axis(losses, (inner + step)[:, :, None], axis=2)[:, :, 0]
        for step in (-1, 0, 1)
    )
    bend = before - 2 * at + after
    turns = (place == inner) & (bend > 0)
    shift = np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=turns)
    return grid[place] + shift * (grid[1] - grid[0])
