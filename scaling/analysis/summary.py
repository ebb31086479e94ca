"""`summary.json`: the findings as plain data for other programs."""

from typing import Any

from scaling.analysis.answer import answer
from scaling.analysis.branched import branched_summary
from scaling.analysis.cells import CellResult
from scaling.analysis.extension import extended_summary
from scaling.analysis.findings import Findings
from scaling.analysis.matched_gap import MatchedGap
from scaling.analysis.recommend import Recommendation, recommend
from scaling.analysis.regret import Regret
from scaling.analysis.uncertainty import LEVEL, Interval
from scaling.spec import is_finite


def summarize(findings: Findings) -> dict[str, Any]:
    """The summary of a study: intervals as [low, high], null for what was not measured.

    NaN and infinity never appear: a quantity that is not finite is null.
    """
    recommendation = recommend(findings)
    fit, noise = findings.tradeoff, findings.noise_scale.estimate
    exponent = findings.lr_scaling.exponent
    return {
        "study": findings.sweep.name,
        "question": findings.sweep.question,
        "answer": answer(findings, recommendation),
        "num_trials": len(findings.sweep.rows),
        "num_diverged": findings.count("diverged"),
        "num_failed": findings.count("failed"),
        "interval_level": LEVEL,
        "cells": [_cell(cell) for cell in findings.cells],
        "lr_scaling": {
            "exponent": _finite(exponent.value),
            "interval": _pair(exponent.interval),
            "regret": {
                rule: [_regret(r) for r in findings.regrets if r.rule == rule]
                for rule in findings.sweep.rules
            },
        },
        "critical_batch_size": {
            "steps_examples": {
                "value": _finite(fit.value),
                "interval": _pair(fit.interval),
                "min_steps": _finite(fit.min_steps),
                "min_examples": _finite(fit.min_examples),
                "target": _finite(findings.sweep.target),
            },
            "noise_scale": {"value": _finite(noise.value), "interval": _pair(noise.interval)},
            "branched": branched_summary(findings.branched),
        },
        "extended_cells": extended_summary(findings.sweep),
        "recommendation": _recommendation(recommendation),
        "matched_gaps": {
            f"matched_{matched.matched}": _matched(matched, findings.cells)
            for matched in findings.matched_gaps
        },
    }


def _matched(matched: MatchedGap, cells: tuple[CellResult, ...]) -> dict[str, Any]:
    """`at` is in the unit of what is matched; one entry a cell, in the order of `cells`."""
    return {
        "at": _finite(matched.at),
        "cells": [
            _name(cell)
            | {
                "generalization_gap": _finite(gap.value),
                "generalization_gap_interval": _pair(gap.interval),
                "num_seeds": gap.count,
            }
            for cell, gap in zip(cells, matched.gaps, strict=True)
        ],
    }


def _name(cell: CellResult) -> dict[str, Any]:
    only_batch = set(cell.cell) == {"global_batch_size"}
    named = {} if only_batch else {"cell": dict(cell.cell)}
    return named | {"global_batch_size": cell.global_batch_size}


def _cell(cell: CellResult) -> dict[str, Any]:
    return _name(cell) | {
        "num_trials": cell.num_trials,
        "num_seeds": cell.num_seeds,
        "num_censored": cell.num_censored,
        "best_peak_lr": _finite(cell.best_peak_lr),
        "best_peak_lr_interval": _pair(cell.best_peak_lr_interval),
        "validation_loss": _finite(cell.validation_loss.value),
        "train_loss": _finite(cell.train_loss.value),
        "test_loss": _finite(cell.test_loss.value),
        "generalization_gap": _finite(cell.gap.value),
        "generalization_gap_interval": _pair(cell.gap.interval),
        "steps_to_target": _finite(cell.target.steps.value),
        "examples_to_target": _finite(cell.target.examples.value),
        "seconds_to_target": _finite(cell.target.seconds.value),
        "grad_noise_scale": _finite(cell.noise_scale.value),
        "undertuned": bool(cell.undertuned),
    }


def _regret(regret: Regret) -> dict[str, Any]:
    return {
        "global_batch_size": regret.global_batch_size,
        "regret": _finite(regret.regret),
        "interval": _pair(regret.interval),
        "diverged": regret.diverged,
        "applicable": regret.applicable,
    }


def _recommendation(recommendation: Recommendation) -> dict[str, Any]:
    return {
        "global_batch_size": recommendation.global_batch_size,
        "peak_lr": _finite(recommendation.peak_lr),
        "warmup_steps": recommendation.warmup_steps,
        "clip_norm": _finite(recommendation.clip_norm),
        "expected_steps": _finite(recommendation.expected_steps),
        "expected_seconds": _finite(recommendation.expected_seconds),
        "expected_loss_interval": _pair(recommendation.expected_loss_interval),
        "reason": recommendation.reason,
    }


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and is_finite(value) else None


def _pair(interval: Interval | None) -> list[float] | None:
    if interval is None or not all(is_finite(end) for end in interval):
        return None
    return [float(end) for end in interval]
