"""The critical batch size by branched training against examples seen."""

import altair as alt

from scaling.analysis.findings import Findings
from scaling.report.charts.style import (
    NO_ENDS,
    AnyChart,
    Records,
    above_zero,
    bars,
    count_axis,
    count_x,
    data,
    ends,
    labels_of,
    layers,
    points,
    series,
    tips,
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
    names = labels_of(records, "series")
    hue, mark = series("series", names, "By")
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
