"""Which trials and points a figure draws where there are more than anyone can tell apart."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from scaling.analysis.cell_results import CellResult
from scaling.analysis.findings import Findings
from scaling.analysis.trial_rows import TrialRow
from scaling.report.words.numbers import cell_name

MOST_MARKS = 1200
"""Trials that one scatter draws."""
MOST_LINES = 300
"""Trials that one figure draws as lines."""

T = TypeVar("T")


def thinned_trials(
    cells: Sequence[Sequence[TrialRow]], most: int = MOST_MARKS
) -> list[list[TrialRow]]:
    """At most about `most` trials: the best of each cell, and an even choice of its others.

    Of more cells than that an even choice has its best one.

    The others are taken at equal distances in the order in which they were started, so that a
    quasi-random design stays spread out; diverged trials are thinned as all others are.
    """
    if sum(map(len, cells)) <= most:
        return [list(rows) for rows in cells]
    share, num_cells = max(most // len(cells), 1), len(cells)
    drawn = {n * num_cells // most for n in range(most)} if num_cells > most else range(num_cells)
    return [
        _thinned_cell(rows, share) if place in drawn else [] for place, rows in enumerate(cells)
    ]


def searched_trials(
    findings: Findings,
    cells: Sequence[CellResult],
    most: int = MOST_MARKS,
    *,
    with_rate: bool = False,
) -> list[tuple[str, TrialRow]]:
    """The name of its cell and each search trial that is drawn: those with a loss, or diverged."""
    known = [
        [
            row
            for row in findings.sweep.rows_of(cell.cell, "search")
            if row.cost is not None or row.status == "diverged"
            if row.peak_lr is not None or not with_rate
        ]
        for cell in cells
    ]
    kept = zip(cells, thinned_trials(known, most), strict=True)
    return [(cell_name(cell), row) for cell, rows in kept for row in rows]


def trial_record(name: str, row: TrialRow, urls: Mapping[str, str]) -> dict[str, Any]:
    """What a figure shows of a trial of the search in any case."""
    return {
        "cell": name,
        "trial": row.trial_id,
        "cost": row.cost,
        "loss": row.tuned_value,
        "status": row.status,
        "url": urls.get(row.trial_id),
    }


def _thinned_cell(rows: Sequence[TrialRow], share: int) -> list[TrialRow]:
    if len(rows) <= share:
        return list(rows)
    costs = [math.inf if row.cost is None else row.cost for row in rows]
    by_loss = sorted(range(len(rows)), key=costs.__getitem__)
    best = set(by_loss[: max(share // 4, 1)])
    others = [place for place in range(len(rows)) if place not in best]
    room = share - len(best)
    kept = best | {others[index * len(others) // room] for index in range(room)}
    return [rows[place] for place in sorted(kept)]


def thinned_points(points: Sequence[T], most: int) -> list[T]:
    """At most `most` points of a curve, evenly in the logarithm of their place."""
    if len(points) <= most:
        return list(points)
    last = len(points) - 1
    places = {round(math.expm1(math.log1p(last) * index / (most - 1))) for index in range(most)}
    return [points[place] for place in sorted(places)]


def lower_envelope(
    points: Sequence[tuple[float, float]], most: int
) -> tuple[tuple[float, float], ...]:
    """Of points by rising x > 0, the lowest in each of `most` equal steps of log x."""
    if len(points) <= most:
        return tuple(points)
    start, end = math.log(points[0][0]), math.log(points[-1][0])
    lowest: dict[int, tuple[float, float]] = {}
    for point in points:
        place = min(int((math.log(point[0]) - start) / (end - start) * most), most - 1)
        if place not in lowest or point[1] < lowest[place][1]:
            lowest[place] = point
    return tuple(lowest[place] for place in sorted(lowest))
