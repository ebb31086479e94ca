"""Figures of what it costs to carry a recipe by a rule."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from scaling.analysis.findings import Findings
from scaling.analysis.learning_rate.rule_regret import Regret
from scaling.report.charts.style import (
    AnyChart,
    Records,
    batch_axis,
    chart,
    edge_marks,
    ends,
    estimates,
    layers,
    ratio_axis,
    rule_at,
    series,
    span,
    tips,
    value_axis,
    visible_top,
)
from scaling.report.words.numbers import between, number, rule_name, titled

_CROSS = "M-1,-1L1,1M1,-1L-1,1"


def rules_between_batches(findings: Findings) -> AnyChart:
    """Regret against the factor between two batch sizes, a point a pair, a colour a rule."""
    curves = findings.rule_curves
    names = [rule_name(curve.rule) for curve in curves]
    records: Records = [
        {
            "rule": rule_name(curve.rule),
            "factor": r.global_batch_size / r.base_batch_size * 1.06 ** (place - 1),
            "regret": r.regret, "low": max(r.interval[0], 0.0), "high": r.interval[1],
            "pair": f"{r.base_batch_size:,} to {r.global_batch_size:,}",
            "text": f"{'at least ' * r.is_lower_bound}{number(r.regret)} {between(r.interval)}",
            "kind": "lower bound" if r.is_lower_bound else "inside the rates tried",
        }
        for place, curve in enumerate(curves)
        for r in curve.regrets
    ]  # fmt: skip
    top = visible_top([record["regret"] for record in records])
    factors = [record["factor"] for record in records]
    x = alt.X("factor:Q", title="Batch carried to, over the batch tuned at", **ratio_axis(factors))
    title = titled("Regret", findings.sweep.tuned_for.regret_unit)
    y = alt.Y("regret:Q", title=title, **value_axis([0.0, top]))
    marks, shown = series("rule", names, "Rule"), ("rule:N", "pair:N", "text:N", "kind:N")
    inside = [record for record in records if record["regret"] <= top]
    above = [record for record in records if record["regret"] > top]
    known = [
        record | {"high": min(record["high"], top)}
        for record in inside
        if record["kind"] != "lower bound"
    ]
    bounds = [record for record in inside if record["kind"] == "lower bound"]
    hollow = chart(bounds).mark_point(filled=False, size=60, strokeWidth=1.6)
    return layers(
        rule_at(0),
        *estimates(known, x, y, marks, *shown, size=60),
        hollow.encode(x, y, *marks, tooltip=tips(*shown)),
        edge_marks(above, filled=False).encode(x, marks[0], tooltip=tips(*shown)),
    )


def regret_vs_batch(findings: Findings) -> AnyChart:
    """Regret of each rule, side by side at each batch; diverged ones at the top edge."""
    rules = list(findings.sweep.rules)
    records = [
        _regret_record(regret, rules)
        for regret in findings.regrets
        if regret.diverged or regret.regret is not None
    ]
    sizes = sorted({record["size"] for record in records})
    x = batch_axis("batch", sizes, 1.5)
    y = alt.Y(
        "regret:Q",
        title=titled("Regret against tuning there", findings.sweep.tuned_for.regret_unit),
        **value_axis([0.0, *ends(records, "regret", "low", "high")]),
    )
    marks, shown = series("rule", rules, "Rule"), ("rule:N", "size:Q", "text:N")
    kept = [record for record in records if record["regret"] is not None]
    lost = [record for record in records if record["diverged"]]
    return layers(
        rule_at(0),
        *(estimates(kept, x, y, marks, *shown, size=90) if kept else ()),
        chart(lost).mark_point(shape=_CROSS, size=90, strokeWidth=2.5).encode(
            x, marks[0], y=alt.value(7), tooltip=tips(*shown)
        ) if lost else None,
    )  # fmt: skip


def _regret_record(regret: Regret, rules: Sequence[str]) -> dict[str, Any]:
    place = rules.index(regret.rule)
    text = "diverged" if regret.diverged else f"{number(regret.regret)} {between(regret.interval)}"
    return {
        "rule": regret.rule,
        "size": regret.global_batch_size,
        "batch": regret.global_batch_size * 1.12 ** (place - (len(rules) - 1) / 2),
        "regret": regret.regret,
        **span(regret.interval),
        "diverged": regret.diverged,
        "text": text,
    }
