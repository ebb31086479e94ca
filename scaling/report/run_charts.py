"""Figures of single trials: learning curves, and the views of a joint search."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from scaling.analysis.cells import CellResult
from scaling.analysis.findings import Findings
from scaling.analysis.rows import TrialRow
from scaling.analysis.wording import number
from scaling.report.chart_style import (
    MUTED,
    OKABE_ITO,
    AnyChart,
    Records,
    batch_axis,
    colour,
    count_axis,
    dash,
    data,
    layers,
    tips,
    value_axis,
)

_MOST_POINTS = 120


def learning_curves(findings: Findings, urls: Mapping[str, str]) -> AnyChart:
    """Validation loss against examples seen, for the trials that each cell's numbers are from."""
    cells = [cell for cell in findings.cells if _curves(cell, urls)]
    labels = [_label(cell) for cell in cells]
    records = [record for cell in cells for record in _curves(cell, urls)]
    losses = [record["loss"] for record in records]
    x = alt.X(
        "examples:Q", title="Examples seen", **count_axis([r["examples"] for r in records], 1.05)
    )
    y = alt.Y("loss:Q", title="Validation loss (nats)", **value_axis(losses))
    title = "Batch" if findings.one_series else "Cell"
    lines = alt.Chart(data(records)).mark_line(strokeWidth=1.6, opacity=0.85)
    target = findings.sweep.target
    return layers(
        lines.encode(
            x,
            y,
            colour("cell", labels, title),
            dash("cell", labels, title),
            detail=alt.Detail("trial:N"),
            href=alt.Href("url:N"),
            tooltip=tips("cell:N", "trial:N", "seed:N", "examples:Q", "loss:Q"),
        ),
        *(_target_line(target) if target and min(losses) < target < max(losses) else ()),
    )


def _target_line(target: float) -> tuple[AnyChart, AnyChart]:
    base = alt.Chart(data([{"loss": target, "text": "target"}])).encode(alt.Y("loss:Q"))
    return (
        base.mark_rule(strokeDash=[4, 4], color=MUTED),
        base.mark_text(align="left", dx=4, dy=-7, color=MUTED).encode(
            x=alt.value(0), text=alt.Text("text:N")
        ),
    )


def _curves(cell: CellResult, urls: Mapping[str, str]) -> Records:
    records: Records = []
    for row in cell.replicates:
        points = [
            {"examples": m.examples, "loss": m.validation_loss}
            for m in row.measurements
            if m.validation_loss is not None and m.examples > 0 and m.validation_loss > 0
        ]
        common = {
            "cell": _label(cell),
            "trial": row.trial_id,
            "seed": row.seed,
            "url": urls.get(row.trial_id),
        }
        records += [common | point for point in _thinned(points)]
    return records


def _thinned(points: Records) -> Records:
    """At most `_MOST_POINTS` of the points, evenly in the logarithm of their place."""
    if len(points) <= _MOST_POINTS:
        return points
    last = len(points) - 1
    places = {
        round(math.expm1(math.log1p(last) * index / (_MOST_POINTS - 1)))
        for index in range(_MOST_POINTS)
    }
    return [points[place] for place in sorted(places)]


def _label(cell: CellResult) -> str:
    if set(cell.cell) == {"global_batch_size"}:
        return f"{cell.global_batch_size:,}"
    return cell.label


def searched_names(findings: Findings) -> list[str]:
    """The nuisance hyperparameters that took more than one value."""
    rows = [row for row in findings.sweep.rows if row.phase == "search"]
    names = list(dict.fromkeys(name for row in rows for name in row.choices))
    return [name for name in names if len({repr(row.choices.get(name)) for row in rows}) > 1]


def loss_vs_choice(findings: Findings, name: str, urls: Mapping[str, str]) -> AnyChart:
    """Validation loss of every search trial against one hyperparameter."""
    rows = _with_loss(findings)
    values = [row.choices.get(name) for row in rows]
    best = min(row.validation_loss or math.inf for row in rows)
    records: Records = [
        {
            "value": value if _is_number(value) else str(value),
            "loss": row.validation_loss,
            "trial": row.trial_id,
            "kind": "best trial" if row.validation_loss == best else "other trials",
            "url": urls.get(row.trial_id),
        }
        for row, value in zip(rows, values, strict=True)
    ]
    numeric = all(_is_number(value) for value in values)
    x = (
        _numeric_axis(name, values)
        if numeric
        else alt.X("value:N", title=name, sort=None, axis=alt.Axis(labelAngle=0))
    )
    y = alt.Y("loss:Q", title="Validation loss (nats)", **value_axis([r["loss"] for r in records]))
    points = alt.Chart(data(records)).mark_point(filled=True, size=70, opacity=0.85)
    return points.encode(
        x,
        y,
        colour("kind", ["other trials", "best trial"], "Trial"),
        tooltip=tips("trial:N", "value:N", "loss:Q"),
        href=alt.Href("url:N"),
    )


def _numeric_axis(name: str, values: Sequence[Any]) -> alt.X:
    if name == "global_batch_size":
        return batch_axis("value", values)
    positive = min(values) > 0 and max(values) > 5 * min(values)
    if positive:
        scale = count_axis(values)
        scale["axis"].format = "~e" if max(values) < 1 else "~s"
        return alt.X("value:Q", title=name, **scale)
    return alt.X("value:Q", title=name, scale=alt.Scale(zero=False, padding=12))


def parallel_coordinates(findings: Findings) -> AnyChart:
    """Every search trial as a line through its hyperparameters to its loss."""
    rows = sorted(_with_loss(findings), key=lambda row: -(row.validation_loss or 0.0))
    names = [*searched_names(findings), "validation_loss"]
    records: Records = []
    ends: Records = []
    for name in names:
        values = [_value(row, name) for row in rows]
        heights, low, high = _heights(values)
        ends += [
            {"name": name, "height": 0.0, "text": low},
            {"name": name, "height": 1.0, "text": high},
        ]
        for rank, (row, height, value) in enumerate(zip(rows, heights, values, strict=True)):
            records.append(
                {
                    "name": name,
                    "height": height,
                    "trial": row.trial_id,
                    "loss": row.validation_loss,
                    "text": str(value),
                    "best": "best trial" if rank == len(rows) - 1 else "other trials",
                }
            )
    x = alt.X("name:N", sort=names, title=None, axis=alt.Axis(labelAngle=-25, labelLimit=140))
    y = alt.Y("height:Q", axis=None, scale=alt.Scale(domain=[-0.12, 1.1]))
    lines = alt.Chart(data(records)).mark_line(opacity=0.75)
    labels = alt.Chart(data(ends)).encode(x, y, text=alt.Text("text:N"))
    return layers(
        lines.encode(
            x,
            y,
            alt.Color("loss:Q", scale=alt.Scale(scheme="viridis", reverse=True), legend=None),
            strokeWidth=alt.condition("datum.best == 'best trial'", alt.value(4), alt.value(1.2)),
            detail=alt.Detail("trial:N"),
            tooltip=tips("trial:N", "name:N", "text:N", "loss:Q"),
        ),
        alt.Chart(data([r for r in records if r["best"] == "best trial"]))
        .mark_line(color=OKABE_ITO[1], strokeWidth=3, point=True)
        .encode(x, y),
        labels.mark_text(fontSize=11, color=MUTED, dy=13).transform_filter("datum.height == 0"),
        labels.mark_text(fontSize=11, color=MUTED, dy=-11).transform_filter("datum.height == 1"),
    )


def _value(row: TrialRow, name: str) -> Any:
    return row.validation_loss if name == "validation_loss" else row.choices.get(name)


def _heights(values: Sequence[Any]) -> tuple[list[float], str, str]:
    """Places between 0 and 1 on one axis, and the names of its two ends."""
    if all(_is_number(value) for value in values):
        is_log = min(values) > 0 and max(values) > 5 * min(values)
        scaled = [math.log(value) if is_log else float(value) for value in values]
        width = max(scaled) - min(scaled) or 1.0
        heights = [(value - min(scaled)) / width for value in scaled]
        return heights, number(min(values)), number(max(values))
    kinds = sorted({str(value) for value in values})
    width = max(len(kinds) - 1, 1)
    return [kinds.index(str(v)) / width for v in values], kinds[0], kinds[-1]


def _with_loss(findings: Findings) -> list[TrialRow]:
    return [
        row
        for row in findings.sweep.rows
        if row.phase == "search" and row.validation_loss is not None
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
