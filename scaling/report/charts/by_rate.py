"""Figures of the learning rate: its curve in each cell, its move with the batch, the rules."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import altair as alt
import numpy as np

from scaling.analysis.cell_results import CellResult
from scaling.analysis.findings import Findings
from scaling.analysis.learning_rate.exponent import BestRate, Surge
from scaling.report.charts.style import (
    MUTED,
    OKABE_ITO,
    AnyChart,
    Records,
    bars,
    batch_axis,
    chart,
    edge_marks,
    ends,
    estimates,
    labels_of,
    layers,
    points,
    rate_axis,
    series,
    shape,
    span,
    tips,
    value_axis,
    visible_top,
    with_span,
)
from scaling.report.charts.thinning import lower_envelope, searched_trials, trial_record
from scaling.report.words.measurements import objective_title
from scaling.report.words.numbers import cell_name

_MOST_POINTS = 40
_SLOPES = ((0.0, "0 (none)"), (0.5, "½ (sqrt)"), (1.0, "1 (linear)"))


def loss_vs_lr(findings: Findings, urls: Mapping[str, str]) -> AnyChart:
    """Loss of every search trial against its rate, a colour and a shape a cell.

    A metric that recipes are tuned for stands in place of the loss; of one that is maximized the
    edge is at the bottom.
    """
    objective = findings.sweep.tuned_for
    sign = 1 if objective.direction == "minimize" else -1
    cells = [cell for cell in findings.cells if cell.curve is not None]
    labels = [cell_name(cell) for cell in cells]
    title = "Batch" if findings.one_series else "Cell"
    trials: Records = [
        trial_record(name, row, urls) | {"peak_lr": row.peak_lr}
        for name, row in searched_trials(findings, cells, with_rate=True)
    ]
    costs = [record["cost"] for record in trials if record["cost"] is not None]
    top = visible_top(costs)
    kept = [r for r in trials if r["cost"] is not None and r["cost"] <= top]
    diverged = [r for r in trials if r["cost"] is None]
    above = [r for r in trials if r["cost"] is not None and r["cost"] > top]
    x = alt.X("peak_lr:Q", title="Peak learning rate", **rate_axis([r["peak_lr"] for r in trials]))
    axis = value_axis([sign * cost for cost in costs if cost <= top])
    y = alt.Y("loss:Q", title=objective_title(objective), **axis)
    hue, mark = series("cell", labels, title)
    tooltip = tips("cell:N", "trial:N", "peak_lr:Q", "loss:Q", "status:N")
    points = chart(kept).mark_point(filled=True, size=46, opacity=0.75)
    line = chart(_envelopes(cells, top, sign)).mark_line(opacity=0.6, strokeWidth=1.3)
    return layers(
        line.encode(x, y, hue),
        points.encode(x, y, hue, mark, href=alt.Href("url:N"), tooltip=tooltip),
        _cliffs(cells, hue),
        *_best_marks(cells, y, hue, sign),
        edge_marks(diverged, filled=True, at_bottom=sign < 0).encode(x, hue, tooltip=tooltip),
        edge_marks(above, filled=False, at_bottom=sign < 0).encode(x, hue, tooltip=tooltip),
    )


def _cliffs(cells: Sequence[CellResult], hue: alt.Color) -> alt.Chart | None:
    """A dashed line at the lowest rate that diverged in each cell."""
    records: Records = [
        {"cell": cell_name(cell), "cliff": cell.curve.cliff}
        for cell in cells
        if cell.curve and cell.curve.cliff is not None
    ]
    if not records:
        return None
    rules = chart(records).mark_rule(strokeDash=[5, 4], strokeWidth=1.2, opacity=0.7)
    return rules.encode(alt.X("cliff:Q"), hue, tooltip=tips("cell:N", "cliff:Q"))


def _best_marks(
    cells: Sequence[CellResult], y: alt.Y, hue: alt.Color, sign: int
) -> list[alt.Chart]:
    """The best rate of each cell, its interval, and a ring where it is at the edge."""
    best = _optima(cells, sign)
    ring = [record for record in best if record["edge"]]
    strokes = chart(best).mark_point(size=420, strokeWidth=3, shape="stroke", angle=90)
    rings = chart(ring).mark_point(size=420, strokeWidth=1.5, shape="circle")
    x = alt.X("optimum:Q")
    return [
        chart(with_span(best))
        .mark_rule(strokeWidth=3, opacity=0.7, clip=True)
        .encode(alt.X("low:Q"), alt.X2("high:Q"), y, hue),
        strokes.encode(x, y, hue, tooltip=tips("cell:N", "optimum:Q", "low:Q", "high:Q")),
        rings.encode(x, y, hue),
    ]


def _envelopes(cells: Sequence[CellResult], top: float, sign: int) -> Records:
    """Lines through the best recipes of each rate; they end where they leave the axis."""
    records: Records = []
    for cell in cells:
        before: tuple[float, float] | None = None
        points = cell.curve.points if cell.curve else ()
        for point in lower_envelope(points, _MOST_POINTS):
            inside = [point] if point[1] <= top else []
            if before is not None and (before[1] <= top) != (point[1] <= top):
                inside.insert(0, _at_height(before, point, top))
            name = cell_name(cell)
            records += [{"cell": name, "peak_lr": lr, "loss": sign * h} for lr, h in inside]
            if point[1] > top:
                records.append({"cell": cell_name(cell), "peak_lr": point[0], "loss": None})
            before = point
    return records


def _at_height(
    start: tuple[float, float], end: tuple[float, float], height: float
) -> tuple[float, float]:
    """Where a straight line over log rate has a height."""
    share = (height - start[1]) / (end[1] - start[1])
    return start[0] * (end[0] / start[0]) ** share, height


def _optima(cells: Sequence[CellResult], sign: int) -> Records:
    """Best rate of each cell at the height of its lowest point."""
    records: Records = []
    for cell in cells:
        if cell.curve is None or cell.best_peak_lr is None:
            continue
        lowest = sign * min(loss for _, loss in cell.curve.points)
        edge = cell.curve.edge is not None
        best = cell.curve.best_tried if edge else cell.best_peak_lr
        known = {"cell": cell_name(cell), "optimum": best, "loss": lowest, "edge": edge}
        records.append(known | span(cell.best_peak_lr_bounds))
    return records


def best_lr_vs_batch(findings: Findings) -> AnyChart:
    """Best rate against batch with the fitted power, its interval and three reference slopes."""
    records = _best_rates(findings.cells)
    sizes = [record["batch"] for record in records]
    box = ends(records, "best", "low", "high")
    low, high = min(box) / 1.7, max(box) * 1.7
    x = batch_axis("batch", sizes, 1.4)
    y = alt.Y("best:Q", title="Best peak learning rate", **rate_axis([low * 1.25, high / 1.25]))
    used = [record for record in records if record["batch"] in findings.lr_scaling.batch_sizes]
    return layers(
        *_band(_band_records(findings.rate_band), x, color=MUTED, opacity=0.18),
        *(_references(findings, used, (low, high), x, y) if len(used) > 1 else ()),
        bars(records, x, color=OKABE_ITO[0]),
        points(records, 90).encode(
            x,
            y,
            shape("kind", sorted({r["kind"] for r in records}, reverse=True), "Best rate is"),
            color=alt.value(OKABE_ITO[0]),
            tooltip=tips("batch:Q", "best:Q", "low:Q", "high:Q", "kind:N"),
        ),
    )  # fmt: skip


def best_lr_by_series(findings: Findings) -> AnyChart:
    """Best rate against batch, with the surface's band, in a colour for each series."""
    records: Records = [
        record | {"series": found.label}
        for found in findings.series
        for record in _best_rates(found.cells)
    ]
    bands: Records = [
        record | {"series": found.label}
        for found in findings.series
        for record in _band_records(found.rate_band)
    ]
    x = batch_axis("batch", [record["batch"] for record in records], 1.4)
    heights = rate_axis(ends(records, "best", "low", "high"))
    y = alt.Y("best:Q", title="Best peak learning rate", **heights)
    marks = series("series", labels_of(records, "series"), "Cells")
    shown = ("series:N", "batch:Q", "best:Q", "low:Q", "high:Q")
    return layers(
        *_band(bands, x, marks[0], opacity=0.12),
        *estimates(records, x, y, marks, *shown, size=90),
    )


def _best_rates(cells: Sequence[CellResult]) -> Records:
    """The best rate of each cell with its interval, and whether it is inside the rates tried."""
    return [
        {
            "batch": cell.global_batch_size,
            "best": cell.best_peak_lr,
            **span(cell.best_peak_lr_bounds),
            "kind": "at the edge of the rates tried"
            if cell.curve.edge
            else "inside the rates tried",
        }
        for cell in cells
        if cell.curve and cell.best_peak_lr is not None
    ]


def _band_records(path: Sequence[BestRate]) -> Records:
    """The surface's best rate between the batch sizes, and its interval."""
    return [
        {
            "batch": at.global_batch_size,
            "rate": at.peak_lr,
            "under": at.interval[0],
            "over": at.interval[1],
        }
        for at in path
        if at.interval is not None
    ]


def _band(
    bands: Records, x: alt.X, *marks: alt.Color, opacity: float, **style: Any
) -> list[alt.Chart]:
    if not bands:
        return []
    base = chart(bands)
    area = base.mark_area(**style, opacity=opacity, clip=True)
    line = base.mark_line(**style, strokeWidth=1.4, clip=True)
    return [
        area.encode(x, alt.Y("under:Q"), alt.Y2("over:Q"), *marks),
        line.encode(x, alt.Y("rate:Q"), *marks),
    ]


def _references(
    findings: Findings, used: Records, box: tuple[float, float], x: alt.X, y: alt.Y
) -> list[alt.Chart]:
    """Lines of given slopes through the middle of the optima, cut to the figure's box."""
    sizes = [record["batch"] for record in used]
    fitted = findings.lr_scaling.middle
    pivot = (
        (math.log(fitted[0]), math.log(fitted[1]))
        if fitted
        else (
            fmean(math.log(size) for size in sizes),
            fmean(math.log(record["best"]) for record in used),
        )
    )
    across = np.linspace(math.log(min(sizes) / 1.3), math.log(max(sizes) * 1.3), 61).tolist()

    def line(slope: float) -> Records:
        inside = [
            (b, lr)
            for b in across
            if math.log(box[0]) <= (lr := pivot[1] + slope * (b - pivot[0])) <= math.log(box[1])
        ]
        return [{"batch": math.exp(b), "best": math.exp(lr)} for b, lr in inside]

    charts: list[alt.Chart] = []
    for slope, name in _SLOPES:
        points = line(slope)
        end = [point | {"name": name} for point in points[-1:]]
        charts += [
            chart(points).mark_line(strokeDash=[3, 4], color=MUTED, strokeWidth=1.2).encode(x, y),
            chart(end)
            .mark_text(align="right", dx=-2, dy=-8, color=MUTED, fontSize=11)
            .encode(x, y, text=alt.Text("name:N")),
        ]
    exponent = findings.lr_scaling.exponent
    if exponent.value is not None:
        fitted_line = chart(line(exponent.value)).mark_line(color=OKABE_ITO[1], strokeWidth=2.2)
        charts.append(fitted_line.encode(x, y))
    if findings.lr_scaling.surge.preferred:
        turning = [p for p in _surge_line(findings.lr_scaling.surge, across) if box[0] <= p["best"]]
        dashed = {"color": OKABE_ITO[2], "strokeWidth": 2.2, "strokeDash": [8, 3]}
        charts.append(chart(turning).mark_line(**dashed).encode(x, y))
    if exponent.interval is not None:
        charts.insert(0, _bow_tie(exponent.interval, pivot, across, box).encode(x))
    return charts


def _surge_line(surge: Surge, across: Sequence[float]) -> Records:
    """The law that turns, at some log batches."""
    turn, top = surge.noise_batch.value, surge.peak_lr
    if turn is None or top is None:
        return []
    return [
        {"batch": math.exp(b), "best": top / math.cosh((b - math.log(turn)) / 2)} for b in across
    ]


def _bow_tie(
    slopes: tuple[float, float],
    pivot: tuple[float, float],
    across: Sequence[float],
    box: tuple[float, float],
) -> alt.Chart:
    """All lines through the middle whose slope lies in the interval."""
    records: Records = []
    for b in across:
        heights = [math.exp(pivot[1] + slope * (b - pivot[0])) for slope in slopes]
        clipped = [min(max(height, box[0]), box[1]) for height in heights]
        records.append({"batch": math.exp(b), "under": min(clipped), "over": max(clipped)})
    area = chart(records).mark_area(color=OKABE_ITO[1], opacity=0.15)
    return area.encode(alt.Y("under:Q"), alt.Y2("over:Q"))
