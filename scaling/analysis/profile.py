"""Least squares in one nonlinear parameter: the minimum and the interval of its profile.

Both fits of this package (a parabola's vertex, a trade-off's bend) are linear once one
parameter is fixed. Scanning that parameter needs no starting point, and its interval is allowed
to be lopsided or open, which a curvature at the minimum would hide.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling.analysis.uncertainty import Interval, t_quantile

Array = NDArray[np.float64]
_POINTS = 501
_ZOOMS = 4
_HALVINGS = 40


@dataclass(frozen=True)
class Profile:
    """Where a sum of squares is smallest.

    Attributes:
        value: The parameter at the minimum.
        edge: `low` or `high` when the minimum is at that end of the range scanned.
        interval: 90%; None without spare degrees of freedom, or when the data set no bound
            inside the range on one of the sides.
    """

    value: float
    edge: str | None
    interval: Interval | None


def scan(squares: Callable[[Array], Array], low: float, high: float, degrees: int) -> Profile:
    """Minimize a sum of squares over low … high, and bound the parameter.

    Args:
        squares: Sum of squared residuals at each of many values of the parameter, all other
            parameters at their best.
        low: Lower end of the range.
        high: Upper end of the range.
        degrees: Points minus parameters.

    Source: profile interval, Bates & Watts 1988, Nonlinear regression analysis, sec. 6.1.
    """
    grid = np.linspace(low, high, _POINTS)
    values = squares(grid)
    best = int(np.argmin(values))
    edge = {0: "low", _POINTS - 1: "high"}.get(best)
    centre = float(grid[best])
    step = (high - low) / (_POINTS - 1)
    for _ in range(_ZOOMS):
        fine = np.linspace(max(low, centre - step), min(high, centre + step), 201)
        centre = float(fine[int(np.argmin(squares(fine)))])
        step /= 100
    if degrees < 1:
        return Profile(centre, edge, None)
    smallest = float(squares(np.array([centre]))[0])
    limit = smallest * (1 + t_quantile(degrees) ** 2 / degrees)
    below = _bound(squares, grid[: best + 1][::-1], values[: best + 1][::-1], limit, centre)
    above = _bound(squares, grid[best:], values[best:], limit, centre)
    interval = None if below is None or above is None else (below, above)
    return Profile(centre, edge, interval)


def _bound(
    squares: Callable[[Array], Array], grid: Array, values: Array, limit: float, centre: float
) -> float | None:
    """Where the limit is first passed, going outwards from the minimum; None if nowhere."""
    beyond = np.nonzero((values > limit) & (grid != centre))[0]
    if len(beyond) == 0:
        return None
    inside, outside = centre, float(grid[int(beyond[0])])
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if float(squares(np.array([middle]))[0]) > limit:
            outside = middle
        else:
            inside = middle
    return inside


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


def _between(grid: Array, values: Array, outside: int, inside: int, limit: float) -> float:
    share = (limit - values[inside]) / (values[outside] - values[inside])
    return float(grid[inside] + share * (grid[outside] - grid[inside]))
