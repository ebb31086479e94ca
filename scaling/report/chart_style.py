"""Scales, ticks and colours that all figures share."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt

Records = list[dict[str, Any]]
AnyChart = alt.Chart | alt.LayerChart

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito 2008, without the two that vanish on white or on black."""
VIRIDIS = (
    "#433e85", "#38598c", "#2d708e", "#25858e", "#1e9b8a", "#2ab07f", "#52c569", "#86d549",
)  # fmt: skip
"""The middle of viridis, readable on white and on black; for more than six ordered values."""
SHAPES = (
    "circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right",
    "triangle-left",
)  # fmt: skip
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3])
MUTED = "#8a8a8a"
WIDTH, HEIGHT = 640, 380


def data(records: Records) -> alt.Data:
    """Inline data: a figure carries everything it shows."""
    return alt.Data(values=records)


def colours(count: int) -> list[str]:
    """Colours for a number of series: distinct ones for few, a rising scale for many."""
    if count <= len(OKABE_ITO):
        return list(OKABE_ITO[:count])
    last = len(VIRIDIS) - 1
    return [VIRIDIS[round(index * last / (count - 1))] for index in range(count)]


def legend(title: str) -> alt.Legend:
    """Under the figure, where it costs no width."""
    return alt.Legend(title=title, orient="bottom", columns=6, symbolLimit=40, titleLimit=300)


def colour(field: str, labels: Sequence[str], title: str) -> alt.Color:
    """Colour by series."""
    scale = alt.Scale(domain=list(labels), range=colours(len(labels)))
    return alt.Color(f"{field}:N", scale=scale, legend=legend(title) if len(labels) > 1 else None)


def shape(field: str, labels: Sequence[str], title: str) -> alt.Shape:
    """Shape by series, in one legend with the colour."""
    marks = [SHAPES[index % len(SHAPES)] for index in range(len(labels))]
    scale = alt.Scale(domain=list(labels), range=marks)
    return alt.Shape(f"{field}:N", scale=scale, legend=legend(title) if len(labels) > 1 else None)


def dash(field: str, labels: Sequence[str], title: str) -> alt.StrokeDash:
    """Dashes by series, in one legend with the colour."""
    marks = [DASHES[index % len(DASHES)] for index in range(len(labels))]
    scale = alt.Scale(domain=list(labels), range=marks)
    return alt.StrokeDash(
        f"{field}:N", scale=scale, legend=legend(title) if len(labels) > 1 else None
    )


def log_range(values: Sequence[float], pad: float = 1.25) -> list[float]:
    """Bounds of a logarithmic axis with a margin."""
    return [min(values) / pad, max(values) * pad]


def log_ticks(low: float, high: float) -> list[float]:
    """1-2-5 ticks inside a range, 1-3 over more than two decades, decades over more than four."""
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades <= 2 else (1, 3) if decades <= 4 else (1,)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]


def batch_axis(field: str, sizes: Sequence[int], pad: float = 1.25) -> alt.X:
    """The batch sizes themselves as ticks of a logarithmic axis."""
    axis = alt.Axis(
        values=sorted(set(sizes)), format=",d", labelOverlap="greedy", labelSeparation=6, grid=False
    )
    scale = alt.Scale(type="log", base=2, domain=log_range(sizes, pad), nice=False)
    return alt.X(f"{field}:Q", title="Global batch size (examples a step)", axis=axis, scale=scale)


def rate_axis(values: Sequence[float]) -> dict[str, Any]:
    """Axis and scale of learning rates."""
    low, high = log_range(values)
    ticks = log_ticks(low, high)
    return {
        "axis": alt.Axis(values=ticks, format="~e", labelOverlap="greedy", labelSeparation=6),
        "scale": alt.Scale(type="log", domain=[low, high], nice=False),
    }


def count_axis(values: Sequence[float], pad: float = 1.25) -> dict[str, Any]:
    """Axis and scale of steps or examples, over decades."""
    low, high = log_range(values, pad)
    ticks = log_ticks(low, high)
    return {
        "axis": alt.Axis(values=ticks, format="~s", labelOverlap="greedy", labelSeparation=6),
        "scale": alt.Scale(type="log", domain=[low, high], nice=False),
    }


def value_axis(values: Sequence[float]) -> dict[str, Any]:
    """Axis and scale of a loss: logarithmic where it spans more than a factor of three."""
    low, high = min(values), max(values)
    if low > 0 and high > 3 * low:
        ticks = log_ticks(low / 1.1, high * 1.1)
        return {
            "axis": alt.Axis(values=ticks, format="~g", labelOverlap="greedy"),
            "scale": alt.Scale(type="log", domain=[low / 1.1, high * 1.1], nice=False),
        }
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return {
        "axis": alt.Axis(tickCount=6),
        "scale": alt.Scale(domain=[low - margin, high + margin], zero=False, nice=False),
    }


def visible_top(values: Sequence[float]) -> float:
    """Upper end of an axis on which a cliff does not flatten everything else."""
    ordered = sorted(values)
    low, quartile = ordered[0], ordered[(3 * (len(ordered) - 1)) // 4]
    return min(ordered[-1], low + 3 * (quartile - low)) if quartile > low else ordered[-1]


def layers(*charts: AnyChart | None) -> alt.LayerChart:
    """Charts on one pair of axes; None is left out."""
    return alt.LayerChart(layer=[chart for chart in charts if chart is not None])


def styled(chart: AnyChart, title: str, subtitle: str) -> dict[str, Any]:
    """The Vega-Lite specification of a figure with its size, title and typography."""
    heading = alt.TitleParams(
        title, subtitle=subtitle, anchor="start", fontSize=15, subtitleFontSize=12,
        subtitleColor=MUTED, offset=12,
    )  # fmt: skip
    return (
        chart.properties(width=WIDTH, height=HEIGHT, title=heading)
        .configure(font="system-ui, 'DejaVu Sans', sans-serif", background="white")
        .configure_axis(
            labelFontSize=12, titleFontSize=12, titleFontWeight="normal", gridOpacity=0.4
        )
        .configure_legend(labelFontSize=12, titleFontSize=12, titleFontWeight="normal")
        .configure_view(stroke=None)
        .to_dict(validate=False)
    )
