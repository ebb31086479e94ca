"""Figures of steps to several targets, of the noise scale along runs, and of what goes with it."""

import altair as alt

from scaling.analysis.findings import Findings
from scaling.analysis.generalization.gap_relations import GapRelation
from scaling.records.metrics import Unit
from scaling.report.charts.style import (
    MUTED,
    NO_ENDS,
    AnyChart,
    Records,
    above_zero,
    bars,
    batch_axis,
    count_axis,
    count_x,
    data,
    ends,
    labels_of,
    layers,
    points,
    series,
    tips,
    value_axis,
)
from scaling.report.words.measurements import axis_title
from scaling.report.words.numbers import cell_name, number, titled


def steps_by_target(findings: Findings) -> AnyChart:
    """Steps to target against batch, a line a target; the study's own is thick."""
    records: Records = [
        {
            "batch": cell.global_batch_size,
            "steps": reached.steps.value,
            "low": above_zero((reached.steps.interval or NO_ENDS)[0], reached.steps.value),
            "high": (reached.steps.interval or NO_ENDS)[1],
            "target": number(curve.target),
            "seeds": reached.steps.count,
            "own": curve.origin == "the study's",
        }
        for curve in findings.target_curves
        for cell, reached in zip(findings.cells, curve.cells, strict=True)
        if cell.global_batch_size is not None and reached.steps.value
    ]
    labels = labels_of(records, "target")
    x = batch_axis("batch", [record["batch"] for record in records])
    heights = ends(records, "steps", "low", "high")
    y = alt.Y("steps:Q", title=axis_title("steps_to_target"), **count_axis(heights))
    metric = findings.sweep.target_metric
    title = titled("Target", metric.unit_shown if metric.is_loss else metric.label)
    hue, mark = series("target", labels, title)
    own = [record for record in records if record["own"]]
    return layers(
        alt.Chart(data(records)).mark_line(strokeWidth=1.2).encode(x, y, hue),
        alt.Chart(data(own)).mark_line(strokeWidth=3.5).encode(x, y, hue) if own else None,
        bars(records, x, hue, width=1.5),
        points(records, 60).encode(
            x, y, hue, mark, tooltip=tips("batch:Q", "target:N", "steps:Q", "seeds:Q")
        ),
    )  # fmt: skip


def noise_scale_curves(findings: Findings) -> AnyChart:
    """The gradient noise scale against examples seen, with bands where seeds allow."""
    records: Records = []
    for cell, curve in zip(findings.cells, findings.noise_curves, strict=True):
        for point in curve.points:
            if point.scale.value and point.scale.value > 0 and point.examples > 0:
                low, high = point.scale.interval or (None, None)
                records.append(
                    {
                        "cell": cell_name(cell),
                        "examples": point.examples,
                        "step": point.step,
                        "scale": point.scale.value,
                        "low": max(low, point.scale.value / 100) if low is not None else None,
                        "high": min(high, point.scale.value * 100) if high is not None else None,
                        "seeds": point.scale.count,
                    }
                )
    labels = labels_of(records, "cell")
    x = count_x("examples", [r["examples"] for r in records], 1.05)
    axis = count_axis([record["scale"] for record in records], 2)
    y = alt.Y("scale:Q", title=axis_title("grad_noise_scale"), **axis)
    hue, mark = series("cell", labels, "Batch" if findings.one_series else "Cell")
    bands = [record for record in records if record["low"] is not None]
    base = alt.Chart(data(records))
    return layers(
        alt.Chart(data(bands)).mark_area(opacity=0.15, clip=True).encode(
            x, alt.Y("low:Q", **axis), alt.Y2("high:Q"), hue
        )
        if bands
        else None,
        base.mark_line(strokeWidth=1.8).encode(x, y, hue),
        base.mark_point(filled=True, size=30).encode(
            x, y, hue, mark,
            tooltip=tips("cell:N", "step:Q", "examples:Q", "scale:Q", "low:Q", "high:Q", "seeds:Q"),
        ),
    )  # fmt: skip


def gap_against(relation: GapRelation, loss_unit: Unit) -> AnyChart:
    """The generalization gap of each cell against another of its measures."""
    records: Records = [
        {"x": measure, "gap": gap, "text": f"{batch:,}" if batch else ""}
        for batch, measure, gap in relation.points
    ]
    measured, gaps = [record["x"] for record in records], [record["gap"] for record in records]
    x = alt.X("x:Q", title=relation.against, **value_axis(measured))
    y = alt.Y("gap:Q", title=axis_title("generalization_gap", loss_unit), **value_axis(gaps))
    base = alt.Chart(data(records))  # one for both layers, which then share its data
    return layers(
        base.mark_point(filled=True, size=80, opacity=1).encode(
            x, y, tooltip=tips("text:N", "x:Q", "gap:Q")
        ),
        base.mark_text(align="left", dx=7, dy=-7, fontSize=12, color=MUTED).encode(
            x, y, text=alt.Text("text:N")
        ),
    )


def branched_chart(findings: Findings) -> AnyChart:
    """Critical batch and noise scale against examples, a point a branch point."""
    records: Records = []
    for point in findings.branched.points:
        for name, value, interval in (
            ("branched training", point.value, point.interval),
            ("gradient noise scale", point.noise_scale.value, point.noise_scale.interval),
        ):
            low, high = interval or NO_ENDS
            if value is not None and value > 0:
                records.append(
                    {
                        "examples": point.examples,
                        "series": name,
                        "value": float(value),
                        "low": above_zero(low, float(value)),
                        "high": high,
                    }
                )
    hue, mark = series("series", labels_of(records, "series"), "By")
    heights = ends(records, "value", "low", "high")
    x = count_x("examples", [r["examples"] for r in records], 1.4)
    y = alt.Y("value:Q", title="Critical batch size (examples)", **count_axis(heights))
    return layers(
        alt.Chart(data(records)).mark_line(strokeWidth=1.5).encode(x, y, hue),
        bars(records, x, hue),
        points(records).encode(
            x, y, hue, mark, tooltip=tips("examples:Q", "value:Q", "low:Q", "high:Q")
        ),
    )
