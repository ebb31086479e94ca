"""`summary.json`: the findings as plain data for other programs."""

from typing import Any

from scaling.analysis.answer import answer
from scaling.analysis.cells import CellResult
from scaling.analysis.findings import Findings
from scaling.analysis.goodput import Option
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
            "branched": {"value": None, "interval": None},
        },
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
    trial, option = recommendation.trial, recommendation.option
    expected: dict[str, Any] = _expected(option) if option else dict.fromkeys(_EXPECTED)
    return {
        "global_batch_size": recommendation.global_batch_size,
        "peak_lr": _finite(trial.peak_lr) if trial else None,
        "warmup_steps": trial.warmup_steps if trial else None,
        "clip_norm": _finite(trial.clip_norm) if trial else None,
        **expected,
        "meets_limits": recommendation.meets_limits,
        "chance_within_limits": _finite(option.chance) if option else None,
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
        option.num_workers, _finite(option.steps.value), _pair(option.steps.interval),
        _finite(option.examples.value), _finite(option.seconds.value),
        _pair(option.seconds.interval), _finite(option.cost.value), _pair(option.cost.interval),
        _finite(option.loss.value), _pair(option.loss.interval),
    )  # fmt: skip
    return dict(zip(_EXPECTED, values, strict=True))


def _finite(value: float | None) -> float | None:
    return float(value) if value is not None and is_finite(value) else None


def _pair(interval: Interval | None) -> list[float] | None:
    if interval is None or not all(is_finite(end) for end in interval):
        return None
    return [float(end) for end in interval]
