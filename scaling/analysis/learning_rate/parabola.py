"""One cell's losses about a parabola in log rate with another curvature on each side."""

from dataclasses import dataclass

import numpy as np

from scaling.analysis.statistics.profile import Array

RATIOS: Array = np.exp2(np.arange(-4, 7) / 2)
"""Curvature above the optimum over that below it; a quarter to eight."""
SYMMETRIC: Array = np.ones(1)
_REACH = 0.3
"""How far beyond the rates tried an optimum is looked for, as a share of their range."""
NUM_CANDIDATES = 121


@dataclass(frozen=True)
class Points:
    """Loss against log rate in one cell, by rising rate.

    Attributes:
        x: Logarithm of each peak learning rate.
        y: Loss, the mean over the seeds.
        weight: Seeds behind each.
        lowest: Logarithm of the lowest rate tried.
        highest: Of the highest, diverged ones too.
        cliff: Of the lowest rate that diverged, where it is above all others; else infinite.
    """

    x: Array
    y: Array
    weight: Array
    lowest: float
    highest: float
    cliff: float


def sum_of_squares(points: Points, optima: Array, ratios: Array) -> Array:
    """Weighted squares about y = depth + width · g(x − optimum), depth and width at their best.

    g is a parabola with another curvature on each side, of the given ratio; the width is never
    negative.

    Args:
        points: One cell.
        optima: V candidate optima, log rate.
        ratios: R ratios of the curvature above to that below.

    Returns:
        R × V sums of squares.
    """
    weight = points.weight
    u = points.x[None, :] - optima[:, None]
    above = np.sqrt(ratios)[:, None, None]
    g = u * u * np.where(u > 0, above, 1 / above)
    g = g - (g * weight).sum(axis=-1, keepdims=True) / weight.sum()
    y = points.y - (weight * points.y).sum() / weight.sum()
    gg = (weight * g * g).sum(axis=-1)
    gy = np.maximum((weight * g * y).sum(axis=-1), 0.0)
    explained = np.divide(gy * gy, gg, out=np.zeros_like(gy), where=gg > 0)
    return np.maximum((weight * y * y).sum() - explained, 0.0)


def least_over_ratios(squares: Array) -> Array:
    """The least along the first axis, between the grid's ratios too (a parabola through three)."""
    if len(squares) < 3:
        return squares.min(axis=0)
    inner = np.clip(np.argmin(squares, axis=0), 1, len(squares) - 2)[None]
    under, middle, over = (
        np.take_along_axis(squares, inner + offset, axis=0)[0] for offset in (-1, 0, 1)
    )
    bend = under - 2 * middle + over
    turns = (middle <= under) & (middle <= over) & (bend > 0)
    gain = np.divide((over - under) ** 2, 8 * bend, out=np.zeros_like(bend), where=turns)
    return np.minimum(squares.min(axis=0), middle - gain)


def candidates(points: Points) -> Array:
    """Candidate optima: the rates tried and a little beyond, up to the cliff."""
    margin = _REACH * (points.highest - points.lowest)
    end = min(points.highest + margin, points.cliff)
    return np.linspace(points.lowest - margin, end, NUM_CANDIDATES)


def finer_ratios(ratios: Array, totals: Array, worth: float) -> Array:
    """As many ratios, over those alone that fit about as well as the best."""
    if len(ratios) == 1:
        return ratios
    near = np.nonzero(totals <= totals.min() + worth)[0]
    first, last = max(int(near[0]) - 1, 0), min(int(near[-1]) + 1, len(ratios) - 1)
    logs = np.log(ratios)
    return np.exp(np.linspace(float(logs[first]), float(logs[last]), len(ratios)))


def finer_candidates(grid: Array, squares: Array, best: int, worth: float) -> Array:
    """The grid with more candidates where the squares are close to their least."""
    lowest = int(np.argmin(squares[best]))
    near = np.nonzero(squares.min(axis=0) <= squares[best, lowest] + worth)[0]
    first = max(min(int(near[0]), lowest - 1) - 1, 0)
    last = min(max(int(near[-1]), lowest + 1) + 1, len(grid) - 1)
    between = np.linspace(float(grid[first]), float(grid[last]), NUM_CANDIDATES)
    return np.unique(np.concatenate([grid, between]))
