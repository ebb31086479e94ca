"""Figures of studies whose cells differ in more than the batch size, a colour for each series."""

import altair as alt

from scaling.analysis.findings import Findings
from scaling.report.charts.style import (
    NO_ENDS,
    AnyChart,
    Records,
    bars,
    batch_axis,
    data,
    ends,
    labels_of,
    layers,
    points,
    rate_axis,
    series,
    tips,
)


def best_lr_by_series(findings: Findings) -> AnyChart:
    """Best rate against batch, with the surface's band along each series."""
    records: Records = [
        {
            "batch": cell.global_batch_size,
            "best": cell.best_peak_lr,
            "low": (cell.best_peak_lr_bounds or NO_ENDS)[0],
            "high": (cell.best_peak_lr_bounds or NO_ENDS)[1],
            "series": found.label,
        }
        for found in findings.series
        for cell in found.cells
        if cell.curve and cell.best_peak_lr is not None
    ]
    along: Records = [
        {
            "batch": at.global_batch_size,
            "rate": at.peak_lr,
            "under": at.interval[0],
            "over": at.interval[1],
            "series": found.label,
        }
        for found in findings.series
        for at in found.rate_band
        if at.interval is not None
    ]
    x = batch_axis("batch", [record["batch"] for record in records], 1.4)
    y = alt.Y(
        "best:Q", title="Best peak learning rate", **rate_axis(ends(records, "best", "low", "high"))
    )
    hue, mark = series("series", labels_of(records, "series"), "Cells")
    band = alt.Chart(data(along))
    return layers(
        band.mark_area(opacity=0.12, clip=True).encode(x, alt.Y("under:Q"), alt.Y2("over:Q"), hue)
        if along
        else None,
        band.mark_line(strokeWidth=1.4, clip=True).encode(x, alt.Y("rate:Q"), hue)
        if along
        else None,
        bars(records, x, hue),
        points(records, 90).encode(
            x, y, hue, mark, tooltip=tips("series:N", "batch:Q", "best:Q", "low:Q", "high:Q")
        ),
    )
