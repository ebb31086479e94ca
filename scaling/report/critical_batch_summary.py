"""Critical batch sizes, steps to targets and noise scales, as `summary.json` has them."""

from typing import Any

from scaling.analysis.cell_results import CellResult
from scaling.analysis.critical_batch.branched_training import BranchedTraining, BranchPoint
from scaling.analysis.critical_batch.noise_along_run import NoiseCurve
from scaling.analysis.critical_batch.target_curves import TargetCurve
from scaling.analysis.critical_batch.targets import ToTarget
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.findings import Findings
from scaling.analysis.statistics.uncertainty import ABSENT
from scaling.report.plain import attributes, estimated, finite, named, pair, with_why
from scaling.report.words import why_null
from scaling.report.words.absent import (
    NO_SEEDS,
    no_branches,
    no_free_exponent,
    no_noise_scale,
    no_tradeoff,
)
from scaling.report.words.why_null import Why

_MOST_POINTS = 60
_PARAMETERS = ("min_steps", "min_steps_interval", "min_examples", "min_examples_interval")
_OF_THE_CURVE = ("value", "interval", *_PARAMETERS, "rms_misfit")
_OF_SEEDS = (
    "seeds_interval", "min_steps_seeds_interval", "min_examples_seeds_interval",
    "misfit_exceeds_seeds",
)  # fmt: skip


def critical_batch_size(findings: Findings) -> dict[str, Any]:
    """By each definition, and how far they are apart."""
    noise = findings.noise_scale
    return {
        "steps_examples": {
            **steps_examples(
                findings.tradeoff, findings.tradeoff_target, why_null.of_target(findings)
            ),
            "regimes": [
                with_why(
                    attributes(local, "global_batch_size")
                    | named("slope", local.slope, interval="interval")
                    | attributes(local, "regime"),
                    why_null.of_regime(findings),
                )
                for local in findings.regimes
            ],
        },
        "noise_scale": {
            **with_why(
                estimated(noise.estimate) | {"global_batch_size": noise.global_batch_size},
                why_null.of_noise_scale(findings),
            ),
            **_at_places(noise.curve, has_target=findings.sweep.has_target),
        },
        "branched": _branched(findings.branched),
        "overhead_20": _overhead(findings),
        "agreement": [
            with_why(
                attributes(agreement, "first", "second")
                | named("ratio", agreement.ratio, interval="interval")
                | {"intervals_overlap": agreement.overlap},
                why_null.OF_AGREEMENT,
            )
            for agreement in findings.agreements
        ],
    }


def _overhead(findings: Findings) -> dict[str, Any]:
    found = findings.overhead
    of_all, on_fit, on_curve = why_null.of_overhead(findings)
    entry = {
        "reference_batch_size": found.reference_batch_size,
        "on_fit": with_why(estimated(found.on_fit), on_fit),
        "on_curve": with_why(estimated(found.on_curve), on_curve),
    }
    return with_why(entry, of_all)


def _at_places(curve: NoiseCurve | None, *, has_target: bool) -> dict[str, Any]:
    """The noise scale of a cell where it reached the target and at the end."""
    at_target, at_end = (curve.at_target, curve.at_end) if curve else (ABSENT, ABSENT)
    why = why_null.of_noise_at_target(curve, has_target=has_target)
    return {
        "at_target": with_why(estimated(at_target), why),
        "at_end": with_why(estimated(at_end), no_noise_scale(at_end)),
    }


def steps_examples(fit: TradeoffFit, target: float | None, no_target: Why) -> dict[str, Any]:
    """The trade-off at one target."""
    free, reason = fit.free, no_tradeoff(fit)
    entry = {
        **attributes(fit, "value", "interval"),
        "alpha": with_why(estimated(free.alpha), no_free_exponent(fit)),
        "at_twice_min_steps": with_why(estimated(free.at_twice_min_steps), no_free_exponent(fit)),
        "bounds": [finite(bound) for bound in fit.bounds],
        **attributes(fit, *_PARAMETERS),
        "target": finite(target),
        "num_batch_sizes": fit.num_batches,
        "num_trials": fit.num_trials,
        "seeds_interval": pair(fit.of_seeds.critical),
        "min_steps_seeds_interval": pair(fit.of_seeds.min_steps),
        "min_examples_seeds_interval": pair(fit.of_seeds.min_examples),
        **attributes(fit, "rms_misfit", "misfit_exceeds_seeds"),
    }
    return with_why(
        entry,
        dict.fromkeys(_OF_THE_CURVE, reason)
        | dict.fromkeys(_OF_SEEDS, reason or NO_SEEDS)
        | dict(no_target),
    )


def _branched(branched: BranchedTraining) -> dict[str, Any]:
    """`value` is that of the last point, `at` has them all."""
    last = branched.last
    entry = {
        **attributes(last, "value", "interval"),
        "is_lower_bound": last.is_bound if last else None,
        "tolerance": branched.tolerance,
        "at": [_branch_point(point) for point in branched.points],
    }
    missing = no_branches(branched.missing)
    return with_why(entry, missing or (why_null.of_branch_point(last) if last else {}))


def _branch_point(point: BranchPoint) -> dict[str, Any]:
    entry = {
        **attributes(point, "examples", "value", "interval", "surely_inside", "surely_outside"),
        "is_lower_bound": point.is_bound,
        "grad_noise_scale": finite(point.noise_scale.value),
        "differences": [
            with_why(
                {
                    "global_batch_size": loss.global_batch_size,
                    **named("difference", loss.difference, interval="interval"),
                    "num_seeds": loss.difference.count,
                    "diverged": loss.diverged,
                },
                why_null.of_branch_loss(loss),
            )
            for loss in point.losses
        ],
    }
    return with_why(entry, why_null.of_branch_point(point))


def steps_of_cell(target: ToTarget) -> dict[str, Any]:
    """What is beside a cell's `steps_to_target`: its interval and its bounds."""
    return {
        "steps_to_target_interval": pair(target.steps.interval),
        "steps_to_target_best_tuned": finite(target.best_tuned),
        "steps_to_target_above": finite(target.above),
    }


def target_curve(curve: TargetCurve, cells: tuple[CellResult, ...]) -> dict[str, Any]:
    """Steps to one target by cell, and the trade-off at it."""
    return {
        "target": finite(curve.target),
        "origin": curve.origin,
        "cells": [
            with_why(
                {
                    "global_batch_size": cell.global_batch_size,
                    "steps_to_target": finite(reached.steps.value),
                    "num_seeds_reached": reached.num_reached,
                    **steps_of_cell(reached),
                },
                why_null.of_steps(reached),
            )
            for cell, reached in zip(cells, curve.cells, strict=True)
        ],
        "steps_examples": steps_examples(curve.fit, curve.target, {}),
    }


def noise_along_run(curve: NoiseCurve, *, has_target: bool) -> dict[str, Any]:
    """The noise scale of one cell, at 60 places at the most."""
    every = -(-len(curve.points) // _MOST_POINTS)
    return {
        **_at_places(curve, has_target=has_target),
        "points": [
            with_why(
                {"step": point.step, "examples": finite(point.examples)} | estimated(point.scale),
                no_noise_scale(point.scale),
            )
            for point in curve.points[::every]
        ],
    }
