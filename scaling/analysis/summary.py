"""`summary.json`: the findings as plain data for other programs."""

from dataclasses import asdict, fields
from typing import Any

from scaling.analysis.answer import answer
from scaling.analysis.baseline import beats_baseline
from scaling.analysis.cells import CellResult
from scaling.analysis.critical_batch.target_summary import (
    critical_batch_size,
    further_sections,
    steps_of_cell,
)
from scaling.analysis.findings import Findings
from scaling.analysis.generalization.matched_gap import MatchedGap
from scaling.analysis.learning_rate.beyond_range import extended_summary
from scaling.analysis.learning_rate.exponent import LrScaling
from scaling.analysis.learning_rate.rule_regret import Regret
from scaling.analysis.next_run.goodput import Option
from scaling.analysis.next_run.recommendation import Recommendation
from scaling.analysis.plain_numbers import finite, pair
from scaling.analysis.rows import Baseline, Sweep
from scaling.analysis.statistics.uncertainty import LEVEL


def summarize(findings: Findings) -> dict[str, Any]:
    """The summary of a study: intervals as [low, high], null for what was not measured.

    NaN and infinity never appear: a quantity that is not finite is null.
    """
    exponent, conditions = findings.lr_scaling.exponent, findings.sweep.conditions
    return {
        "study": findings.sweep.name,
        "question": findings.sweep.question,
        "answer": answer(findings),
        "num_trials": len(findings.sweep.rows),
        "num_diverged": findings.count("diverged"),
        "num_failed": findings.count("failed"),
        "interval_level": LEVEL,
        "baselines": _baselines(findings.sweep.baseline),
        "conditions": conditions.plain() if conditions else None,
        "cells": [_cell(findings.sweep, cell) for cell in findings.cells],
        "lr_scaling": {
            "exponent": finite(exponent.value),
            "interval": pair(exponent.interval),
            **_law(findings.lr_scaling),
            "regret": {
                rule: [_regret(r) for r in findings.regrets if r.rule == rule]
                for rule in findings.sweep.rules
            },
        },
        "critical_batch_size": critical_batch_size(findings),
        "extended_cells": extended_summary(findings.sweep),
        "recommendation": _recommendation(findings.recommendation),
        "matched_gaps": {
            f"matched_{matched.matched}": _matched(matched, findings.cells)
            for matched in findings.matched_gaps
        },
    } | further_sections(findings)


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
            | {
                "generalization_gap": finite(gap.value),
                "generalization_gap_interval": pair(gap.interval),
                "num_seeds": gap.count,
                "difference": finite(difference.value),
                "difference_interval": pair(difference.interval),
            }
            for cell, gap, difference in zip(cells, matched.gaps, matched.differences, strict=True)
        ],
    }


def _name(cell: CellResult) -> dict[str, Any]:
    only_batch = set(cell.cell) == {"global_batch_size"}
    named = {} if only_batch else {"cell": dict(cell.cell)}
    return named | {"global_batch_size": cell.global_batch_size}


def _cell(sweep: Sweep, cell: CellResult) -> dict[str, Any]:
    return (
        _name(cell)
        | {
            "num_trials": cell.num_trials,
            "num_seeds": cell.num_seeds,
            "num_censored": cell.num_censored,
            "best_peak_lr": finite(cell.best_peak_lr),
            "best_peak_lr_interval": pair(cell.best_peak_lr_interval),
            "validation_loss": finite(cell.validation_loss.value),
            "train_loss": finite(cell.train_loss.value),
            "test_loss": finite(cell.test_loss.value),
            "generalization_gap": finite(cell.gap.value),
            "generalization_gap_interval": pair(cell.gap.interval),
            "steps_to_target": finite(cell.target.steps.value),
            "examples_to_target": finite(cell.target.examples.value),
            "seconds_to_target": finite(cell.target.seconds.value),
            "grad_noise_scale": finite(cell.noise_scale.value),
            "undertuned": bool(cell.undertuned),
            "beats_baseline": beats_baseline(sweep, cell),
        }
        | steps_of_cell(cell.target)
    )


def _law(scaling: LrScaling) -> dict[str, Any]:
    """The tests of the reference exponents, and the law that turns."""
    surge = scaling.surge
    return {
        "has_common_shape": scaling.has_common_shape,
        "is_shape_checked": scaling.is_shape_checked,
        "evidence": [
            {
                "exponent": entry.exponent,
                "p_value": entry.p_value,
                "p_value_of_three_tests": entry.p_value_holm,
                "likelihood_ratio": finite(entry.likelihood_ratio),
                "words": entry.words,
            }
            for entry in scaling.evidence
        ],
        "surge": {
            "noise_batch": finite(surge.noise_batch.value),
            "noise_batch_interval": pair(surge.noise_batch.interval),
            "peak_lr": finite(surge.peak_lr),
            "likelihood_ratio_over_power": finite(surge.over_power),
            "preferred": surge.preferred,
            "note": surge.note,
        },
    }


def _regret(regret: Regret) -> dict[str, Any]:
    return {
        "global_batch_size": regret.global_batch_size,
        "regret": finite(regret.regret),
        "interval": pair(regret.interval),
        "diverged": regret.diverged,
        "applicable": regret.applicable,
    }


def _recommendation(recommendation: Recommendation) -> dict[str, Any]:
    trial, option = recommendation.trial, recommendation.option
    expected: dict[str, Any] = _expected(option) if option else dict.fromkeys(_EXPECTED)
    return {
        "global_batch_size": recommendation.global_batch_size,
        "peak_lr": finite(trial.peak_lr) if trial else None,
        "warmup_steps": trial.warmup_steps if trial else None,
        "clip_norm": finite(trial.clip_norm) if trial else None,
        **expected,
        "meets_limits": recommendation.meets_limits,
        "chance_within_limits": finite(option.chance) if option else None,
        "reason": recommendation.reason,
        "recipe": recommendation.recipe,
        "pareto_front": [
            {"global_batch_size": o.cell.global_batch_size} | _expected(o)
            for o in recommendation.front
        ],
    }


_EXPECTED = (
    "num_workers", "expected_steps", "expected_steps_interval", "expected_examples",
    "expected_seconds", "expected_seconds_interval", "expected_cost", "expected_cost_interval",
    "expected_loss", "expected_loss_interval",
)  # fmt: skip


def _expected(option: Option) -> dict[str, Any]:
    """What a run takes; intervals are of the mean over seeds."""
    values = (
        option.num_workers, finite(option.steps.value), pair(option.steps.interval),
        finite(option.examples.value), finite(option.seconds.value),
        pair(option.seconds.interval), finite(option.cost.value), pair(option.cost.interval),
        finite(option.loss.value), pair(option.loss.interval),
    )  # fmt: skip
    return dict(zip(_EXPECTED, values, strict=True))
