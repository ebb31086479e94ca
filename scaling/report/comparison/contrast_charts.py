"""Figures of two studies on the same axes, and of their differences."""

from typing import Any

import altair as alt
from altair.utils.schemapi import debug_mode

from scaling.analysis.cell_results import CellResult
from scaling.analysis.contrasts import Comparison, Kind
from scaling.analysis.statistics.uncertainty import Interval
from scaling.report.charts.figures import Figure
from scaling.report.charts.style import (
    AnyChart,
    Records,
    batch_axis,
    count_axis,
    ends,
    estimates,
    labels_of,
    layers,
    rate_axis,
    rule_at,
    series,
    span,
    styled,
    value_axis,
)
from scaling.report.words.numbers import titled

_APART = 1.04
"""Factor in the batch by which A is drawn to the left and B to the right, so that both show."""
_MEASURES: tuple[tuple[str, str, str, Kind], ...] = (
    ("loss_difference_vs_batch", "Difference in loss against batch", "test_loss", "difference"),
    ("gap_difference_vs_batch", "Difference in gap against batch", "generalization_gap",
     "difference"),
    ("steps_ratio_vs_batch", "Ratio of steps to target against batch", "steps_to_target", "ratio"),
    ("lr_ratio_vs_batch", "Ratio of best rates against batch", "best_peak_lr", "ratio"),
)  # fmt: skip


def compare_figures(comparison: Comparison, names: tuple[str, str]) -> list[Figure]:
    """Each number of both studies against batch, then their differences; absent ones say why."""
    made = [
        _values(comparison, names, "loss_vs_batch", "Validation loss against batch"),
        _values(comparison, names, "steps_to_target", "Steps to target against batch"),
        _values(comparison, names, "best_lr_vs_batch", "Best learning rate against batch"),
    ]
    return made + [_differences(comparison, names, *measure) for measure in _MEASURES]


def _values(comparison: Comparison, names: tuple[str, str], name: str, title: str) -> Figure:
    records: Records = []
    both = zip(names, (comparison.a, comparison.b), (1 / _APART, _APART), strict=True)
    for side, findings, shift in both:
        for cell in findings.cells:
            value, interval = _read(cell, name)
            if value is not None and value <= 0 and name != "loss_vs_batch":
                continue  # without a place on a logarithmic axis
            if value is not None and cell.global_batch_size is not None:
                name_of_side = f"{side}, {cell.series}" if cell.series else side
                record = _record(cell.global_batch_size, name_of_side, value, interval)
                records.append(record | {"at": cell.global_batch_size * shift})
    if not records:
        return Figure(name, title, absent="neither study has it")
    heights = ends(records, "value", "low", "high")
    scale = {"loss_vs_batch": value_axis, "steps_to_target": count_axis}.get(name, rate_axis)
    y = alt.Y("value:Q", title=title.removesuffix(" against batch"), **scale(heights))
    caption = "All cells of both studies, shared or not; bars are 90% intervals."
    return _figure(name, title, caption, records, y, None)


def _read(cell: CellResult, name: str) -> tuple[float | None, Interval | None]:
    if name == "best_lr_vs_batch":
        return cell.best_peak_lr, cell.best_peak_lr_bounds
    estimate = cell.validation_loss if name == "loss_vs_batch" else cell.target.steps
    interval = estimate.interval
    if name == "steps_to_target" and interval is not None and interval[0] <= 0:
        interval = None
    return estimate.value, interval


def _differences(
    comparison: Comparison, names: tuple[str, str], name: str, title: str, measure: str, kind: Kind
) -> Figure:
    held_out = measure
    known = [c for c in comparison.contrasts if c.global_batch_size and c.value is not None]
    found = [c for c in known if c.measure == measure]
    if measure == "test_loss" and not found:
        held_out = "validation_loss"
        found = [c for c in known if c.measure == held_out]
    if not found:
        return Figure(name, title, absent="no shared cell has it in both studies")
    records = [
        _record(c.global_batch_size or 0, c.series or "B against A", c.value or 0.0, c.interval)
        for c in found
    ]
    nothing = 0.0 if kind == "difference" else 1.0
    heights = ends(records, "value", "low", "high")
    shown = [*heights, nothing]
    axis: dict[str, Any] = {"axis": alt.Axis(tickCount=6)}
    if kind == "difference":
        margin = 0.08 * (max(shown) - min(shown)) or 0.01
        domain = [min(shown) - margin, max(shown) + margin]
        axis["scale"] = alt.Scale(domain=domain, zero=False, nice=False)
    else:
        axis["scale"] = alt.Scale(
            type="log", domain=[min(shown) / 1.1, max(shown) * 1.1], nice=False
        )
    word = "B − A" if kind == "difference" else "B / A"
    units = {findings.sweep.loss_unit for findings in (comparison.a, comparison.b)}
    unit = units.pop() if kind == "difference" and len(units) == 1 else ""
    y = alt.Y("value:Q", title=titled(f"{held_out}, {word}", unit), **axis)
    caption = f"A is {names[0][3:]}, B is {names[1][3:]}; bars are 90% intervals, grey is no "
    caption += "difference."
    return _figure(name, title, caption, records, y, nothing)


def _record(batch: int, name: str, value: float, interval: Interval | None) -> dict[str, Any]:
    return {"batch": batch, "series": name, "at": batch, "value": value, **span(interval)}


def _figure(
    name: str, title: str, caption: str, records: Records, y: alt.Y, nothing: float | None
) -> Figure:
    with debug_mode(False):
        spec = styled(_chart(records, y, nothing), title, caption)
    return Figure(name, title, "", caption, spec)


def _chart(records: Records, y: alt.Y, nothing: float | None) -> AnyChart:
    marks = series("series", labels_of(records, "series"), "Study")
    x = batch_axis("at", [record["batch"] for record in records])
    return layers(
        None if nothing is None else rule_at(nothing),
        *estimates(records, x, y, marks, "series:N", "batch:Q", "value:Q", "low:Q", "high:Q"),
    )
