"""Figures of single trials: learning curves, and the views of the search."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt

from scaling.analysis.cell_results import CellResult
from scaling.analysis.findings import Findings
from scaling.analysis.trial_rows import TrialRow
from scaling.records.objective import Objective
from scaling.report.charts.style import (
    MUTED,
    OKABE_ITO,
    AnyChart,
    Records,
    batch_axis,
    chart,
    colour,
    count_axis,
    count_x,
    dash,
    edge_marks,
    labels_of,
    layers,
    series,
    span,
    tips,
    value_axis,
    visible_top,
    with_span,
)
from scaling.report.charts.thinning import MOST_LINES, searched_trials, thinned_points, trial_record
from scaling.report.importance import Importance
from scaling.report.words.measurements import objective_title
from scaling.report.words.numbers import cell_name, number

_MOST_POINTS = 120
_MOST_TICKS = 6
_MOST_NAMED = 8
"""Different numbers that stand side by side where some trials have none; more are on an axis."""
Along = Literal["step", "examples"]


def learning_curves(findings: Findings, urls: Mapping[str, str], along: Along) -> AnyChart:
    """The loss, or the study's metric, along the runs that each cell's numbers are from."""
    shown = _along_runs(findings)
    records = [r for cell in findings.cells for r in _curves(shown, cell, urls, along)]
    labels = labels_of(records, "cell")
    losses = [record["loss"] for record in records]
    x = count_x(along, [record[along] for record in records], 1.05)
    y = alt.Y("loss:Q", title=objective_title(shown), **value_axis(losses))
    title = "Batch" if findings.one_series else "Cell"
    lines = chart(records).mark_line(strokeWidth=1.6, opacity=0.85)
    target = findings.sweep.target
    return layers(
        lines.encode(
            x,
            y,
            colour("cell", labels, title),
            dash("cell", labels, title),
            detail=alt.Detail("trial:N"),
            href=alt.Href("url:N"),
            tooltip=tips("cell:N", "trial:N", "seed:N", f"{along}:Q", "loss:Q"),
        ),
        *(
            _target_line(target)
            if target is not None and min(losses) < target < max(losses)
            else ()
        ),
    )


def no_curves(findings: Findings) -> str:
    """Why there are no learning curves; empty where some run has two points of one."""
    shown = _along_runs(findings)
    lengths = [
        sum(m.examples > 0 and shown.value_of(m) is not None for m in row.measurements)
        for cell in findings.cells
        for row in cell.replicates
    ]
    longest = max(lengths, default=0)
    if longest > 1:
        return ""
    return "no run has two evaluations" if longest else "nothing was measured along the runs"


def _along_runs(findings: Findings) -> Objective:
    sweep = findings.sweep
    return sweep.target_metric if sweep.has_target else sweep.tuned_for


def _target_line(target: float) -> tuple[AnyChart, AnyChart]:
    base = chart([{"loss": target, "text": "target"}]).encode(alt.Y("loss:Q"))
    return (
        base.mark_rule(strokeDash=[4, 4], color=MUTED),
        base.mark_text(align="left", dx=4, dy=-7, color=MUTED).encode(
            x=alt.value(0), text=alt.Text("text:N")
        ),
    )


def _curves(shown: Objective, cell: CellResult, urls: Mapping[str, str], along: Along) -> Records:
    records: Records = []
    for row in cell.replicates:
        points = [
            {along: getattr(m, along), "loss": value}
            for m in row.measurements
            if (value := shown.value_of(m)) is not None and m.examples > 0
        ]
        common = {
            "cell": cell_name(cell),
            "trial": row.trial_id,
            "seed": row.seed,
            "url": urls.get(row.trial_id),
        }
        records += [common | point for point in thinned_points(points, _MOST_POINTS)]
    return records


def searched_names(findings: Findings) -> list[str]:
    """The nuisance hyperparameters that took more than one value."""
    rows = [row for row in findings.sweep.rows if row.phase == "search"]
    names = list(dict.fromkeys(name for row in rows for name in row.choices))
    return [name for name in names if len({repr(row.choices.get(name)) for row in rows}) > 1]


def num_blank(findings: Findings, name: str) -> int:
    """Trials without a value of a number that has many, which its axis leaves out."""
    trials = searched_trials(findings, findings.cells)
    values = [row.choices[name] for _, row in trials if name in row.choices]
    return values.count(None) if _is_axis(values) else 0


def _is_axis(values: Sequence[Any]) -> bool:
    """Whether values have a numeric axis, perhaps but for some blanks."""
    known = [value for value in values if value is not None]
    all_numbers = bool(known) and all(map(_is_number, known))
    return all_numbers and (len(known) == len(values) or len(set(known)) > _MOST_NAMED)


def loss_vs_choice(findings: Findings, name: str, urls: Mapping[str, str]) -> AnyChart:
    """Loss, or what recipes are tuned for, of the search's trials against one hyperparameter.

    A series a cell, with its best trial ringed. Diverged trials, and those beyond the axis, are
    triangles at the worse edge.
    """
    objective = findings.sweep.tuned_for
    at_bottom = objective.direction == "maximize"
    labels = [cell_name(cell) for cell in findings.cells]
    rows = [
        (label, row)
        for label, row in searched_trials(findings, findings.cells)
        if name in row.choices
    ]
    numeric = _is_axis([row.choices[name] for _, row in rows])
    if numeric:
        rows = [pair for pair in rows if pair[1].choices[name] is not None]
    values = [row.choices[name] for _, row in rows]
    best = _best_trials(findings)
    top = visible_top([row.cost for _, row in rows if row.cost is not None])
    records: Records = [
        trial_record(label, row, urls) | {"value": value if numeric else _word(value)}
        for (label, row), value in zip(rows, values, strict=True)
    ]
    inside = [r for r in records if r["cost"] is not None and r["cost"] <= top]
    x = _numeric_axis(name, values) if numeric else _named_axis(name, values, labels)
    shared: list[Any] = [x] if numeric else [x, alt.XOffset("cell:N", sort=labels)]
    axis = value_axis([r["loss"] for r in inside])
    y = alt.Y("loss:Q", title=objective_title(objective), **axis)
    title = "Batch" if findings.one_series else "Cell"
    hue, mark = series("cell", labels, title)
    tooltip = tips("cell:N", "trial:N", "value:N", "loss:Q", "status:N")
    rings = chart([r for r in inside if r["trial"] in best])
    return layers(
        chart(inside)
        .mark_point(filled=True, size=46, opacity=0.75)
        .encode(*shared, y, hue, mark, href=alt.Href("url:N"), tooltip=tooltip),
        rings.mark_point(size=260, strokeWidth=2, shape="circle").encode(*shared, y, hue),
        *(
            edge_marks(edge, filled=filled, at_bottom=at_bottom).encode(
                *shared, hue, tooltip=tooltip
            )
            for edge, filled in (
                ([r for r in records if r["status"] == "diverged"], True),
                ([r for r in records if r["cost"] is not None and r["cost"] > top], False),
            )
            if edge
        ),
    )


def _numeric_axis(name: str, values: Sequence[Any]) -> alt.X:
    if name == "global_batch_size":
        return batch_axis("value", values)
    positive = min(values) > 0 and max(values) > 5 * min(values)
    if positive:
        scale = count_axis(values)
        if max(values) < 1:
            scale["axis"].format = "~e"
        return alt.X("value:Q", title=name, **scale)
    low, high = min(values), max(values)
    size = 10 ** math.floor(math.log10(high - low)) if high > low else 1
    every = next(size * s for s in (0.2, 0.5, 1, 2) if high - low <= _MOST_TICKS * size * s)
    places = range(math.ceil(low / every - 1e-9), math.floor(high / every + 1e-9) + 1)
    axis = alt.Axis(values=[round(place * every, 12) for place in places], format="~g")
    return alt.X("value:Q", title=name, axis=axis, scale=alt.Scale(zero=False, padding=12))


def _named_axis(name: str, values: Sequence[Any], labels: Sequence[str]) -> alt.X:
    """Values that are not all numbers, side by side; the cells are side by side in each."""
    kinds = _ordered(values)
    scale = alt.Scale(paddingInner=0.2 if len(labels) > 1 else 0.6)
    return alt.X("value:N", title=name, sort=kinds, axis=alt.Axis(labelAngle=0), scale=scale)


def parallel_coordinates(findings: Findings, urls: Mapping[str, str]) -> AnyChart:
    """Search trials as lines through their hyperparameters to their loss, or their metric.

    Lines are coloured by cell (a click on the legend leaves only that cell), or by the loss where
    there is one cell. The best trial of each cell is a thick line.
    """
    labels = [cell_name(cell) for cell in findings.cells]
    names = searched_names(findings)
    rows = [
        (label, row)
        for label, row in searched_trials(findings, findings.cells, MOST_LINES)
        if row.cost is not None and all(name in row.choices for name in names)
    ]
    rows.sort(key=lambda pair: -(pair[1].cost or 0.0))
    best = _best_trials(findings)
    records: Records = []
    ends: Records = []
    for name in (*names, findings.sweep.tuned_for.name):
        values = [_value(row, name) for _, row in rows]
        heights, low, high = _heights(values)
        ends += [
            {"name": name, "height": 0.0, "text": low},
            {"name": name, "height": 1.0, "text": high},
        ]
        records += [
            {
                "name": name,
                "height": height,
                "cell": label,
                "trial": row.trial_id,
                "loss": row.tuned_value,
                "text": number(value) if _is_number(value) else _word(value),
                "url": urls.get(row.trial_id),
            }
            for (label, row), height, value in zip(rows, heights, values, strict=True)
        ]
    return _parallel(findings, records, ends, labels, best)


def _parallel(
    findings: Findings, records: Records, ends: Records, labels: list[str], best: set[str]
) -> AnyChart:
    order = list(dict.fromkeys(record["name"] for record in records))
    axis = alt.Axis(labelAngle=-25, labelLimit=140, grid=True, domain=False)
    x = alt.X("name:N", sort=order, title=None, axis=axis, scale=alt.Scale(padding=0.2))
    y = alt.Y("height:Q", axis=None, scale=alt.Scale(domain=[-0.12, 1.1]))
    title = "Batch" if findings.one_series else "Cell"
    chosen = alt.selection_point(name="chosen_cell", fields=["cell"], bind="legend")
    several = len(labels) > 1
    is_reverse = findings.sweep.tuned_for.direction == "minimize"
    scale = alt.Scale(scheme="viridis", reverse=is_reverse)
    by_loss = alt.Color("loss:Q", scale=scale, legend=None)
    hue: Any = colour("cell", labels, title) if several else by_loss
    marks = [hue, dash("cell", labels, title)] if several else [hue]
    tooltip = tips("cell:N", "trial:N", "name:N", "text:N", "loss:Q")
    common = {"detail": alt.Detail("trial:N"), "href": alt.Href("url:N"), "tooltip": tooltip}
    others = chart([r for r in records if r["trial"] not in best])
    lines = others.mark_line(strokeWidth=1.2).encode(
        x, y, *marks, opacity=alt.condition(chosen, alt.value(0.6), alt.value(0.04)), **common
    )
    top = chart([r for r in records if r["trial"] in best])
    thick = top.mark_line(strokeWidth=3.5).encode(x, y, **common)
    if several:
        shown = alt.condition(chosen, alt.value(1.0), alt.value(0.04))
        thick = thick.encode(*marks, opacity=shown)
    else:
        thick = thick.encode(color=alt.value(OKABE_ITO[1]))
    labelled = chart(ends).encode(x, y, text=alt.Text("text:N"))
    return layers(
        lines.add_params(chosen),
        thick,
        labelled.mark_text(fontSize=11, color=MUTED, dy=13).transform_filter("datum.height == 0"),
        labelled.mark_text(fontSize=11, color=MUTED, dy=-11).transform_filter("datum.height == 1"),
    )


def _value(row: TrialRow, name: str) -> Any:
    return row.tuned_value if name == row.tuned_for.name else row.choices.get(name)


def _heights(values: Sequence[Any]) -> tuple[list[float], str, str]:
    """Places between 0 and 1 on one axis, and the names of its two ends."""
    if all(_is_number(value) for value in values):
        is_log = min(values) > 0 and max(values) > 5 * min(values)
        scaled = [math.log(value) if is_log else float(value) for value in values]
        width = max(scaled) - min(scaled) or 1.0
        heights = [(value - min(scaled)) / width for value in scaled]
        return heights, number(min(values)), number(max(values))
    kinds = _ordered(values)
    width = max(len(kinds) - 1, 1)
    return [kinds.index(_word(v)) / width for v in values], kinds[0], kinds[-1]


def _ordered(values: Sequence[Any]) -> list[str]:
    """As words: numbers by size, then words, then blanks."""
    by_word = {_word(value): value for value in values}
    numbers = sorted((value, word) for word, value in by_word.items() if _is_number(value))
    words = sorted(w for w, v in by_word.items() if v is not None and not _is_number(v))
    return [*(word for _, word in numbers), *words, *(w for w, v in by_word.items() if v is None)]


def _best_trials(findings: Findings) -> set[str]:
    """The trial of each cell's search with the lowest loss, or best metric, at its end."""
    searches = [findings.sweep.rows_of(cell.cell, "search") for cell in findings.cells]
    ended = [[(r.cost, r.trial_id) for r in rows if r.cost is not None] for rows in searches]
    return {min(trials)[1] for trials in ended if trials}


def importance(found: Importance) -> AnyChart:
    """Share of the objective's variance that each hyperparameter explains, with its interval."""
    names = list(found.shares)
    records: Records = [
        {"name": name, "share": estimate.value, **span(estimate.interval)}
        for name, estimate in found.shares.items()
    ]
    cells: Records = [
        {"name": name, "share": share} for shares in found.by_cell.values()
        for name, share in shares.items()
    ]  # fmt: skip
    y = alt.Y("name:N", sort=names, title=None, axis=alt.Axis(labelLimit=180))
    scale = alt.Scale(domain=[0, 1], nice=False)
    axis = alt.Axis(format=".0%", tickCount=5)
    x = alt.X("share:Q", title="Share of the explained variance", scale=scale, axis=axis)
    spans = with_span(records)
    tooltip = tips("name:N", "share:Q", "low:Q", "high:Q")
    return layers(
        chart(records)
        .mark_bar(color=OKABE_ITO[0], opacity=0.55, size=18)
        .encode(x, y, tooltip=tooltip),
        chart(spans)
        .mark_rule(strokeWidth=2.5, color=OKABE_ITO[1])
        .encode(alt.X("low:Q"), alt.X2("high:Q"), y)
        if spans
        else None,
        chart(cells)
        .mark_point(shape="diamond", size=34, color=MUTED, filled=True)
        .encode(x, y, tooltip=tips("name:N", "share:Q"))
        if len(found.by_cell) > 1
        else None,
    )


def _word(value: object) -> str:
    """As a cell's label has it."""
    return "null" if value is None else str(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
