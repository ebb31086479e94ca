"""`summary.json`: the findings as plain data for other programs."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from scaling.analysis.baseline import beats_baseline
from scaling.analysis.cell_results import CellResult
from scaling.analysis.contrasts import Contrast, between_series
from scaling.analysis.findings import Findings
from scaling.analysis.generalization.loss_parts import LossParts
from scaling.analysis.generalization.matched_gap import MatchedGap
from scaling.analysis.ladder.runs import problem_of
from scaling.analysis.learning_rate.beyond_range import extended_cells
from scaling.analysis.learning_rate.exponent import LrScaling
from scaling.analysis.learning_rate.rule_regret import Regret, RuleCurve
from scaling.analysis.next_run.goodput import Option
from scaling.analysis.series import Series
from scaling.analysis.statistics.uncertainty import ABSENT, LEVEL, Estimate
from scaling.analysis.trial_rows import Baseline, Sweep, incidents_of
from scaling.records.measurement import MEASURED
from scaling.records.metrics import Metric
from scaling.report.critical_batch_summary import (
    critical_batch_size,
    noise_along_run,
    steps_examples,
    steps_of_cell,
    target_curve,
)
from scaling.report.ladder_summary import (
    check_alone,
    ladder_summary,
    predicted_recommendation,
)
from scaling.report.plain import attributes, estimated, finite, named, pair, with_why
from scaling.report.words import why_null
from scaling.report.words.absent import no_best_rate, no_exponent, no_parts, no_surge, no_turn
from scaling.report.words.headline import headline
from scaling.report.words.ladder import problem_words
from scaling.report.words.learning_rate import evidence_words
from scaling.report.words.reasons import reason_words
from scaling.report.words.recipe_yaml import recommended_yaml

_LOSSES = ("validation_loss", "train_loss", "test_loss")
_TO_TARGET = ("steps", "examples", "seconds")


def summarize(findings: Findings) -> dict[str, Any]:
    """The summary of a study: intervals as [low, high], null for what was not measured.

    NaN and infinity never appear: a quantity that is not finite is null.
    """
    sweep, said = findings.sweep, headline(findings)
    summary = {
        "study": sweep.name,
        "question": sweep.question,
        "headline": said,
        "answer": said,
        "num_trials": len(sweep.rows),
        "num_diverged": findings.count("diverged"),
        "num_failed": findings.count("failed"),
        "interval_level": LEVEL,
        "objective": sweep.objective,
        "tuned_for": asdict(sweep.tuned_for),
        "has_target": sweep.has_target,
        "target_metric": asdict(sweep.target_metric),
        "loss_unit": sweep.loss_unit,
        "small_regret": {k: v for k, v in asdict(sweep.small_regret).items() if v is not None},
        "baselines": _baselines(sweep.baseline),
        "conditions": with_why(asdict(sweep.conditions), why_null.OF_CONDITIONS)
        if sweep.conditions
        else None,
        "metrics": {
            name: with_why(attributes(metric, "label", "unit", "direction"), why_null.OF_METRIC)
            for name, metric in sweep.metrics.items()
        },
        "incidents": [
            with_why({"trial_id": row.trial_id, **incident}, why_null.OF_INCIDENT)
            for row in sweep.rows
            for incident in incidents_of(row)
        ],
        "cells": [_cell(sweep, cell) for cell in findings.cells],
        "lr_scaling": {
            **_lr_scaling(findings),
            "regret": {
                rule: [_regret(regret) for regret in findings.regrets if regret.rule == rule]
                for rule in sweep.rules
            },
        },
        "critical_batch_size": critical_batch_size(findings),
        "series": [_series(findings, series) for series in findings.series],
        "series_contrasts": [_between(*found) for found in between_series(findings)],
        "extended_cells": [
            asdict(extended) | {"peak_lr_beyond": pair(extended.peak_lr_beyond)}
            for extended in extended_cells(sweep)
        ],
        "recommendation": predicted_recommendation(findings.ladder, findings.carried)
        if findings.ladder
        else _recommendation(findings),
        "matched_gaps": {
            f"matched_{matched.matched}": _matched(matched, findings.cells)
            for matched in findings.matched_gaps
        },
        "target_curves": [target_curve(curve, findings.cells) for curve in findings.target_curves],
        "noise_scale_curves": [
            {"global_batch_size": cell.global_batch_size}
            | noise_along_run(curve, has_target=sweep.has_target)
            for cell, curve in zip(findings.cells, findings.noise_curves, strict=True)
            if curve.points
        ],
        "loss_parts": [_parts(parts) for parts in findings.loss_parts],
        "gap_relations": {
            relation.against: with_why(
                {
                    **named("rank_correlation", relation.correlation, interval="interval"),
                    "num_cells": len(relation.points),
                },
                why_null.of_relation(relation),
            )
            for relation in findings.gap_relations
        },
    }
    why = {"conditions": why_null.NO_CONDITIONS}
    if (question := sweep.ladder) is not None:
        reading, problem = findings.ladder, problem_of(sweep, question.scale)
        why["ladder"] = problem_words(problem, question) if problem else ""
        if reading is not None:
            summary["ladder"] = ladder_summary(reading, findings.check, findings.carried)
        elif findings.check is not None:
            summary["ladder"] = check_alone(question, findings.check, why["ladder"])
        else:
            summary["ladder"] = None
    return with_why(summary, why)


def _lr_scaling(of: Findings | Series) -> dict[str, Any]:
    """How the best rate moves with the batch, and what rules cost by the surface."""
    scaling = of.lr_scaling
    return {
        **with_why(named("exponent", scaling.exponent, interval="interval"), no_exponent(of)),
        **_law(scaling),
        "path": _path(of),
        "turns": with_why(
            attributes(scaling.turns, "at", "interval", "probability"),
            no_turn(scaling.turns.missing),
        ),
        "regret_by_surface": {curve.rule: _rule_curve(curve) for curve in of.rule_curves},
    }


def _series(findings: Findings, series: Series) -> dict[str, Any]:
    """The cells of one combination of the other scientific axes."""
    return {
        "cell": dict(series.others),
        "lr_scaling": _lr_scaling(series),
        "critical_batch_size": {
            "steps_examples": steps_examples(
                series.tradeoff, series.tradeoff_target, why_null.of_target(findings)
            )
        },
    }


def _between(first: Series, other: Series, contrast: Contrast) -> dict[str, Any]:
    """One number of two series; `value` is b − a or b / a."""
    entry = {
        **attributes(contrast, "measure", "kind"),
        "a": {"cell": dict(first.others), "value": finite(contrast.a)},
        "b": {"cell": dict(other.others), "value": finite(contrast.b)},
        **attributes(contrast, "value", "interval", "p_value"),
    }
    return with_why(entry, why_null.of_contrast(contrast))


def _path(of: Findings | Series) -> list[dict[str, Any]]:
    cells = {cell.global_batch_size: cell for cell in of.cells}
    return [
        with_why(
            attributes(best, "global_batch_size", "peak_lr", "interval"),
            no_best_rate(cells[best.global_batch_size]),
        )
        for best in of.lr_scaling.path
    ]


def _regret(regret: Regret) -> dict[str, Any]:
    names = ("global_batch_size", "regret", "interval", "diverged", "applicable")
    return with_why(attributes(regret, *names), why_null.of_regret(regret))


def _parts(parts: LossParts) -> dict[str, Any]:
    entry = {
        **attributes(parts, "global_batch_size", "reference_batch_size", "num_steps"),
        "num_seeds": parts.total.count,
        **{
            name: with_why(estimated(getattr(parts, name)), why_null.of_part(parts))
            for name in ("total", "at_equal_steps", "fewer_updates")
        },
    }
    return with_why(entry, no_parts(parts.missing))


def _rule_curve(curve: RuleCurve) -> dict[str, Any]:
    names = ("base_batch_size", "global_batch_size", "regret", "interval", "is_lower_bound")
    return {
        **named("mean", curve.mean, interval="mean_interval"),
        "pairs": [attributes(regret, *names) for regret in curve.regrets],
    }


def _baselines(baseline: Baseline | None) -> dict[str, Any]:
    """What guessing by frequencies gives; null where it was not measured."""
    values = asdict(baseline) if baseline else dict.fromkeys(f.name for f in fields(Baseline))
    entry = {name: v if isinstance(v, str) else finite(v) for name, v in values.items()}
    return with_why(entry, why_null.of_baseline(baseline))


def _matched(matched: MatchedGap, cells: tuple[CellResult, ...]) -> dict[str, Any]:
    """`at` is in the unit of what is matched; one entry a cell, in the order of `cells`."""
    of_cells = enumerate(zip(cells, matched.gaps, matched.differences, strict=True))
    entries = [
        with_why(
            _name(cell)
            | named("generalization_gap", gap)
            | {"num_seeds": gap.count}
            | named("difference", difference),
            why_null.of_matched_cell(matched, place),
        )
        for place, (cell, gap, difference) in of_cells
    ]
    entry = {"at": finite(matched.at), **attributes(matched, "reference_batch_size")}
    return with_why(entry | {"cells": entries}, why_null.of_matched(matched))


def _name(cell: CellResult) -> dict[str, Any]:
    only_batch = set(cell.cell) == {"global_batch_size"}
    named = {} if only_batch else {"cell": dict(cell.cell)}
    return named | {"global_batch_size": cell.global_batch_size}


def _cell(sweep: Sweep, cell: CellResult) -> dict[str, Any]:
    values = {
        **attributes(cell, "num_trials", "num_seeds", "num_censored"),
        **attributes(cell, "best_peak_lr", "best_peak_lr_interval"),
        **{name: finite(getattr(cell, name).value) for name in _LOSSES},
        **named("generalization_gap", cell.gap),
        "recipe_peak_lr": finite(cell.best.peak_lr) if cell.best else None,
        "best_peak_lr_for_target": finite(cell.target.peak_lr),
        **{f"{n}_to_target": finite(getattr(cell.target, n).value) for n in _TO_TARGET},
        "grad_noise_scale": finite(cell.noise_scale.value),
        "undertuned": bool(cell.undertuned),
        "expected_regret": finite(cell.surface_best.expected_regret) if cell.surface_best else None,
        "beats_baseline": beats_baseline(sweep, cell),
        **steps_of_cell(cell.target),
        "metrics": _estimates(cell.metrics, sweep.metrics),
        "measured": _estimates(
            {n: e for n, e in cell.measured.items() if e.value is not None}, MEASURED
        ),
    }
    return with_why(_name(cell) | values, why_null.of_cell(sweep, cell))


def _estimates(estimates: Mapping[str, Estimate], metrics: Mapping[str, Metric]) -> dict[str, Any]:
    return {
        name: with_why(estimated(estimate), why_null.of_measured(estimate, metrics.get(name)))
        for name, estimate in estimates.items()
    }


def _law(scaling: LrScaling) -> dict[str, Any]:
    """The tests of the reference exponents, and the law that turns."""
    surge = scaling.surge
    return {
        **attributes(scaling, "has_common_shape", "is_shape_checked"),
        "evidence": [
            {
                **attributes(entry, "exponent", "p_value", "likelihood_ratio"),
                "p_value_of_three_tests": entry.p_value_holm,
                "words": evidence_words(entry.strength),
            }
            for entry in scaling.evidence
        ],
        "surge": with_why(
            {
                **named("noise_batch", surge.noise_batch),
                "peak_lr": finite(surge.peak_lr),
                "likelihood_ratio_over_power": finite(surge.over_power),
                "preferred": surge.preferred,
                "note": no_surge(surge),
            },
            no_surge(surge) or why_null.NO_INTERVAL,
        ),
    }


def _recommendation(findings: Findings) -> dict[str, Any]:
    recommendation = findings.recommendation
    trial, option = recommendation.trial, recommendation.option
    entry = {
        "global_batch_size": recommendation.global_batch_size,
        **attributes(trial, "peak_lr", "warmup_steps", "clip_norm"),
        **_expected(option),
        "meets_limits": recommendation.meets_limits,
        "chance_within_limits": option.chance if option else None,
        "reason": reason_words(recommendation.reason),
        "recipe": recommended_yaml(recommendation),
        "pareto_front": [
            with_why(
                {"global_batch_size": o.cell.global_batch_size} | _expected(o),
                why_null.of_option(findings.sweep, o),
            )
            for o in recommendation.front
        ],
    }
    return with_why(entry, why_null.of_recommendation(findings))


def _expected(option: Option | None) -> dict[str, Any]:
    """One run of so many steps: what it takes and comes to, with predictive intervals."""

    def of(name: str) -> Estimate:
        return getattr(option, name) if option else ABSENT

    return {
        **attributes(option, "num_workers"),
        **named("expected_steps", of("steps")),
        **attributes(option, "chance_of_target"),
        **named("mean_steps_to_target", of("mean_steps")),
        "expected_examples": finite(of("examples").value),
        **named("expected_seconds", of("seconds")),
        **named("mean_idle_seconds", of("idle_seconds")),
        **named("expected_cost", of("cost")),
        **named("expected_loss", of("loss")),
    }
