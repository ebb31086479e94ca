"""The critical batch size by branched training against examples seen."""

import altair as alt

from scaling.analysis.critical_batch.branched_training import BranchedTraining
from scaling.analysis.findings import Findings
from scaling.report.charts.style import (
    AnyChart,
    Records,
    colour,
    count_axis,
    data,
    layers,
    shape,
    tips,
)
from scaling.report.words.measurements import axis_title
from scaling.report.words.numbers import number


def branched_caption(branched: BranchedTraining) -> str:
    """How to read the figure."""
    bounds = [p for p in branched.points if p.is_bound]
    text = (
        "The largest batch that ends its window within "
        f"{number(branched.tolerance)} nats of the base batch. Bars: from the largest batch whose "
        "90% interval is within to the smallest whose interval is not; none where the batches "
        "tried do not reach so far."
    )
    if bounds:
        points = ", ".join(f"{p.examples:,}" for p in bounds)
        text += f" A lower bound at {points}: the largest batch tried is still within."
    return text


def branched_chart(findings: Findings) -> AnyChart:
    """Critical batch and noise scale against examples, a point a branch point."""
    records: Records = []
    for point in findings.branched.points:
        for series, value, interval in (
            ("branched training", point.value, point.interval),
            ("gradient noise scale", point.noise_scale.value, point.noise_scale.interval),
        ):
            low, high = interval or (None, None)
            if value is not None and value > 0:
                records.append(
                    {
                        "examples": point.examples,
                        "series": series,
                        "value": float(value),
                        "low": low if low is None or low > 0 else float(value) / 100,
                        "high": high,
                    }
                )
    names = list(dict.fromkeys(record["series"] for record in records))
    hue, mark = colour("series", names, "By"), shape("series", names, "By")
    heights = [r[k] for r in records for k in ("value", "low", "high") if r[k]]
    x = alt.X(
        "examples:Q",
        title=axis_title("examples"),
        **count_axis([r["examples"] for r in records], 1.4),
    )
    y = alt.Y("value:Q", title="Critical batch size (examples)", **count_axis(heights))
    bars = [record for record in records if record["low"] is not None]
    base = alt.Chart(data(records))
    rules = alt.Chart(data(bars)).mark_rule(strokeWidth=2)
    return layers(
        base.mark_line(strokeWidth=1.5).encode(x, y, hue),
        rules.encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), hue) if bars else None,
        base.mark_point(filled=True, size=80, opacity=1).encode(
            x, y, hue, mark, tooltip=tips("examples:Q", "value:Q", "low:Q", "high:Q")
        ),
    )
