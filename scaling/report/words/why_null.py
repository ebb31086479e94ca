"""Why a field of summary.json is null: by field, for each kind of object there."""

from collections.abc import Mapping

from scaling.analysis.cell_results import CellResult
from scaling.analysis.contrasts import Contrast
from scaling.analysis.critical_batch.branched_training import BranchLoss, BranchPoint
from scaling.analysis.critical_batch.noise_along_run import NoiseCurve
from scaling.analysis.critical_batch.targets import ToTarget
from scaling.analysis.findings import Findings
from scaling.analysis.generalization.gap_relations import ENOUGH_CELLS, GapRelation
from scaling.analysis.generalization.loss_parts import LossParts
from scaling.analysis.generalization.matched_gap import MatchedGap
from scaling.analysis.learning_rate.rule_regret import Regret
from scaling.analysis.next_run.goodput import Option, max_seconds
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.analysis.trial_rows import Baseline, Sweep
from scaling.records.metrics import Metric
from scaling.report.words.absent import (
    CELLS_DIFFER,
    no_best_rate,
    no_free_exponent,
    no_noise_scale,
    no_overhead,
    no_parts,
    no_tradeoff,
)
from scaling.report.words.reasons import reason_words

Why = Mapping[str, str]
NOT_MEASURED = "not measured"
NO_TARGET = "there is no target"
NO_CONDITIONS = "a table does not say how its losses were measured"
OF_CONDITIONS: Why = {
    "source": "the task has no data",
    "data_sha256": "the content of the data was not recorded",
    "tokenizer": "the task has no tokenizer",
    "targets_per_example": "not recorded",
    "num_train": "not recorded, or examples are drawn without end",
}
OF_METRIC: Why = {
    "unit": "the task does not say it",
    "direction": "neither way is better by itself, or the task does not say which is",
}
OF_INCIDENT: Why = {"cause": "the cause was not recorded"}
OF_AGREEMENT: Why = {
    "interval": "one of the two has no interval, or one that reaches 0",
    "intervals_overlap": "one of the two has no interval",
}
NO_INTERVAL = "the data do not bound it on either side"
_ONE_SEED = "one seed: an interval needs two"
_TIED = "all seeds agree: how far they scatter is not known"
_ONE_PAIR = "one paired seed: an interval needs two"
_IN_PLACE = "{} is maximized in place of a loss"


def of_measured(estimate: Estimate, metric: Metric | None) -> Why:
    """Of one measurement over the replicates of a cell."""
    if estimate.value is None:
        return dict.fromkeys(("value", "interval"), NOT_MEASURED)
    if metric is not None and metric.over_seeds == "max":
        return {"interval": "it is the largest of all seeds, not their mean"}
    return {"interval": _ONE_SEED if estimate.count <= 1 else NO_INTERVAL}


def of_baseline(baseline: Baseline | None) -> Why | str:
    """Of what guessing gives."""
    if baseline is None:
        return "no baseline was measured"
    no_test = "there is no test split"
    return {
        "accuracy": "the task has no accuracy",
        "validation_loss_stderr": NOT_MEASURED,
        "test_loss": no_test,
        "test_loss_stderr": no_test,
    }


def of_cell(sweep: Sweep, cell: CellResult) -> Why:
    """Of a cell's numbers."""
    loss, no_loss = "no replicate of the best recipe ended with one", False
    if not _has_losses(sweep):
        loss, no_loss = _IN_PLACE.format(sweep.tuned_for.name), True
    elif sweep.objective == "steps_to_target" and all(r.recipe is None for r in sweep.rows):
        loss, no_loss = "no losses were given", True
    gap = "a training and a held-out loss of the same runs are needed"
    rate_words = no_best_rate(cell)
    return {
        "global_batch_size": "no trial ended with a result",
        "best_peak_lr": rate_words,
        "best_peak_lr_interval": rate_words,
        "recipe_peak_lr": "no learning rate is known of a trial that ended with a result",
        "validation_loss": loss,
        "train_loss": loss if no_loss else NOT_MEASURED,
        "test_loss": loss if no_loss else "there is no confirm phase, or no test",
        "generalization_gap": gap,
        "generalization_gap_interval": gap if cell.gap.value is None else _ONE_SEED,
        "grad_noise_scale": no_noise_scale(cell.noise_scale),
        "expected_regret": "there is no loss surface: fewer than six trials, or no rates",
        "beats_baseline": "no baseline was measured",
        **of_steps(cell.target, has_target=sweep.has_target),
    }


def _has_losses(sweep: Sweep) -> bool:
    """Whether losses stand beside a metric that recipes are tuned for."""
    is_loss = sweep.tuned_for.is_loss
    return is_loss or any(row.validation_loss is not None for row in sweep.rows)


def of_steps(target: ToTarget, *, has_target: bool = True) -> Why:
    """Of the steps, examples and seconds that a cell took to a target."""
    steps = rate = seconds = interval = "not every replicate reached the target"
    if target.steps.value is not None:
        rate, seconds = "no learning rate is known of these runs", "no times were measured"
        interval = _ONE_SEED if target.steps.count <= 1 else _TIED
    best = "no recipe of the search reached the target in all its trials"
    why = {
        "best_peak_lr_for_target": rate,
        "steps_to_target": steps,
        "examples_to_target": steps,
        "seconds_to_target": seconds,
        "steps_to_target_interval": interval,
        "steps_to_target_best_tuned": best,
        "steps_to_target_above": "it is known, or no replicate ran to its budget",
    }
    return why if has_target else dict.fromkeys(why, NO_TARGET)


def of_regret(regret: Regret) -> str:
    """Of a rule at one batch size."""
    if regret.regret is not None:
        return _ONE_PAIR
    if regret.diverged:
        return "a run with the carried recipe diverged"
    if regret.tuned_diverged:
        return "a run with the recipe tuned at this batch size diverged"
    if not regret.applicable:
        return "the rule gives no recipe at this batch size"
    return "no seed ended both with the carried and with the tuned recipe"


def of_noise_scale(findings: Findings) -> str:
    """Of the noise scale beside the other critical batch sizes."""
    return no_noise_scale(findings.noise_scale.estimate) if findings.one_series else CELLS_DIFFER


def of_noise_at_target(curve: NoiseCurve | None, *, has_target: bool) -> str:
    """Of the noise scale where the target was reached."""
    estimate = curve.at_target if curve is not None else Estimate()
    if estimate.value is not None or estimate.count:
        return no_noise_scale(estimate)
    if not has_target:
        return NO_TARGET
    if curve is None or not curve.points:
        return NOT_MEASURED
    return "not every replicate reached the target between two of its estimates"


def of_overhead(findings: Findings) -> tuple[str, str, str]:
    """Of the 20% overhead: the object itself, on the fit and on the points."""
    found = findings.overhead
    largest = found.largest_batch_size
    fit = no_overhead(found.fit_missing, largest, no_free_exponent(findings.tradeoff))
    curve = no_overhead(found.curve_missing, largest, "")
    return curve, fit, curve or "read between two batch sizes, without a fit"


def of_regime(findings: Findings) -> Why:
    """Of what a larger batch still buys at one batch size."""
    fit = findings.tradeoff
    words = no_free_exponent(fit) or no_tradeoff(fit) or NO_INTERVAL
    return {"slope": no_tradeoff(fit) or words, "interval": words, "regime": words}


def of_target(findings: Findings) -> Why:
    """Of the target of the trade-off."""
    if findings.sweep.has_target:
        return {"target": "the table does not say it"}
    return {"target": NO_TARGET + ", and no loss is known that every cell reached on its way"}


def of_branch_point(point: BranchPoint) -> Why:
    """Of one point of branched training."""
    words = "no larger batch is surely outside of the tolerance"
    if point.value is None:
        words = "no branch could be compared with the batch left as it was"
    why = dict.fromkeys(("value", "interval", "surely_outside"), words)
    return why | {"grad_noise_scale": no_noise_scale(point.noise_scale)}


def of_branch_loss(loss: BranchLoss) -> str:
    """Of the loss of one branch over that of the batch left as it was."""
    if loss.difference.value is not None:
        return _ONE_PAIR
    return "a seed diverged" if loss.diverged else "no seed ended in both"


def of_matched(matched: MatchedGap) -> Why:
    """Of gaps at equal progress."""
    words = "fewer than two cells measured both losses along their runs"
    no_reference = "no cell has runs that ended"
    return {"at": words, "reference_batch_size": words if matched.at is None else no_reference}


def of_matched_cell(matched: MatchedGap, place: int) -> Why:
    """Of one cell's gap at equal progress."""
    gap = matched.gaps[place]
    words, apart = of_matched(matched)["at"], ""
    if matched.at is not None:
        words = "this cell did not measure both losses along its runs"
        apart = "no seed ended here and in the reference"
    if place == matched.reference:
        apart = "this is the reference itself"
    difference = matched.differences[place]
    missing = (words if gap.value is None else apart) or words
    return {
        "generalization_gap": words,
        "generalization_gap_interval": words if gap.value is None else _ONE_SEED,
        "difference": missing,
        "difference_interval": missing if difference.value is None else _ONE_PAIR,
    }


def of_part(parts: LossParts) -> str:
    """Of one of the parts of a larger batch's loss."""
    return no_parts(parts.missing) or _ONE_PAIR


def of_relation(relation: GapRelation) -> str:
    """Of the gap's correlation with another measure."""
    count = len(relation.points)
    if count >= ENOUGH_CELLS:
        return "one of the two is the same in all cells"
    return f"not enough data: {count} of at least {ENOUGH_CELLS} cells have both"


def of_contrast(contrast: Contrast) -> Why:
    """Of one number of two studies."""
    words = "one seed, or no interval, in one of the two"
    lost = f"a seed of {' and one of '.join(contrast.diverged)} diverged"
    is_whole = not contrast.cell
    return {
        "global_batch_size": "it is of the whole study" if is_whole else "the cell has none",
        **dict.fromkeys(("a", "b", "value"), lost),
        **dict.fromkeys(("interval", "p_value"), lost if contrast.diverged else words),
    }


def of_recommendation(findings: Findings) -> Why | str:
    """Of the recommended recipe; empty for what is not asked for."""
    found = findings.recommendation
    option, trial = found.option, found.trial
    if option is None or trial is None:
        return reason_words(found.reason)
    limits = "the study sets no limits"
    if found.meets_limits is not None:
        limits = _no_chance(findings.sweep, option)
    return {
        **of_option(findings.sweep, option),
        "meets_limits": "the study sets no limits",
        "chance_within_limits": limits,
        "recipe": "a table does not hold the whole recipe",
        "peak_lr": "not known",
        "warmup_steps": "a table does not say",
        "clip_norm": "gradients are not clipped" if trial.recipe else "a table does not say",
    }


def _no_chance(sweep: Sweep, option: Option) -> str:
    """Why a run's chance to meet the limits is not known."""
    if max_seconds(sweep.limits, option.num_workers) is None:
        return "the study limits neither the time nor the cost"
    if option.cut_short:
        return "the run ends at its last evaluation within the limits"
    return _no_spread(option)


def of_option(sweep: Sweep, option: Option) -> Why:
    """Of what a run of a cell takes and comes to."""
    spread = _no_spread(option)
    to_target = NO_TARGET if option.mean_steps.value is None else spread
    steps = spread if sweep.has_target else "the budget sets the steps"
    loss = "the replicates were not evaluated around so many steps"
    if not _has_losses(sweep):
        loss = _IN_PLACE.format(sweep.tuned_for.name)
    elif not sweep.has_target:
        loss = "not every replicate ended with one"
    timed = "no time was measured" if option.pace is None else "one trial was timed"
    if option.steps.value is None:
        steps = timed = "how many steps a run takes is not known"
    cost = "no price is set" if sweep.limits.price_per_worker_hour is None else timed
    return {
        "num_workers": "a table does not say on how many workers",
        "expected_steps": steps,
        "expected_steps_interval": steps,
        "chance_of_target": to_target,
        "mean_steps_to_target": to_target,
        "mean_steps_to_target_interval": to_target,
        "expected_examples": "how many examples a run takes is not known",
        **dict.fromkeys(("expected_cost", "expected_cost_interval"), cost),
        "expected_loss": loss,
        "expected_loss_interval": loss if option.loss.value is None else spread,
        **dict.fromkeys(
            ("expected_seconds", "expected_seconds_interval", "mean_idle_seconds",
             "mean_idle_seconds_interval"), timed,
        ),
    }  # fmt: skip


def _no_spread(option: Option) -> str:
    """Why there is no chance or predictive interval."""
    if option.pace is None:
        return "no time was measured"
    return "no replicates show how far one more run may be from these"
