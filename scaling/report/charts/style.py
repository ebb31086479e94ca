"""Scales, ticks and colours that all figures share."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from scaling.analysis.statistics.uncertainty import Estimate, Interval
from scaling.report.page.printable import all_printable
from scaling.report.words.measurements import axis_title
from scaling.report.words.numbers import between

Records = list[dict[str, Any]]
AnyChart = alt.Chart | alt.LayerChart

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe & Ito 2008, without the two that vanish on white or on black."""
VIRIDIS = (
    "#3e5c9a", "#33709a", "#2a8399", "#239590", "#2ba886", "#48ba74", "#72c95c", "#9fd23f",
)  # fmt: skip
"""The middle of viridis, lifted to be readable on black; for more than six ordered values."""
SHAPES = (
    "circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right",
    "triangle-left",
)  # fmt: skip
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 4], [1, 3])
MUTED = "#767676"
_BEYOND = 1e-9
"""Of a value, so far below it that it is off every axis."""
_FEWEST_TICKS = 4
WIDTH, HEIGHT = 640, 380


class _InlineRecords(alt.Data):
    """Inline data that Altair passes through; it would copy and hash them at every step."""

    def __init__(self, records: Records) -> None:
        object.__setattr__(self, "_records", records)
        super().__init__()

    def __deepcopy__(self, memo: object) -> "_InlineRecords":
        return self

    def __repr__(self) -> str:
        return f"{len(self._records)} records at {id(self):#x}"

    def to_dict(self, *_: Any, **__: Any) -> dict[str, Any]:
        """The records as Vega-Lite takes them."""
        return {"values": self._records}


def chart(records: Records) -> alt.Chart:
    """A chart of inline data, to be marked and encoded: a figure carries everything it shows."""
    return alt.Chart(_InlineRecords(records))


def tips(*fields: str) -> list[alt.Tooltip]:
    """What is shown where the pointer rests."""
    return [alt.Tooltip(field) for field in fields]


def colours(count: int) -> list[str]:
    """Colours for a number of series: distinct ones for few, a rising scale for many."""
    if count <= len(OKABE_ITO):
        return list(OKABE_ITO[:count])
    places = np.linspace(0, len(VIRIDIS) - 1, count)
    known = np.array([list(bytes.fromhex(colour[1:])) for colour in VIRIDIS])
    mixed = [np.interp(places, range(len(VIRIDIS)), channel) for channel in known.T]
    return [f"#{bytes(map(round, rgb)).hex()}" for rgb in zip(*mixed, strict=True)]


def colour(field: str, labels: Sequence[str], title: str) -> alt.Color:
    """Colour by series."""
    return alt.Color(f"{field}:N", **_series(labels, title, colours(len(labels))))


def shape(field: str, labels: Sequence[str], title: str) -> alt.Shape:
    """Shape by series, in one legend with the colour."""
    return alt.Shape(f"{field}:N", **_series(labels, title, SHAPES))


def series(field: str, labels: Sequence[str], title: str) -> tuple[alt.Color, alt.Shape]:
    """A colour and a shape for each series, in one legend."""
    return colour(field, labels, title), shape(field, labels, title)


def dash(field: str, labels: Sequence[str], title: str) -> alt.StrokeDash:
    """Dashes by series, in one legend with the colour."""
    return alt.StrokeDash(f"{field}:N", **_series(labels, title, DASHES))


def _series(labels: Sequence[str], title: str, marks: Sequence[Any]) -> dict[str, Any]:
    """A mark for each label, again from the first where they run out.

    The legend is under the figure, where it costs no width, in as many columns as the labels
    leave room for; one label needs none.
    """
    scale = alt.Scale(
        domain=list(labels), range=[marks[index % len(marks)] for index in range(len(labels))]
    )
    if len(labels) < 2:
        return {"scale": scale, "legend": None}
    columns = max(1, min(6, WIDTH // (40 + 7 * max(map(len, labels)))))
    legend = alt.Legend(
        title=title, orient="bottom", columns=columns, symbolLimit=40, titleLimit=300,
        labelLimit=420,
    )  # fmt: skip
    return {"scale": scale, "legend": legend}


def labels_of(records: Records, field: str) -> list[str]:
    """The different values of a field, in the order of the records."""
    return list(dict.fromkeys(record[field] for record in records))


def ends(records: Records, *fields: str) -> list[float]:
    """All numbers of some fields that are not null, but for ends that lie beyond the axis."""
    return [
        record[name]
        for record in records
        for name in fields
        if record[name] is not None and name not in record.get("cut", ())
    ]


def span(interval: Interval | None) -> dict[str, Any]:
    """The `low` and `high` of an interval, as a record has them, and `interval` to be read."""
    low, high = interval or (None, None)
    return {"low": low, "high": high, "interval": between(interval) if interval else None}


def log_span(estimate: Estimate) -> dict[str, Any]:
    """The same as a logarithmic axis can show it: ends beyond it are in `cut` and cut there."""
    if estimate.value is None or estimate.interval is None:
        return span(None)
    (low, high), cut = estimate.interval, []
    if low <= 0:
        low, cut = estimate.value * _BEYOND, ["low"]
    if math.isinf(high):
        high, cut = estimate.value / _BEYOND, [*cut, "high"]
    drawn = {"low": low, "high": high} | ({"cut": cut} if cut else {})
    return span(estimate.interval) | drawn


def has_cut(spec: Mapping[str, Any]) -> bool:
    """Whether a figure's specification has an interval that is cut at the axis."""
    records = spec.get("data", {}).get("values", [])
    return any("cut" in record for record in records) or any(map(has_cut, spec.get("layer", [])))


def with_span(records: Records) -> Records:
    """The records that have an interval."""
    return [record for record in records if record["low"] is not None]


def bars(
    records: Records, x: alt.X, *marks: Any, width: float = 2, **style: Any
) -> alt.Chart | None:
    """Upright intervals from `low` to `high` of the records that have one; None without any."""
    spans = with_span(records)
    rules = chart(spans).mark_rule(**style, strokeWidth=width, clip=True)
    return rules.encode(x, alt.Y("low:Q"), alt.Y2("high:Q"), *marks) if spans else None


def points(records: Records, size: int = 80) -> alt.Chart:
    """Filled points, to be encoded."""
    return chart(records).mark_point(filled=True, size=size, opacity=1)


def estimates(
    records: Records, x: alt.X, y: alt.Y, marks: tuple[alt.Color, alt.Shape], *fields: str,
    size: int = 80, width: float = 2,
) -> tuple[AnyChart | None, AnyChart]:  # fmt: skip
    """Intervals and points in the colours and shapes of their series; `fields` show on hover."""
    dots = points(records, size).encode(x, y, *marks, tooltip=tips(*fields))
    return bars(records, x, marks[0], width=width), dots


def names_beside(records: Records, x: alt.X, y: alt.Y) -> alt.Chart:
    """Each record's `text` beside its point."""
    marks = chart(records).mark_text(align="left", dx=7, dy=-9, fontSize=12, color=MUTED)
    return marks.encode(x, y, text=alt.Text("text:N"))


def rule_at(height: float) -> alt.Chart:
    """A grey line across the figure."""
    return chart([{"zero": height}]).mark_rule(color=MUTED).encode(alt.Y("zero:Q"))


def edge_marks(records: Records, *, filled: bool, at_bottom: bool = False) -> alt.Chart:
    """Trials that have no place on the axis, as triangles at an end; to be encoded further."""
    marks = chart(records).mark_point(
        shape="triangle-down" if at_bottom else "triangle-up", size=80, filled=filled, opacity=1
    )
    return marks.encode(y=alt.value(HEIGHT - 6 if at_bottom else 6), href=alt.Href("url:N"))


def log_range(values: Sequence[float], pad: float) -> list[float]:
    """Bounds of a logarithmic axis with a margin."""
    return [min(values) / pad, max(values) * pad]


def log_ticks(low: float, high: float) -> list[float]:
    """1-2-5 ticks inside a range, 1-3 over more than two decades, decades over more than four.

    A range with fewer than four such ticks gets finer ones.
    """
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades <= 2 else (1, 3) if decades <= 4 else (1,)
    ticks = _ticks(low, high, steps)
    for finer in ((1, 1.5, 2, 3, 4, 6, 8), [n / 10 for n in range(10, 100)]):
        ticks = ticks if len(ticks) >= _FEWEST_TICKS else _ticks(low, high, finer)
    return ticks


def _ticks(low: float, high: float, steps: Sequence[float]) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]


def batch_axis(field: str, sizes: Sequence[int], pad: float = 1.25) -> alt.X:
    """The batch sizes themselves as ticks of a logarithmic axis."""
    axis = alt.Axis(
        values=sorted(set(sizes)), format=",d", labelOverlap="greedy", labelSeparation=6, grid=False
    )
    scale = alt.Scale(type="log", base=2, domain=log_range(sizes, pad), nice=False)
    return alt.X(
        f"{field}:Q", title="Global batch size (examples per step)", axis=axis, scale=scale
    )


def rate_axis(values: Sequence[float]) -> dict[str, Any]:
    """Axis and scale of learning rates."""
    return _log_axis(values, "~e", 1.25)


def count_axis(values: Sequence[float], pad: float = 1.25) -> dict[str, Any]:
    """Axis and scale of steps or examples, over decades."""
    return _log_axis(values, "~s" if min(values) >= 1 else "~g", pad)  # 0.5 is no 500m


def ratio_axis(values: Sequence[float]) -> dict[str, Any]:
    """Axis and scale of a ratio, over decades."""
    return _log_axis(values, "~g", 1.3)


def count_x(name: str, values: Sequence[float], pad: float = 1.25) -> alt.X:
    """A measurement in steps or examples along the lower edge."""
    return alt.X(f"{name}:Q", title=axis_title(name), **count_axis(values, pad))


def _log_axis(values: Sequence[float], form: str, pad: float) -> dict[str, Any]:
    low, high = log_range(values, pad)
    ticks = log_ticks(low, high)
    return {
        "axis": alt.Axis(values=ticks, format=form, labelOverlap="greedy", labelSeparation=6),
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
    """The highest value to show, so that a cliff does not flatten everything else."""
    ordered = sorted(values)
    low, quartile = ordered[0], ordered[(3 * (len(ordered) - 1)) // 4]
    if quartile == low:
        return ordered[-1]
    return max(value for value in ordered if value <= low + 3 * (quartile - low))


def layers(*charts: AnyChart | None) -> alt.LayerChart:
    """Charts on one pair of axes; None is left out."""
    return alt.LayerChart(layer=[chart for chart in charts if chart is not None])


def _name_log_axes(spec: Mapping[str, Any]) -> None:
    """Add to the titles of logarithmic axes that they are."""
    for layer in spec.get("layer", []):
        _name_log_axes(layer)
    for name in ("x", "y"):
        channel = spec.get("encoding", {}).get(name, {})
        if channel.get("title") and channel.get("scale", {}).get("type") == "log":
            *first, last = (
                [channel["title"]] if isinstance(channel["title"], str) else channel["title"]
            )
            last = f"{last[:-1]}, log)" if last.endswith(")") else f"{last} (log)"
            channel["title"] = [*first, last] if first else last


def styled(drawing: AnyChart, title: str, subtitle: str) -> dict[str, Any]:
    """The Vega-Lite specification of a figure with its size, title and typography."""
    plain = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    drawn: dict[str, Any] = drawing.to_dict(validate=False)
    _name_log_axes(drawn)
    return all_printable(drawn) | {
        "description": all_printable(f"{title}; {subtitle}"),
        "width": WIDTH,
        "height": HEIGHT,
        "title": {
            "text": all_printable(title),
            "subtitle": all_printable(subtitle),
            "anchor": "start",
            "fontSize": 15,
            "subtitleFontSize": 12,
            "subtitleColor": MUTED,
            "offset": 12,
        },
        "config": {
            "font": "system-ui, 'DejaVu Sans', sans-serif",
            "background": "white",
            "axis": plain | {"gridOpacity": 0.4},
            "legend": plain,
            "view": {"stroke": None},
        },
    }
