"""The parts of `summary.json` on steps to targets, critical batch sizes and what a batch costs."""

from typing import Any

from scaling.analysis.cells import CellResult
from scaling.analysis.critical_batch.branched_training import branched_summary
from scaling.analysis.critical_batch.noise_along_run import NoiseCurve
from scaling.analysis.critical_batch.target_curves import TargetCurve
from scaling.analysis.critical_batch.targets import ToTarget
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.findings import Findings
from scaling.analysis.plain_numbers import finite, pair
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate

_MOST_POINTS = 60


def critical_batch_size(findings: Findings) -> dict[str, Any]:
    """By each definition, and how far they are apart."""
    noise = findings.noise_scale
    overhead = findings.overhead
    at_target, at_end = _noise_places(findings)
    return {
        "steps_examples": steps_examples(findings.tradeoff, findings.tradeoff_target)
        | {
            "regimes": [
                {
                    "global_batch_size": local.global_batch_size,
                    "slope": finite(local.slope.value),
                    "interval": pair(local.slope.interval),
                    "regime": local.regime,
                }
                for local in findings.regimes
            ]
        },
        "noise_scale": _estimate(noise.estimate)
        | {
            "global_batch_size": noise.global_batch_size,
            "at_target": _estimate(at_target),
            "at_end": _estimate(at_end),
        },
        "branched": branched_summary(findings.branched),
        "overhead_20": {
            "reference_batch_size": overhead.reference_batch_size,
            "on_fit": _estimate(overhead.on_fit),
            "on_curve": _estimate(overhead.on_curve),
        },
        "agreement": [
            {
                "first": agreement.first,
                "second": agreement.second,
                "ratio": finite(agreement.ratio.value),
                "interval": pair(agreement.ratio.interval),
                "intervals_overlap": agreement.overlap,
            }
            for agreement in findings.agreements
        ],
    }


def steps_examples(fit: TradeoffFit, target: float | None) -> dict[str, Any]:
    """The trade-off at one target."""
    return {
        "value": finite(fit.value),
        "interval": pair(fit.interval),
        "bounds": [finite(bound) for bound in fit.bounds],
        "min_steps": finite(fit.min_steps),
        "min_steps_interval": pair(fit.min_steps_interval),
        "min_examples": finite(fit.min_examples),
        "min_examples_interval": pair(fit.min_examples_interval),
        "target": finite(target),
        "num_batch_sizes": fit.num_batches,
        "num_trials": fit.num_trials,
        "seeds_interval": pair(fit.of_seeds.critical),
        "min_steps_seeds_interval": pair(fit.of_seeds.min_steps),
        "min_examples_seeds_interval": pair(fit.of_seeds.min_examples),
        "rms_misfit": finite(fit.rms_misfit),
        "misfit_exceeds_seeds": fit.misfit_exceeds_seeds,
    }


def steps_of_cell(target: ToTarget) -> dict[str, Any]:
    """What is beside a cell's `steps_to_target`."""
    return {
        "steps_to_target_interval": pair(target.steps.interval),
        "steps_to_target_best_tuned": finite(target.best_tuned),
        "steps_to_target_above": finite(target.above),
    }


def further_sections(findings: Findings) -> dict[str, Any]:
    """Several targets, the noise scale along the runs, the parts of the loss, gap relations."""
    return {
        "target_curves": [_curve(curve, findings.cells) for curve in findings.target_curves],
        "noise_scale_curves": [
            {"global_batch_size": cell.global_batch_size} | _noise(curve)
            for cell, curve in zip(findings.cells, findings.noise_curves, strict=True)
            if curve.points
        ],
        "loss_parts": [
            {
                "global_batch_size": parts.global_batch_size,
                "reference_batch_size": parts.reference_batch_size,
                "num_steps": finite(parts.num_steps),
                "num_seeds": parts.total.count,
                "total": _estimate(parts.total),
                "at_equal_steps": _estimate(parts.at_equal_steps),
                "fewer_updates": _estimate(parts.fewer_updates),
            }
            for parts in findings.loss_parts
        ],
        "gap_relations": {
            relation.against: {
                "rank_correlation": finite(relation.correlation.value),
                "interval": pair(relation.correlation.interval),
                "num_cells": len(relation.points),
            }
            for relation in findings.gap_relations
        },
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
            }
            | steps_of_cell(reached)
            for cell, reached in zip(cells, curve.cells, strict=True)
        ],
        "steps_examples": steps_examples(curve.fit, curve.target),
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


def _noise_places(findings: Findings) -> tuple[Estimate, Estimate]:
    """At the target and at the end, of the cell whose noise scale is the headline's."""
    size = findings.noise_scale.global_batch_size
    for cell, curve in zip(findings.cells, findings.noise_curves, strict=True):
        if size is not None and cell.global_batch_size == size:
            return curve.at_target, curve.at_end
    return ABSENT, ABSENT


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": finite(estimate.value), "interval": pair(estimate.interval)}
