"""Examples against seconds of a run of each cell."""

from typing import Any

import altair as alt

from scaling.analysis.next_run.recommendation import Recommendation
from scaling.report.charts.style import (
    MUTED,
    OKABE_ITO,
    AnyChart,
    Records,
    chart,
    count_axis,
    ends,
    layers,
    log_span,
    names_beside,
    points,
    tips,
    with_span,
)
from scaling.report.tables.next_run_options import KINDS, kind_of
from scaling.report.words.measurements import axis_title
from scaling.report.words.numbers import cell_name

_LOOKS = (
    (OKABE_ITO[1], "diamond"), (OKABE_ITO[2], "square"), (OKABE_ITO[0], "circle"), (MUTED, "cross"),
)  # fmt: skip
# colour and shape of each of `KINDS`


def absent(recommendation: Recommendation) -> str:
    """Why there is no figure; empty when there is one."""
    points = _records(recommendation)
    return "" if len(points) > 1 else "fewer than two cells have both a time and examples"


def time_vs_examples(recommendation: Recommendation) -> AnyChart:
    """Examples against seconds of a run of each cell, with the front of those that nobody beats."""
    records = _records(recommendation)
    front = [r for r in records if r["kind"] in ("recommended", "Pareto-optimal")]
    scale = count_axis(ends(records, "low", "seconds", "high"))
    scale["axis"].format = "~g"
    x = alt.X("seconds:Q", title=axis_title("seconds"), **scale)
    y = alt.Y("examples:Q", title="Examples", **count_axis([r["examples"] for r in records], 1.4))
    kinds = [kind for kind in KINDS if any(r["kind"] == kind for r in records)]
    looks = [_LOOKS[KINDS.index(kind)] for kind in kinds]
    hues = alt.Scale(domain=kinds, range=[hue for hue, _ in looks])
    shapes = alt.Scale(domain=kinds, range=[mark for _, mark in looks])
    legend = alt.Legend(title=None, orient="bottom")
    hue = alt.Color("kind:N", scale=hues, legend=legend)
    crowded = len(records) > len(front) + 3
    named = [r for r in records if not crowded or r["kind"] != "dominated"]
    bars = with_span(records)
    return layers(
        chart(front).mark_line(
            interpolate="step-after", color=MUTED, strokeDash=[4, 3]
        ).encode(x, y) if len(front) > 1 else None,
        chart(bars).mark_rule(strokeWidth=2, clip=True).encode(
            alt.X("low:Q"), y, hue, x2="high:Q"
        ) if bars else None,
        points(records, 90).encode(
            x, y, hue, alt.Shape("kind:N", scale=shapes, legend=legend),
            tooltip=tips("text:N", "seconds:Q", "interval:N", "examples:Q", "kind:N"),
        ),
        names_beside(named, x, y),
    )  # fmt: skip


def _records(recommendation: Recommendation) -> Records:
    several = len({o.num_workers for o in recommendation.candidates}) > 1
    records: list[dict[str, Any]] = []
    for option in recommendation.candidates:
        seconds, examples = option.seconds, option.examples
        if seconds.value is None or examples.value is None:
            continue
        records.append(
            {
                "text": cell_name(option.cell) + (f" × {option.num_workers}" if several else ""),
                "seconds": seconds.value,
                **log_span(seconds),
                "examples": examples.value,
                "kind": kind_of(option, recommendation),
            }
        )
    return sorted(records, key=lambda record: record["seconds"])
