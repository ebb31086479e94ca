"""Why something is missing, and why a cell or a comparison is less certain than it looks."""

from typing import Literal, assert_never

from scaling.analysis.cell_results import CellResult
from scaling.analysis.conditions import Conditions, OtherUnit
from scaling.analysis.critical_batch.branched_training import NoBranches
from scaling.analysis.critical_batch.free_exponent import FEWEST as FEWEST_FOR_ALPHA
from scaling.analysis.critical_batch.overhead import NoOverhead
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.findings import Findings
from scaling.analysis.generalization.loss_parts import NoParts
from scaling.analysis.learning_rate.exponent import (
    FEWEST_FOR_INTERVAL,
    FEWEST_FOR_SURGE,
    NoTurn,
    Surge,
)
from scaling.analysis.learning_rate.tuning import Undertuned
from scaling.analysis.series import Series
from scaling.analysis.statistics.uncertainty import Estimate

NO_SEEDS = "no replicates at every batch size"
CELLS_DIFFER = "cells differ in more than the batch size"
_PARAMETERS = 3
"""Of a basin: where it is, how deep, how wide."""
NO_RATES = "no cell tried three learning rates or more"


def no_tradeoff(fit: TradeoffFit) -> str:
    """Why the trade-off or its interval is missing; empty when neither is."""
    match fit.missing:
        case None:
            return ""
        case "cells_differ_otherwise":
            return CELLS_DIFFER
        case "few_batch_sizes":
            return "fewer than two batch sizes can be fitted"
        case "bend_above" | "bend_below":
            return _beyond(fit, fit.missing, "1/B")
        case "no_interval":
            return "batch sizes are not enough, or scatter too much, for an interval"
    assert_never(fit.missing)


def _beyond(fit: TradeoffFit, bend: Literal["bend_above", "bend_below"], law: str) -> str:
    """That the critical batch lies beyond those of the fit, as surely as its bound says."""
    (low, high), (smallest, largest) = fit.bounds, fit.batch_range or (0, 0)
    if bend == "bend_above":
        is_sure, side = low is not None and low >= largest, "larger"
        steps = f"steps still fall as {law} at {largest:,}"
    else:
        is_sure, side = high is not None and high <= smallest, "smaller"
        steps = f"steps no longer fall beyond {smallest:,}"
    return f"{steps}, so the critical batch size {'is' if is_sure else 'may be'} {side}"


def no_free_exponent(fit: TradeoffFit) -> str:
    """Why the trade-off's exponent or its interval is missing; empty when neither is."""
    if fit.missing in ("cells_differ_otherwise", "few_batch_sizes"):
        return no_tradeoff(fit)
    match fit.free.missing:
        case None:
            return ""
        case "few_batch_sizes":
            sizes = f"{fit.num_batches} of at least {FEWEST_FOR_ALPHA} batch sizes"
            return f"not enough data: {sizes} can be fitted"
        case "bend_above" | "bend_below":
            return _beyond(fit, fit.free.missing, "a power of 1/B")
        case "no_interval":
            return "not enough batch sizes for an interval"
    assert_never(fit.free.missing)


def no_exponent(of: Findings | Series) -> str:
    """Why the exponent of the best rate or its interval is missing; empty when neither is."""
    scaling = of.lr_scaling
    num_inside = sum(cell.best_peak_lr_bounds is not None for cell in of.cells)
    inside = (
        f"{num_inside} of {len(of.cells)} batch sizes have a best rate whose interval lies inside "
        "the rates tried"
    )
    match scaling.missing:
        case None:
            return ""
        case "cells_differ_otherwise":
            return CELLS_DIFFER
        case "no_rates_searched":
            return NO_RATES
        case "few_points":
            return (
                f"not enough points: {inside}; the exponent needs {FEWEST_FOR_INTERVAL}, each with "
                "more rates than the curve has parameters"
            )
        case "best_at_edge":
            return f"best at an edge: {inside}; the exponent needs {FEWEST_FOR_INTERVAL}"
        case "law_does_not_fit":
            return (
                "the law does not fit: best rates scatter about a power law by more than noise "
                "explains"
            )
        case "too_noisy":
            return f"too noisy: {inside}"
    assert_never(scaling.missing)


def no_best_rate(cell: CellResult) -> str:
    """Why a cell's best rate or its interval is missing."""
    curve = cell.curve
    if curve is None:
        return "not enough points: fewer than three learning rates ended with a result"
    if curve.edge is not None:
        end = "lowest" if curve.edge == "low" else "highest"
        return f"best at an edge: the best rate may lie beyond the {end} one tried"
    if not curve.has_common_shape:
        bound = (
            "the loss surface does not bound"
            if curve.from_surface
            else "no clearly higher loss bounds"
        )
        return (
            "the law does not fit: no single shape of loss against rate fits all cells, and "
            f"{bound} the best rate on both sides"
        )
    if not curve.is_bracketed or len(curve.points) <= _PARAMETERS:
        return "not enough points: too few rates near the best one for an interval"
    return "too noisy: the losses do not bound the best rate on both sides"


def no_surge(surge: Surge) -> str:
    """Why the surge law or a part of it is missing; empty when nothing is."""
    match surge.missing:
        case None:
            return ""
        case "no_power":
            return "no power law was fitted either"
        case "few_batch_sizes":
            sizes = f"{surge.num_batch_sizes} of at least {FEWEST_FOR_SURGE} batch sizes"
            return f"not enough data: {sizes}"
        case "turn_outside":
            return "its peak is not among the batch sizes tried"
        case "not_by_surface":
            return "the exponent is read from the loss surface"
    assert_never(surge.missing)


def no_turn(missing: NoTurn | None) -> str:
    """Why the batch size at which the best rate stops rising is missing; empty when it is not."""
    match missing:
        case None:
            return ""
        case "no_surface":
            return "there is no loss surface over the batch sizes"
        case "few_batch_sizes":
            return "not enough data: a plateau needs four batch sizes"
        case "best_at_edge":
            return "best rates may lie above those tried, so it is not known where they stop rising"
        case "hardly_any":
            return "hardly any path of best rates that the data allow stops rising"
    assert_never(missing)


def no_overhead(missing: NoOverhead | None, largest: int | None, no_fit: str) -> str:
    """Why the batch of 20% overhead or its interval is missing; empty when neither is."""
    match missing:
        case None:
            return ""
        case "few_batch_sizes":
            return "the steps to the target of fewer than two batch sizes are known"
        case "no_fit":
            return no_fit
        case "beyond_largest":
            return f"it lies beyond {largest:,}, the largest batch whose steps are known"
        case "no_interval":
            return no_fit or "it may lie beyond the batch sizes whose steps are known"
    assert_never(missing)


def no_noise_scale(estimate: Estimate) -> str:
    """Why the gradient noise scale or its interval is missing; empty when neither is."""
    if estimate.value is None:
        return "not measured" if estimate.count == 0 else "|G|² is not above zero"
    if estimate.interval is None:
        return "one seed" if estimate.count == 1 else "|G|² is not clearly above zero"
    return ""


def no_branches(missing: NoBranches | None) -> str:
    """Why branched training gives no critical batch size; empty when it gives one."""
    match missing:
        case None:
            return ""
        case "not_measured":
            return "not measured"
        case "none_ended":
            return "no branch ended"
        case "no_reference":
            return "no branch could be compared with the unchanged batch"
    assert_never(missing)


def no_parts(missing: NoParts | None) -> str:
    """Why the parts of a loss are missing; empty when they are not."""
    match missing:
        case None:
            return ""
        case "seed_diverged":
            return "a seed of this cell or of the reference diverged"
        case "no_common_seed":
            return "no seed has losses along both runs"
        case "longer_than_reference":
            return "it was run for more steps than the reference"
        case "before_first_evaluation":
            return "the reference was not yet evaluated after so few steps"
    assert_never(missing)


def undertuned(reason: Undertuned) -> str:
    """Why a cell needs more search."""
    match reason:
        case "lowest_rate_best":
            return "the best rate is the lowest tried"
        case "highest_rate_best":
            return "the best rate is the highest tried"
        case "falls_towards_lowest":
            return "results still improve towards the lowest rate tried"
        case "falls_towards_highest":
            return "results still improve towards the highest rate tried"
        case "best_still_falling":
            return "the best result was still improving with more trials"
        case "regret_above_limit":
            return "its expected regret is above the search's limit"
    assert_never(reason)


def other_unit(reason: OtherUnit, a: Conditions, b: Conditions) -> str:
    """Why a nat per target is not the same in two studies."""
    match reason:
        case "task":
            return f"the tasks are {a.task} and {b.task}"
        case "unknown_texts":
            return "the content of their data was not recorded"
        case "texts":
            hashes = f"{(a.data_sha256 or '')[:12]} and {(b.data_sha256 or '')[:12]}"
            return f"they are evaluated on different texts (SHA-256 of the data: {hashes})"
        case "tokenizer":
            return f"their tokenizers are {a.tokenizer} and {b.tokenizer}"
        case "targets_per_example":
            counts = f"{a.targets_per_example:g} and {b.targets_per_example:g}"
            return f"the same texts have {counts} targets per example"
        case "learnt_subwords":
            return "their subword vocabularies were learnt from different texts"
    assert_never(reason)
