"""Figures of steps to several targets, of the noise scale along runs, and of what goes with it."""

import altair as alt

from scaling.analysis.findings import Findings
from scaling.analysis.generalization.gap_relations import GapRelation
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.records.metrics import Unit
from scaling.report.charts.style import (
    MUTED,
    AnyChart,
    Records,
    batch_axis,
    chart,
    count_axis,
    count_x,
    ends,
    estimates,
    labels_of,
    layers,
    log_span,
    series,
    tips,
    value_axis,
    with_span,
)
from scaling.report.words.measurements import axis_title
from scaling.report.words.numbers import cell_name, number, titled


def steps_by_target(findings: Findings) -> AnyChart:
    """Steps to target against batch, a line a target; the study's own is thick."""
    records: Records = [
        {
            "batch": cell.global_batch_size,
            "steps": reached.steps.value,
            **log_span(reached.steps),
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
    marks = series("target", labels, title)
    shown = ("batch:Q", "target:N", "steps:Q", "seeds:Q")
    own = [record for record in records if record["own"]]
    return layers(
        chart(records).mark_line(strokeWidth=1.2).encode(x, y, marks[0]),
        chart(own).mark_line(strokeWidth=3.5).encode(x, y, marks[0]) if own else None,
        *estimates(records, x, y, marks, *shown, size=60, width=1.5),
    )


def noise_scale_curves(findings: Findings) -> AnyChart:
    """The gradient noise scale against examples seen, with bands where seeds allow."""
    records: Records = []
    for cell, curve in zip(findings.cells, findings.noise_curves, strict=True):
        for point in curve.points:
            if point.scale.value and point.scale.value > 0 and point.examples > 0:
                records.append(
                    {
                        "cell": cell_name(cell),
                        "examples": point.examples,
                        "step": point.step,
                        "scale": point.scale.value,
                        **log_span(point.scale),
                        "seeds": point.scale.count,
                    }
                )
    labels = labels_of(records, "cell")
    x = count_x("examples", [r["examples"] for r in records], 1.05)
    axis = count_axis([record["scale"] for record in records], 2)
    y = alt.Y("scale:Q", title=axis_title("grad_noise_scale"), **axis)
    hue, mark = series("cell", labels, "Batch" if findings.one_series else "Cell")
    bands = with_span(records)
    base = chart(records)
    return layers(
        chart(bands).mark_area(opacity=0.15, clip=True).encode(
            x, alt.Y("low:Q", **axis), alt.Y2("high:Q"), hue
        )
        if bands
        else None,
        base.mark_line(strokeWidth=1.8).encode(x, y, hue),
        base.mark_point(filled=True, size=30).encode(
            x, y, hue, mark,
            tooltip=tips("cell:N", "step:Q", "examples:Q", "scale:Q", "interval:N", "seeds:Q"),
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
    base = chart(records)  # one for both layers, which then share its data
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
        branched = Estimate(point.value, point.interval)
        for name, found in (
            ("branched training", branched),
            ("gradient noise scale", point.noise_scale),
        ):
            if found.value is not None and found.value > 0:
                at = {"examples": point.examples, "series": name, "value": float(found.value)}
                records.append(at | log_span(found))
    marks = series("series", labels_of(records, "series"), "By")
    heights = ends(records, "value", "low", "high")
    x = count_x("examples", [r["examples"] for r in records], 1.4)
    y = alt.Y("value:Q", title="Critical batch size (examples)", **count_axis(heights))
    return layers(
        chart(records).mark_line(strokeWidth=1.5).encode(x, y, marks[0]),
        *estimates(records, x, y, marks, "examples:Q", "value:Q", "interval:N"),
    )
