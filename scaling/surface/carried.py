"""What it costs to carry a recipe to another batch size, from draws of the surface."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling.surface.loss_surface import LossSurface
from scaling.surface.path import lowest_places
from scaling.surface.space import Array, Labels

_NUM_RATES, _FEWEST_RATES = 61, 15
"""Rates at which a curve is drawn, and the fewest that still show its bottom."""
_MOST_PLACES = 1500
_NUM_DRAWS = 400


class CarriedRecipes:
    """Draws of the loss in cells that differ in their batch size alone, against the rate.

    Each cell's best recipe is carried to every other cell: its rate as a rule has it, everything
    else as it is. The rate that is carried is the best one of the drawn surface, so its
    uncertainty is in the regret. What it is compared with is the recipe that the surface
    recommends there, in the same draw: the lowest loss of each draw would be below both, and no
    interval would hold a right rule's regret of zero.
    """

    def __init__(
        self, surface: LossSurface, cells: Sequence[int], highest: float = math.inf
    ) -> None:
        """The draws.

        Args:
            surface: Of all cells; a rate was searched.
            cells: Indices of the cells.
            highest: The loss without training; whatever is drawn above it counts as that much.

        Raises:
            ValueError: With more cells than there are draws for, see `is_feasible`.
        """
        rate = surface.space.rate
        if rate is None or not is_feasible(surface, cells):
            raise ValueError("no rate was searched, or there are too many cells")
        low, high = rate.ends
        self._settings, self._setting_of = _settings(surface, cells)
        num_curves = len(cells) * len(self._settings)
        self.log_rates: Array = np.linspace(low, high, min(_NUM_RATES, _MOST_PLACES // num_curves))
        places = [
            (cell, {**setting, rate.name: math.exp(at)})
            for cell in cells
            for setting in self._settings
            for at in self.log_rates
        ]
        owner: Labels = np.repeat(np.asarray(cells), len(places) // len(cells))
        drawn = surface.loss_draws(surface.space.coordinates(places), owner, _NUM_DRAWS)
        shape = (len(drawn), len(cells), len(self._settings), len(self.log_rates))
        self._losses = np.minimum(drawn, highest).reshape(shape)
        own = self._losses[:, np.arange(len(cells)), self._setting_of]
        self._bottoms = lowest_places(own, self.log_rates)
        recommended = (math.log(surface.recipe(cell)[rate.name]) for cell in cells)
        self._recommended = [
            _at(own[:, place], self.log_rates, np.full(len(own), at))
            for place, at in enumerate(recommended)
        ]

    def regrets(self, base: int, other: int, log_ratio: float) -> tuple[Array, float]:
        """What carrying costs: the loss less that of the recipe recommended at the other cell.

        Args:
            base: Place of the cell whose recipe is carried, in the cells given.
            other: Place of the cell that it is carried to.
            log_ratio: Logarithm of what the rule multiplies the rate by.

        Returns:
            [draws] the regret in the loss's unit, and the share of the draws that carry the rate
            beyond those tried. Of these it is the regret at the last rate tried, a lower bound.
        """
        grid = self.log_rates
        carried = self._bottoms[:, base] + log_ratio
        losses = self._losses[:, other, self._setting_of[base]]
        loss = _at(losses, grid, np.clip(carried, grid[0], grid[-1]))
        regrets = loss - self._recommended[other]
        return regrets, float(((carried < grid[0]) | (carried > grid[-1])).mean())


def _at(curves: Array, grid: Array, places: Array) -> Array:
    """[draws] each curve at its place, by a parabola through the three nearest points."""
    step = grid[1] - grid[0]
    nearest = np.clip(np.round((places - grid[0]) / step).astype(np.intp), 1, len(grid) - 2)
    pick = np.arange(len(curves))
    before, at, after = (curves[pick, nearest + shift] for shift in (-1, 0, 1))
    share = (places - grid[nearest]) / step
    return at + share * (after - before) / 2 + share**2 * (before - 2 * at + after) / 2


def is_feasible(surface: LossSurface, cells: Sequence[int]) -> bool:
    """Whether there are few enough curves that each can be drawn at enough rates."""
    num_curves = len(cells) * len(_settings(surface, cells)[0])
    return len(cells) > 1 and _MOST_PLACES // num_curves >= _FEWEST_RATES


def _settings(
    surface: LossSurface, cells: Sequence[int]
) -> tuple[list[Mapping[str, Any]], list[int]]:
    """The different best settings beside the rate, and which of them each cell has."""
    rate = surface.space.rate
    name = rate.name if rate is not None else None
    own = [{k: v for k, v in surface.recipe(cell).items() if k != name} for cell in cells]
    different: list[Mapping[str, Any]] = []
    for setting in own:
        if setting not in different:
            different.append(setting)
    return different, [different.index(setting) for setting in own]
