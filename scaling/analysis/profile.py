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
