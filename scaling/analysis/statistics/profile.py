"""Least squares in one nonlinear parameter: the minimum and the interval of its profile.

Both fits of this package (a parabola's vertex, a trade-off's bend) are linear once one
parameter is fixed. Scanning that parameter needs no starting point, and its interval is allowed
to be lopsided or open, which a curvature at the minimum would hide.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scaling.analysis.statistics.uncertainty import Interval

Array = NDArray[np.float64]
Edge = Literal["low", "high"]
"""An end of a range."""
_POINTS = 501
_ZOOMS = 4


def lowest(squares: Callable[[Array], Array], low: float, high: float) -> tuple[float, Edge | None]:
    """Where a sum of squares is least over low … high, and the end of the range it is at, if any.

    Args:
        squares: Sum of squared residuals at each of many values of the parameter, all other
            parameters at their best.
        low: Lower end of the range.
        high: Upper end of the range.
    """
    grid = np.linspace(low, high, _POINTS)
    best = int(np.argmin(squares(grid)))
    edge: Edge | None = "low" if best == 0 else "high" if best == _POINTS - 1 else None
    centre, step = float(grid[best]), (high - low) / (_POINTS - 1)
    for _ in range(_ZOOMS):
        fine = np.linspace(max(low, centre - step), min(high, centre + step), 201)
        centre = float(fine[int(np.argmin(squares(fine)))])
        step /= 100
    return centre, edge


def minimum(squares: Callable[[Array], Array], grid: Array, values: Array) -> float:
    """The parameter at the minimum, more finely than the grid on which it was looked for.

    Args:
        squares: Sum of squares at many values of the parameter.
        grid: Values of the parameter, rising.
        values: The sum of squares there.
    """
    best = int(np.argmin(values))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    for _ in range(_ZOOMS):
        fine = np.linspace(low, high, 41)
        place = int(np.argmin(squares(fine)))
        low, high = float(fine[max(place - 1, 0)]), float(fine[min(place + 1, 40)])
    return (low + high) / 2


def crossings(grid: Array, values: Array, limit: float) -> Interval | None:
    """Where values first pass a limit on either side of their minimum, between grid points.

    Returns:
        None when they do not on one of the sides.
    """
    best = int(np.argmin(values))
    above = np.nonzero(values > limit)[0]
    lower, upper = above[above < best], above[above > best]
    if len(lower) == 0 or len(upper) == 0:
        return None
    return (
        _between(grid, values, int(lower[-1]), int(lower[-1]) + 1, limit),
        _between(grid, values, int(upper[0]), int(upper[0]) - 1, limit),
    )


def farthest(squares: Callable[[Array], Array], grids: Array, limit: float, halvings: int) -> Array:
    """How far from each grid's first value on a sum of squares stays within a limit.

    Args:
        squares: [n, m] sum of squares at m values of the parameter of each of n profiles.
        grids: [n, m] values of the parameter from the best one of each outwards.
        limit: Of the squares.
        halvings: Of the step of the grid in which the limit is passed.

    Returns:
        [n], NaN where it is not passed.
    """
    beyond = squares(grids) > limit
    beyond[:, 0] = False  # the best one may lie at the limit itself
    rows, first = np.arange(len(grids)), beyond.argmax(axis=1)
    inside, outside = grids[rows, np.maximum(first - 1, 0)], grids[rows, first]
    for _ in range(halvings):
        middle = (inside + outside) / 2
        passes = squares(middle[:, None])[:, 0] > limit
        inside, outside = np.where(passes, inside, middle), np.where(passes, middle, outside)
    return np.where(beyond.any(axis=1), inside, np.nan)


def _between(grid: Array, values: Array, outside: int, inside: int, limit: float) -> float:
    share = (limit - values[inside]) / (values[outside] - values[inside])
    return float(grid[inside] + share * (grid[outside] - grid[inside]))
