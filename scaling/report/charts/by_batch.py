"""Figures over the batch size: steps, examples, their trade-off, the generalization gap."""

import math
from typing import Any, Literal

import altair as alt
import numpy as np

from scaling.analysis.cell_results import CellResult
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.findings import Findings
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.report.charts.style import (
    MUTED,
    OKABE_ITO,
    AnyChart,
    Records,
    batch_axis,
    chart,
    count_axis,
    dash,
    ends,
    estimates,
    labels_of,
    layers,
    log_span,
    names_beside,
    points,
    rule_at,
    series,
    span,
    tips,
    value_axis,
    with_span,
)
from scaling.report.words.measurements import axis_title, objective_title
from scaling.report.words.numbers import counted, number

_CURVE_POINTS = 81
_MOST_LABELS = 7
_SHOWN = ("batch:Q", "value:Q", "interval:N", "seeds:Q")
"""On hover."""


def to_target(findings: Findings, measure: Literal["steps", "examples"], title: str) -> AnyChart:
    """Steps or examples to the target against batch with the trade-off fit."""
    records = _records(findings, measure)
    sizes = [record["batch"] for record in records]
    curve = _fit_curve(findings.tradeoff, sizes)
    of_series = _series_curves(findings)
    heights = ends(records, "value", "low", "high")
    x = batch_axis("batch", sizes)
    scale = count_axis([*heights, *(record[measure] for record in [*curve, *of_series])])
    y = alt.Y("value:Q", title=title, **scale)
    fitted = chart(curve).mark_line(color=MUTED, strokeWidth=1.8)
    along = chart(of_series).mark_line(strokeWidth=1.8)
    at = alt.Y(f"{measure}:Q", title=title, **scale)
    marks = series("series", labels_of(records, "series"), "Cells")
    return layers(
        *_critical_marks(findings, sizes),
        fitted.encode(x, at) if curve else None,
        along.encode(x, at, marks[0]) if of_series else None,
        *estimates(records, x, y, marks, *_SHOWN),
    )


def _records(findings: Findings, measure: str) -> list[dict[str, Any]]:
    """The cells that took steps; one that was at the target before is not on a logarithmic axis."""
    found = [(cell, getattr(cell.target, measure)) for cell in findings.cells]
    return [
        record | log_span(estimate)
        for cell, estimate in found
        if estimate.value
        for record in _records_of(cell, estimate)
    ]


def _records_of(cell: CellResult, estimate: Estimate) -> Records:
    """A cell's record of an estimate; none without a batch size or a value."""
    if cell.global_batch_size is None or estimate.value is None:
        return []
    values = {"value": estimate.value, **span(estimate.interval), "seeds": estimate.count}
    return [{"batch": cell.global_batch_size, "series": cell.series or "all", **values}]


def _series_curves(findings: Findings) -> Records:
    """The fit of each series over the batch sizes of its own that reached the target."""
    curves: Records = []
    for found in findings.series:
        reached = [c.global_batch_size for c in found.cells if c.target.steps.value]
        sizes = [size for size in reached if size is not None]
        curve = _fit_curve(found.tradeoff, sizes) if sizes else []
        curves += [record | {"series": found.label} for record in curve]
    return curves


def _fit_curve(fit: TradeoffFit, sizes: list[int]) -> Records:
    if fit.headline.value is None:
        return []
    batches = np.geomspace(min(sizes), max(sizes), _CURVE_POINTS).tolist()
    return [
        {"batch": batch, "steps": steps, "examples": steps * batch}
        for batch in batches
        if (steps := fit.steps_at(batch)) is not None
    ]


def _critical_marks(findings: Findings, sizes: list[int]) -> list[AnyChart]:
    """A line at the critical batch size and a band over its interval, where they are in view."""
    critical = findings.tradeoff.headline
    if critical.value is None or not min(sizes) <= critical.value <= max(sizes):
        return []
    marks: list[AnyChart] = []
    x = batch_axis("batch", sizes)
    if critical.interval is not None:
        low, high = max(critical.interval[0], min(sizes)), min(critical.interval[1], max(sizes))
        band = chart([{"batch": low, "end": high}])
        marks.append(band.mark_rect(opacity=0.14, color=OKABE_ITO[4]).encode(x, alt.X2("end:Q")))
    text = f"critical batch {number(critical.value)}"
    line = chart([{"batch": critical.value, "text": text}])
    right = math.log(critical.value / min(sizes)) < 0.6 * math.log(max(sizes) / min(sizes))
    marks += [
        line.mark_rule(strokeDash=[5, 4], color=OKABE_ITO[1]).encode(x),
        line.mark_text(
            align="left" if right else "right",
            dx=5 if right else -5,
            color=OKABE_ITO[1],
            fontSize=12,
        ).encode(x, y=alt.value(10), text=alt.Text("text:N")),
    ]
    return marks


def steps_vs_examples(findings: Findings) -> AnyChart:
    """Examples against steps to the target: what time costs in data."""
    records: Records = [
        {
            "batch": cell.global_batch_size,
            "steps": cell.target.steps.value,
            "examples": cell.target.examples.value,
            "text": f"{cell.global_batch_size:,}",
            "series": cell.series or "all",
        }
        for cell in findings.cells
        if cell.target.steps.value and cell.target.examples.value
    ]
    curve = _fit_curve(findings.tradeoff, [record["batch"] for record in records])
    every = math.ceil(len(records) / _MOST_LABELS)
    both = records + curve
    x = alt.X(
        "steps:Q", title=axis_title("steps_to_target"), **count_axis([r["steps"] for r in both])
    )
    heights = count_axis([r["examples"] for r in both], 1.4)
    y = alt.Y("examples:Q", title=axis_title("examples_to_target"), **heights)
    hue, mark = series("series", labels_of(records, "series"), "Cells")
    return layers(
        chart(curve).mark_line(color=MUTED, strokeWidth=1.8).encode(x, y) if curve else None,
        points(records).encode(x, y, hue, mark, tooltip=tips("batch:Q", "steps:Q", "examples:Q")),
        names_beside(records[::every], x, y),
    )


def gap_vs_batch(findings: Findings) -> AnyChart:
    """Generalization gap against batch with its intervals."""
    records = [record for cell in findings.cells for record in _records_of(cell, cell.gap)]
    heights = ends(records, "value", "low", "high")
    x = batch_axis("batch", [record["batch"] for record in records])
    axis = alt.Axis(tickCount=6)
    margin = 0.08 * (max(heights) - min(heights)) or 0.01
    scale = alt.Scale(domain=[min(heights) - margin, max(heights) + margin], nice=False, zero=False)
    title = axis_title("generalization_gap", findings.sweep.loss_unit)
    y = alt.Y("value:Q", title=title, axis=axis, scale=scale)
    crosses = min(heights) < 0 < max(heights)
    marks = series("series", labels_of(records, "series"), "Cells")
    return layers(rule_at(0) if crosses else None, *estimates(records, x, y, marks, *_SHOWN))


def loss_vs_batch(findings: Findings) -> AnyChart:
    """Of each cell's best recipe, the validation loss, or the metric it is tuned for, by batch."""
    records = _tuned(findings)
    heights = ends(records, "value", "low", "high")
    x = batch_axis("batch", [record["batch"] for record in records])
    y = alt.Y("value:Q", title=objective_title(findings.sweep.tuned_for), **value_axis(heights))
    marks = series("series", labels_of(records, "series"), "Cells")
    return layers(*estimates(records, x, y, marks, *_SHOWN))


def loss_and_time(findings: Findings) -> AnyChart:
    """The first screen's figure: of each cell's run, loss on the left axis, time on the right."""
    losses = _tuned(findings)
    times, title, _ = times_of(findings)
    x = batch_axis("batch", [record["batch"] for record in losses])
    left = alt.Axis(titleColor=OKABE_ITO[0], tickCount=6)
    heights = value_axis(ends(losses, "value", "low", "high")) | {"axis": left}
    objective = findings.sweep.tuned_for
    shown = [_both(losses, x, {"title": objective_title(objective), **heights}, OKABE_ITO[0])]
    if times:
        right = count_axis(ends(times, "value", "low", "high"))
        right["axis"].orient, right["axis"].grid = "right", False
        right["axis"].titleColor, right["axis"].format = OKABE_ITO[1], "~g"
        shown.append(_both(times, x, {"title": title, **right}, OKABE_ITO[1]))
    return layers(*shown).resolve_scale(y="independent")


def _both(records: Records, x: alt.X, axis: dict[str, Any], hue: str) -> AnyChart:
    """Points with their intervals, joined by a line, dashed by series where there are several."""
    y = alt.Y("value:Q", **axis)
    mark = "circle" if hue == OKABE_ITO[0] else "square"
    marks = points(records, 70).encode(
        x, y, color=alt.value(hue), shape=alt.value(mark),
        tooltip=tips("series:N", "batch:Q", "value:Q", "interval:N", "seeds:Q"),
    )  # fmt: skip
    spans = with_span(records)
    intervals = chart(spans).mark_rule(color=hue, strokeWidth=2, clip=True)
    names = labels_of(records, "series")
    line = chart(records).mark_line(color=hue, opacity=0.45).encode(x, y)
    return layers(
        line.encode(dash("series", names, "Cells")) if len(names) > 1 else line,
        intervals.encode(x, alt.Y("low:Q", **axis), alt.Y2("high:Q")) if spans else None,
        marks,
    )


def _tuned(findings: Findings) -> Records:
    """Of each cell's recipe, what it is tuned for."""
    objective = findings.sweep.tuned_for
    return [r for cell in findings.cells for r in _records_of(cell, cell.value_of(objective))]


def times_of(findings: Findings) -> tuple[Records, str, bool]:
    """Seconds of one more run of each cell, or its mean steps to the target where none was timed.

    Returns:
        A record a cell, the title of their axis, and whether they are of one more run.
    """
    chosen = findings.recommendation.option
    seconds = [
        record | log_span(option.seconds)
        for option in findings.recommendation.candidates
        if option.seconds.value and (chosen is None or option.num_workers == chosen.num_workers)
        for record in _records_of(option.cell, option.seconds)
    ]
    if seconds:
        workers = ""
        if chosen is not None and chosen.carried_over:
            workers = f" on {counted(chosen.num_workers or 1, 'worker')}"
        return seconds, f"Seconds of one more run{workers}", True
    return _records(findings, "steps"), axis_title("steps_to_target"), False
