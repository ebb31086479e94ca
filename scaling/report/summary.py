"""`summary.json`: the findings as plain data for other programs."""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, cast

from scaling.analysis.baseline import beats_baseline
from scaling.analysis.cell_results import CellResult
from scaling.analysis.critical_batch.branched_training import BranchedTraining
from scaling.analysis.critical_batch.noise_along_run import NoiseCurve
from scaling.analysis.critical_batch.target_curves import TargetCurve
from scaling.analysis.critical_batch.targets import ToTarget
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.findings import Findings
from scaling.analysis.generalization.matched_gap import MatchedGap
from scaling.analysis.learning_rate.beyond_range import extended_cells
from scaling.analysis.learning_rate.exponent import LrScaling
from scaling.analysis.next_run.goodput import Option
from scaling.analysis.next_run.recommendation import Recommendation
from scaling.analysis.statistics.uncertainty import ABSENT, LEVEL, Estimate, Interval
from scaling.analysis.trial_rows import Baseline, Sweep, incidents_of
from scaling.report.words.absent import no_surge
from scaling.report.words.answer import answer
from scaling.report.words.reasons import reason_words
from scaling.report.words.recipe_yaml import recommended_yaml
from scaling.report.words.remarks import evidence_words
from scaling.spec.fields import is_finite

_MOST_POINTS = 60


def summarize(findings: Findings) -> dict[str, Any]:
    """The summary of a study: intervals as [low, high], null for what was not measured.

    NaN and infinity never appear: a quantity that is not finite is null.
    """
    sweep, scaling = findings.sweep, findings.lr_scaling
    return {
        "study": sweep.name,
        "question": sweep.question,
        "answer": answer(findings),
        "num_trials": len(sweep.rows),
        "num_diverged": findings.count("diverged"),
        "num_failed": findings.count("failed"),
        "interval_level": LEVEL,
        "baselines": _baselines(sweep.baseline),
        "conditions": sweep.conditions.plain() if sweep.conditions else None,
        "metrics": {
            name: _of(metric, "label", "unit", "direction")
            for name, metric in sweep.metrics.items()
        },
        "incidents": [
            {"trial_id": row.trial_id, **incident}
            for row in sweep.rows
            for incident in incidents_of(row)
        ],
        "cells": [_cell(sweep, cell) for cell in findings.cells],
        "lr_scaling": {
            **_named("exponent", scaling.exponent, interval="interval"),
            **_law(scaling),
            "path": [_of(b, "global_batch_size", "peak_lr", "interval") for b in scaling.path],
            "turns": _of(scaling.turns, "at", "interval", "probability"),
            "regret": {
                rule: [
                    _of(regret, "global_batch_size", "regret", "interval", "diverged", "applicable")
                    for regret in findings.regrets
                    if regret.rule == rule
                ]
                for rule in sweep.rules
            },
        },
        "critical_batch_size": _critical_batch_size(findings),
        "extended_cells": [
            asdict(extended) | {"peak_lr_beyond": pair(extended.peak_lr_beyond)}
            for extended in extended_cells(sweep)
        ],
        "recommendation": _recommendation(findings.recommendation),
        "matched_gaps": {
            f"matched_{matched.matched}": _matched(matched, findings.cells)
            for matched in findings.matched_gaps
        },
        "target_curves": [_curve(curve, findings.cells) for curve in findings.target_curves],
        "noise_scale_curves": [
            {"global_batch_size": cell.global_batch_size} | _noise(curve)
            for cell, curve in zip(findings.cells, findings.noise_curves, strict=True)
            if curve.points
        ],
        "loss_parts": [
            _of(parts, "global_batch_size", "reference_batch_size", "num_steps")
            | {"num_seeds": parts.total.count}
            | _of(parts, "total", "at_equal_steps", "fewer_updates")
            for parts in findings.loss_parts
        ],
        "gap_relations": {
            relation.against: {
                **_named("rank_correlation", relation.correlation, interval="interval"),
                "num_cells": len(relation.points),
            }
            for relation in findings.gap_relations
        },
    }


def finite(value: float | None) -> float | None:
    """The number, or None for one that is not finite."""
    return float(value) if value is not None and is_finite(value) else None


def pair(interval: Interval | None) -> list[float | None] | None:
    """[low, high], an end that is infinite as None; None where both are, or one is no number."""
    if interval is None or any(math.isnan(end) for end in interval):
        return None
    ends = [finite(end) for end in interval]
    return None if ends == [None, None] else ends


def _of(found: object, *names: str) -> dict[str, Any]:
    """Some attributes by their names, as JSON has them."""
    return {name: _plain(getattr(found, name)) for name in names}


def _plain(value: Any) -> Any:
    match value:
        case Estimate():
            return _estimate(value)
        case tuple():
            return pair(cast("Interval", value))
        case float():
            return finite(value)
        case _:
            return value


def _named(name: str, estimate: Estimate, *, interval: str | None = None) -> dict[str, Any]:
    """An estimate under a name, and its interval under that with a suffix."""
    key = interval or f"{name}_interval"
    return {name: finite(estimate.value), key: pair(estimate.interval)}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return _named("value", estimate, interval="interval")


def _baselines(baseline: Baseline | None) -> dict[str, Any]:
    """What guessing by frequencies gives; null where it was not measured."""
    values = asdict(baseline) if baseline else dict.fromkeys(f.name for f in fields(Baseline))
    return {name: v if isinstance(v, str) else finite(v) for name, v in values.items()}


def _matched(matched: MatchedGap, cells: tuple[CellResult, ...]) -> dict[str, Any]:
    """`at` is in the unit of what is matched; one entry a cell, in the order of `cells`."""
    return {
        "at": finite(matched.at),
        "reference_batch_size": matched.reference_batch_size,
        "cells": [
            _name(cell)
            | _named("generalization_gap", gap)
            | {"num_seeds": gap.count}
            | _named("difference", difference)
            for cell, gap, difference in zip(cells, matched.gaps, matched.differences, strict=True)
        ],
    }


def _name(cell: CellResult) -> dict[str, Any]:
    only_batch = set(cell.cell) == {"global_batch_size"}
    named = {} if only_batch else {"cell": dict(cell.cell)}
    return named | {"global_batch_size": cell.global_batch_size}


def _cell(sweep: Sweep, cell: CellResult) -> dict[str, Any]:
    return _name(cell) | {
        **_of(cell, "num_trials", "num_seeds", "num_censored"),
        **_of(cell, "best_peak_lr", "best_peak_lr_interval"),
        "validation_loss": finite(cell.validation_loss.value),
        "train_loss": finite(cell.train_loss.value),
        "test_loss": finite(cell.test_loss.value),
        **_named("generalization_gap", cell.gap),
        "steps_to_target": finite(cell.target.steps.value),
        "examples_to_target": finite(cell.target.examples.value),
        "seconds_to_target": finite(cell.target.seconds.value),
        "grad_noise_scale": finite(cell.noise_scale.value),
        "undertuned": bool(cell.undertuned),
        "expected_regret": finite(cell.surface_best.expected_regret) if cell.surface_best else None,
        "beats_baseline": beats_baseline(sweep, cell),
        **_steps_of_cell(cell.target),
        "metrics": _estimates(cell.metrics),
        "measured": _estimates(cell.measured),
    }


def _estimates(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: _estimate(estimate) for name, estimate in estimates.items()}


def _law(scaling: LrScaling) -> dict[str, Any]:
    """The tests of the reference exponents, and the law that turns."""
    surge = scaling.surge
    return {
        **_of(scaling, "has_common_shape", "is_shape_checked"),
        "evidence": [
            {
                **_of(entry, "exponent", "p_value", "likelihood_ratio"),
                "p_value_of_three_tests": entry.p_value_holm,
                "words": evidence_words(entry.strength),
            }
            for entry in scaling.evidence
        ],
        "surge": {
            **_named("noise_batch", surge.noise_batch),
            "peak_lr": finite(surge.peak_lr),
            "likelihood_ratio_over_power": finite(surge.over_power),
            "preferred": surge.preferred,
            "note": no_surge(surge),
        },
    }


def _recommendation(recommendation: Recommendation) -> dict[str, Any]:
    trial, option = recommendation.trial, recommendation.option
    return {
        "global_batch_size": recommendation.global_batch_size,
        **{n: _plain(getattr(trial, n, None)) for n in ("peak_lr", "warmup_steps", "clip_norm")},
        **_expected(option),
        "meets_limits": recommendation.meets_limits,
        "chance_within_limits": finite(option.chance) if option else None,
        "reason": reason_words(recommendation.reason),
        "recipe": recommended_yaml(recommendation),
        "pareto_front": [
            {"global_batch_size": o.cell.global_batch_size} | _expected(o)
            for o in recommendation.front
        ],
    }


def _expected(option: Option | None) -> dict[str, Any]:
    """What a run takes; intervals are of the mean over seeds."""
    steps, examples, seconds, cost, loss = (
        (option.steps, option.examples, option.seconds, option.cost, option.loss)
        if option
        else (ABSENT,) * 5
    )
    return {
        "num_workers": option.num_workers if option else None,
        **_named("expected_steps", steps),
        "expected_examples": finite(examples.value),
        **_named("expected_seconds", seconds),
        **_named("expected_cost", cost),
        **_named("expected_loss", loss),
    }


def _critical_batch_size(findings: Findings) -> dict[str, Any]:
    """By each definition, and how far they are apart."""
    noise = findings.noise_scale
    curve = findings.headline_noise
    at_target, at_end = (curve.at_target, curve.at_end) if curve else (ABSENT, ABSENT)
    return {
        "steps_examples": {
            **_steps_examples(findings.tradeoff, findings.tradeoff_target),
            "regimes": [
                {
                    "global_batch_size": local.global_batch_size,
                    **_named("slope", local.slope, interval="interval"),
                    "regime": local.regime,
                }
                for local in findings.regimes
            ],
        },
        "noise_scale": {
            **_estimate(noise.estimate),
            "global_batch_size": noise.global_batch_size,
            "at_target": _estimate(at_target),
            "at_end": _estimate(at_end),
        },
        "branched": _branched(findings.branched),
        "overhead_20": _of(findings.overhead, "reference_batch_size", "on_fit", "on_curve"),
        "agreement": [
            {
                "first": agreement.first,
                "second": agreement.second,
                **_named("ratio", agreement.ratio, interval="interval"),
                "intervals_overlap": agreement.overlap,
            }
            for agreement in findings.agreements
        ],
    }


def _steps_examples(fit: TradeoffFit, target: float | None) -> dict[str, Any]:
    """The trade-off at one target."""
    return {
        **_of(fit, "value", "interval"),
        "bounds": [finite(bound) for bound in fit.bounds],
        **_of(fit, "min_steps", "min_steps_interval", "min_examples", "min_examples_interval"),
        "target": finite(target),
        "num_batch_sizes": fit.num_batches,
        "num_trials": fit.num_trials,
        "seeds_interval": pair(fit.of_seeds.critical),
        "min_steps_seeds_interval": pair(fit.of_seeds.min_steps),
        "min_examples_seeds_interval": pair(fit.of_seeds.min_examples),
        **_of(fit, "rms_misfit", "misfit_exceeds_seeds"),
    }


def _branched(branched: BranchedTraining) -> dict[str, Any]:
    """`value` is that of the last point, `at` has them all."""
    last = branched.last
    return {
        "value": last.value if last else None,
        "interval": pair(last.interval) if last else None,
        "is_lower_bound": last.is_bound if last else None,
        "tolerance": branched.tolerance,
        "at": [
            {
                **_of(point, "examples", "value", "interval", "surely_inside", "surely_outside"),
                "is_lower_bound": point.is_bound,
                "grad_noise_scale": finite(point.noise_scale.value),
                "differences": [
                    {
                        "global_batch_size": loss.global_batch_size,
                        **_named("difference", loss.difference, interval="interval"),
                        "num_seeds": loss.difference.count,
                        "diverged": loss.diverged,
                    }
                    for loss in point.losses
                ],
            }
            for point in branched.points
        ],
    }


def _steps_of_cell(target: ToTarget) -> dict[str, Any]:
    """What is beside a cell's `steps_to_target`."""
    return {
        "steps_to_target_interval": pair(target.steps.interval),
        "steps_to_target_best_tuned": finite(target.best_tuned),
        "steps_to_target_above": finite(target.above),
    }


def _curve(curve: TargetCurve, cells: tuple[CellResult, ...]) -> dict[str, Any]:
    return {
        "target": finite(curve.target),
        "origin": curve.origin,
        "cells": [
            {
                "global_batch_size": cell.global_batch_size,
                "steps_to_target": finite(reached.steps.value),
                "num_seeds_reached": reached.num_reached,
                **_steps_of_cell(reached),
            }
            for cell, reached in zip(cells, curve.cells, strict=True)
        ],
        "steps_examples": _steps_examples(curve.fit, curve.target),
    }


def _noise(curve: NoiseCurve) -> dict[str, Any]:
    every = -(-len(curve.points) // _MOST_POINTS)
    return {
        "at_target": _estimate(curve.at_target),
        "at_end": _estimate(curve.at_end),
        "points": [
            {"step": point.step, "examples": finite(point.examples)} | _estimate(point.scale)
            for point in curve.points[::every]
        ],
    }
