"""The points that a basin is fitted through: near the lowest, before losses leap or jump."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scaling.analysis.learning_rate.parabola import Array, Points, candidates, sum_of_squares

_DROP_PRICE = 9.0
"""Squares, in units of the noise, that leaving out a point beyond the cliff has to save."""
_ROUNDS = 16
_LEAP_OVER_LEFT = 2.0
_LEAP_OVER_LAST = 8.0


def neighbourhood(points: Points) -> Points | None:
    """The lowest max(5, 1.5 n^0.7) of n points; None with fewer than three."""
    count = len(points.x)
    if count < 3:
        return None
    size = min(count, max(5, math.ceil(1.5 * count**0.7)))
    chosen = np.sort(np.argsort(points.y, kind="stable")[:size])
    return _some(points, chosen)


def before_leaps(cells: Sequence[Points]) -> list[Points]:
    """Each cell without the rates from the first leap above its best on.

    A leap is a loss far above that of the rate before it and above all that the cells lose
    towards low rates. It is plain to see, but would hide itself in a fit of few points.
    """
    lefts = [
        float(p.y[: i + 1].max() - p.y[i]) for p in cells if len(p.x) and (i := int(p.y.argmin()))
    ]
    height = _LEAP_OVER_LEFT * float(np.median(lefts)) if lefts else math.inf
    return [_cut(points, _first_leap(points, height)) for points in cells]


def _first_leap(points: Points, height: float) -> int:
    above = points.y - points.y.min() if len(points.y) else points.y
    for place in range(int(np.argmin(above)) + 1 if len(above) else 0, len(above)):
        if above[place] > max(height, _LEAP_OVER_LAST * above[place - 1]):
            return place
    return len(above)


def _cut(points: Points, place: int) -> Points:
    """The points before a place, of which the first one left out is a cliff."""
    if place >= len(points.x):
        return points
    return replace(_some(points, slice(place)), cliff=float(points.x[place]))


def _some(points: Points, kept: slice | NDArray[np.intp]) -> Points:
    return replace(points, x=points.x[kept], y=points.y[kept], weight=points.weight[kept])


def before_cliffs(cells: Sequence[Points], ratios: Array) -> list[Points]:
    """Each cell without the rates at which its loss has jumped.

    From the highest rate down to the best, points are dropped as long as that saves more than
    _DROP_PRICE times the noise a point (penalized trimming, She & Owen 2011). The noise is what
    remains in all cells; it starts from the best agreement that any trimming gives and grows
    until it is that of the points kept, since a start with the cliffs inside would hide them.
    """
    costs = [_squares_by_drops(points, ratios) for points in cells]
    sizes = [len(points.x) for points in cells]
    dropped = [0] * len(cells)
    noise = _noise_at_most(costs, sizes)
    for _ in range(_ROUNDS):
        if noise <= 0:
            break
        priced = [c / noise + _DROP_PRICE * np.arange(len(c))[:, None] for c in costs]
        ratio = int(np.argmin(sum(c.min(axis=0) for c in priced)))
        chosen = [int(np.argmin(c[:, ratio])) for c in priced]
        spare = sum(n - d - 3 for n, d in zip(sizes, chosen, strict=True)) - (len(ratios) > 1)
        if spare < 1:
            noise *= 4
            continue
        dropped = chosen
        left = sum(float(c[d, ratio]) for c, d in zip(costs, dropped, strict=True)) / spare
        if left == noise:
            break
        noise = left
    return [_cut(p, n - d) for p, n, d in zip(cells, sizes, dropped, strict=True)]


def _squares_by_drops(points: Points, ratios: Array) -> Array:
    """Least squares without the highest 0, 1, 2… rates above the best, for each ratio."""
    count = len(points.x)
    above = count - 1 - int(np.argmin(points.y))
    rows: list[Array] = []
    for drops in range(min(above, count - 3) + 1):
        part = _cut(points, count - drops)
        rows.append(sum_of_squares(part, candidates(part), ratios).min(axis=1))
    return np.array(rows)


def _noise_at_most(costs: Sequence[Array], sizes: Sequence[int]) -> float:
    """Half of the median cell's best residual variance over all ways to trim it."""
    best = [
        min(float(c[d].min()) / (n - d - 3) for d in range(len(c)) if n - d > 3)
        for c, n in zip(costs, sizes, strict=True)
        if n > 3
    ]
    return float(np.median(best)) / 2 if best else 0.0
