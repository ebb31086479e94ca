"""Figures of runs of several sizes: rate and batch against compute, and each size's valley."""

import math
from typing import Any

import altair as alt

from scaling.analysis.findings import Findings
from scaling.analysis.ladder.reading import LadderReading
from scaling.analysis.ladder.runs import runs_of
from scaling.report.charts.style import (
    MUTED,
    AnyChart,
    Records,
    bars,
    chart,
    count_axis,
    edge_marks,
    ends,
    labels_of,
    layers,
    points,
    rate_axis,
    ratio_axis,
    series,
    span,
    tips,
    value_axis,
)
from scaling.report.words.ladder import scale_words, size_words

FITTED, PREDICTED, LEFT_OUT, OWN = "fitted", "predicted", "left out, predicted", "left out, its own"
_MOST_VISIBLE = 5.0
"""Percent above a size's least loss up to which runs are shown in full."""


def _records(reading: LadderReading, field: str) -> Records:
    """Sizes that were run, asked for, and left out, each with one of rate and batch."""
    question = reading.question

    def record(kind: str, found: Any, value: float, interval: Any) -> dict[str, Any]:
        size = {"compute": math.prod(found.scale), "size": size_words(question, found.scale)}
        return {"kind": kind, "value": value, **span(interval), **size}

    records = [
        record(kind, found, getattr(found, field), getattr(found, f"{field}_interval"))
        for kind, sizes in (
            (FITTED, reading.sizes),
            (PREDICTED, reading.predictions),
            (LEFT_OUT, reading.back_test),
        )
        for found in sizes
    ]
    own = [record(OWN, s, getattr(s, f"own_{field}"), None) for s in reading.back_test]
    return records + own


def against_compute(reading: LadderReading, field: str, title: str) -> AnyChart:
    """Best rates or batches with their intervals; sizes that were left out stand beside them."""
    records = _records(reading, field)
    kinds = labels_of(records, "kind")
    name = " × ".join(map(scale_words, reading.question.scale))
    computes = [record["compute"] for record in records]
    title_x = [name, "(compute grows with it)"]
    x = alt.X("compute:Q", title=title_x, **rate_axis(computes))
    band = [
        {"compute": math.prod(point.scale), "low": low, "high": high}
        for point in reading.band
        for low, high in [getattr(point, f"{field}_interval")]
    ]
    values = ends(records, "value", "low", "high") + ends(band, "low", "high")
    axis = rate_axis(values) if field == "rate" else count_axis(values)
    y = alt.Y("value:Q", title=title, **axis)
    hue, mark = series("kind", kinds, "Size")
    area = chart(band).mark_area(color=MUTED, opacity=0.18)
    return layers(
        area.encode(x, alt.Y("low:Q", title=title, **axis), alt.Y2("high:Q")),
        bars(records, x, hue, width=6, opacity=0.35),
        points(records, 70).encode(
            x, y, hue, mark, tooltip=tips("size:N", "kind:N", "value:Q", "low:Q", "high:Q")
        ),
    )


def valleys(findings: Findings, field: str) -> AnyChart:
    """Each size's runs against the rate or the batch over that size's best one."""
    reading = findings.ladder
    assert reading is not None
    fitted = {size.scale: size for size in reading.sizes}
    records: Records = []
    for run in runs_of(findings.sweep, reading.question.scale):
        size = fitted[run.scale]
        at = run.peak_lr / size.rate if field == "rate" else run.global_batch_size / size.batch
        above = None if run.loss is None else 100 * (run.loss / size.loss - 1)
        records.append(
            {
                "size": size_words(reading.question, run.scale), "at": at, "above": above,
                "batch": run.global_batch_size, "rate": run.peak_lr, "loss": run.loss,
                "url": None,
            }
        )  # fmt: skip
    labels = [size_words(reading.question, size.scale) for size in reading.sizes]
    shown = [r for r in records if r["above"] is not None and r["above"] <= _MOST_VISIBLE]
    beyond = [r for r in records if r["above"] is None or r["above"] > _MOST_VISIBLE]
    what = "Learning rate" if field == "rate" else "Batch"
    places = [record["at"] for record in records]
    x = alt.X("at:Q", title=f"{what} over the size's best", **ratio_axis(places))
    lowest = min([0.0, *(record["above"] for record in shown)])
    y = alt.Y(
        "above:Q", title="Loss above the size's least (%)", **value_axis([lowest, _MOST_VISIBLE])
    )
    hue, mark = series("size", labels, ", ".join(reading.question.scale))
    tooltip = tips("size:N", "batch:Q", "rate:Q", "loss:Q")
    return layers(
        points(shown, 30).encode(x, y, hue, mark, tooltip=tooltip),
        edge_marks(beyond, filled=False).encode(x, hue, tooltip=tooltip) if beyond else None,
    )
