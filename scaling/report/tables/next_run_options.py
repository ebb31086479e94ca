"""What a run of each cell takes, as a table and as a figure of time against examples."""

from typing import Any

import altair as alt

from scaling.analysis.next_run.goodput import Option
from scaling.analysis.next_run.recommendation import Recommendation
from scaling.report.charts.style import (
    MUTED,
    OKABE_ITO,
    AnyChart,
    Records,
    count_axis,
    data,
    layers,
    names_beside,
    points,
    tips,
)
from scaling.report.tables.table import Table
from scaling.report.words.measurements import axis_title
from scaling.report.words.numbers import DASH, cell_name, whole, with_interval

_KINDS: tuple[str, ...] = ("recommended", "on the front", "beaten in both")


def options_table(recommendation: Recommendation) -> Table | None:
    """One row a cell and number of workers; None where no time was measured."""
    timed = [o for o in recommendation.candidates if o.seconds.value is not None]
    if not timed:
        return None
    columns: dict[str, list[str]] = {}
    for option in timed:
        for title, word in _words(option, recommendation).items():
            columns.setdefault(title, []).append(word)
    kept = {title: v for title, v in columns.items() if any(word != DASH for word in v)}
    return Table(tuple(kept), tuple(zip(*kept.values(), strict=True)))


def _words(option: Option, recommendation: Recommendation) -> dict[str, str]:
    chance = DASH if option.chance is None else f"{option.chance:.2f}"
    kind = _kind(option, recommendation)
    return {
        "cell": cell_name(option.cell),
        "workers": whole(option.num_workers),
        "steps": with_interval(option.steps),
        "examples": with_interval(option.examples),
        "seconds": ("at best " if option.carried_over else "") + with_interval(option.seconds),
        "cost": with_interval(option.cost),
        "held-out loss": with_interval(option.loss),
        "chance within the limits": chance,
        "time against examples": DASH if option.examples.value is None else kind,
    }


def _kind(option: Option, recommendation: Recommendation) -> str:
    if option == recommendation.option:
        return _KINDS[0]
    return _KINDS[1] if option in recommendation.front else _KINDS[2]


def absent(recommendation: Recommendation) -> str:
    """Why there is no figure; empty when there is one."""
    points = _records(recommendation)
    return "" if len(points) > 1 else "fewer than two cells have both a time and examples"


def time_vs_examples(recommendation: Recommendation) -> AnyChart:
    """Examples against seconds of a run of each cell, with the front of those that nobody beats."""
    records = _records(recommendation)
    front = [r for r in records if r["kind"] != _KINDS[2]]
    scale = count_axis([v for r in records for v in (r["low"], r["seconds"], r["high"]) if v])
    scale["axis"].format = "~g"
    x = alt.X("seconds:Q", title=axis_title("seconds"), **scale)
    y = alt.Y(
        "examples:Q", title="Examples", **count_axis([r["examples"] for r in records], 1.4)
    )  # fmt: skip
    kinds = [kind for kind in _KINDS if any(r["kind"] == kind for r in records)]
    places = [_KINDS.index(kind) for kind in kinds]
    hues = alt.Scale(domain=kinds, range=[(OKABE_ITO[1], OKABE_ITO[0], MUTED)[k] for k in places])
    shapes = alt.Scale(domain=kinds, range=[("diamond", "circle", "cross")[k] for k in places])
    legend = alt.Legend(title=None, orient="bottom")
    hue = alt.Color("kind:N", scale=hues, legend=legend)
    named = front if len(records) > len(front) + 3 else records
    bars = [r for r in records if r["low"] is not None]
    return layers(
        alt.Chart(data(front)).mark_line(
            interpolate="step-after", color=MUTED, strokeDash=[4, 3]
        ).encode(x, y) if len(front) > 1 else None,
        alt.Chart(data(bars)).mark_rule(strokeWidth=2).encode(
            alt.X("low:Q"), y, hue, x2="high:Q"
        ) if bars else None,
        points(records, 90).encode(
            x, y, hue, alt.Shape("kind:N", scale=shapes, legend=legend),
            tooltip=tips("text:N", "seconds:Q", "low:Q", "high:Q", "examples:Q", "kind:N"),
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
        low, high = seconds.interval or (None, None)
        name = cell_name(option.cell) + (f" × {option.num_workers}" if several else "")
        records.append(
            {
                "text": name,
                "seconds": seconds.value,
                "low": max(low, seconds.value / 100) if low is not None else None,
                "high": high,
                "examples": examples.value,
                "kind": _kind(option, recommendation),
            }
        )
    return sorted(records, key=lambda record: record["seconds"])
