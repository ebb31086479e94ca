"""Does the generalization gap go with sharpness or with the noise scale, over the cells?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Literal

from scipy.stats import spearmanr  # pyright: ignore -- scipy ships no types

from scaling.analysis.cell_results import CellResult
from scaling.analysis.statistics.uncertainty import TAILS, Estimate

Against = Literal["sharpness", "hessian_top_eigenvalue", "grad_noise_scale"]
ENOUGH_CELLS = 8
"""Below it the interval of a rank correlation says nothing (with 5 cells: −0.7 to 1)."""


@dataclass(frozen=True)
class GapRelation:
    """The gap of the cells against another of their measures.

    Attributes:
        against: The other measure.
        points: (global_batch_size, measure, gap), one a cell that has both, means over seeds.
        correlation: Spearman's, with an interval; absent with fewer than eight cells, which is
            not enough data.
    """

    against: Against
    points: tuple[tuple[int | None, float, float], ...]
    correlation: Estimate


def gap_relations(cells: Sequence[CellResult]) -> tuple[GapRelation, ...]:
    """The gap against each of the three measures, whether cells have it or not."""
    measures: tuple[Against, ...] = ("sharpness", "hessian_top_eigenvalue", "grad_noise_scale")
    return tuple(_relation(against, cells) for against in measures)


def _relation(against: Against, cells: Sequence[CellResult]) -> GapRelation:
    points: list[tuple[int | None, float, float]] = []
    for cell in cells:
        measured = cell.noise_scale.value if against == "grad_noise_scale" else _last(cell, against)
        if measured is not None and cell.gap.value is not None:
            points.append((cell.global_batch_size, measured, cell.gap.value))
    x, y = [point[1] for point in points], [point[2] for point in points]
    return GapRelation(against, tuple(points), rank_correlation(x, y))


def _last(cell: CellResult, name: str) -> float | None:
    """Mean over replicates of their last value."""
    values: list[float] = []
    for row in cell.replicates:
        known = [v for m in row.measurements if (v := getattr(m, name)) is not None]
        values += known[-1:]
    return fmean(values) if values else None


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> Estimate:
    """Spearman's correlation with an interval by Fisher's transformation.

    Where ranks agree wholly the transformation has no value: it is taken half a step of the
    correlation before its end (continuity correction), which gives a bound on one side.

    Returns:
        No value with fewer than eight pairs, or where one side is constant.

    Source: the variance 1.06 / (n − 3), Fieller, Hartley & Pearson 1957, Tests for rank
        correlation coefficients I.
    """
    count = len(x)
    if count < ENOUGH_CELLS or len(set(x)) < 2 or len(set(y)) < 2:
        return Estimate(count=count)
    value = float(spearmanr(x, y).statistic)  # pyright: ignore -- scipy ships no types
    most = 1 - 6 / (count * (count**2 - 1))  # two neighbours that change places take 12
    centre = math.atanh(max(min(value, most), -most))
    half = NormalDist().inv_cdf(TAILS[1]) * math.sqrt(1.06 / (count - 3))
    low, high = math.tanh(centre - half), math.tanh(centre + half)
    ends = (-1.0 if value < -most else low, 1.0 if value > most else high)
    return Estimate(value, ends, count)
