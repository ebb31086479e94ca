"""Why a recipe is recommended, or none; what was learnt over guessing by frequencies."""

from collections.abc import Sequence
from typing import assert_never

from scaling.analysis.baseline import NothingLearnt, cells_not_learnt
from scaling.analysis.cell_results import CellResult
from scaling.analysis.findings import Findings
from scaling.analysis.next_run.goodput import Option, max_seconds
from scaling.analysis.next_run.recommendation import (
    BestWithinLimits,
    Goal,
    LowestCell,
    NoneWithinLimits,
    NothingToRecommend,
    Reason,
)
from scaling.analysis.trial_rows import Baseline
from scaling.report.words.absent import undertuned
from scaling.report.words.numbers import counted, joined, number, with_interval
from scaling.spec.phases import Limits


def reason_words(reason: Reason) -> str:
    """Why this recipe, or why none, in a few sentences."""
    match reason:
        case NothingLearnt():
            return nothing_learnt_words(reason)
        case NothingToRecommend():
            return f"Not enough data: {_lacking(reason)}."
        case LowestCell():
            return _sentences(_lowest(reason))
        case BestWithinLimits():
            return _sentences(_within(reason))
        case NoneWithinLimits(nearest, limits):
            bound = number(max_seconds(limits, nearest.num_workers))
            return _sentences([
                f"Nothing that was measured is expected to meet {_limit_words(limits)}. The "
                f"soonest takes {with_interval(nearest.seconds, apart=' ')} seconds"
                f"{_on_workers(nearest)} at {nearest.cell.label}, where {bound} are allowed",
                *_caveats(nearest),
            ])  # fmt: skip
    assert_never(reason)


def nothing_learnt_words(found: NothingLearnt) -> str:
    """That no cell with a loss beats the baseline, in one sentence."""
    baseline, lowest = found.baseline, number(found.lowest_loss)
    guess = _guess(baseline)
    match found.nearest:
        case "single_trial":
            return (
                f"No cell's best recipe beats {guess} over its seeds, so no batch is recommended; "
                f"the lowest loss of a single trial is {lowest}."
            )
        case "accuracy":
            return (
                f"No trial beats {guess} in loss, so no batch is recommended; the best accuracy is "
                f"{number(found.best_accuracy)}, and that of the likeliest guess "
                f"{number(baseline.accuracy)}."
            )
        case "within_error":
            return (
                f"No trial beats {guess} by more than the evaluation's error: the lowest loss is "
                f"{lowest}, so no batch is recommended."
            )
        case "none":
            return (
                f"No trial beats {guess}: the models learned nothing, so no batch is recommended."
            )
    assert_never(found.nearest)


def not_learnt_words(findings: Findings) -> str:
    """Which cells do not beat the baseline where others do, in one sentence; empty without any."""
    baseline = findings.sweep.baseline
    failing = [cell.label for cell in cells_not_learnt(findings.sweep, findings.cells)]
    if baseline is None or not failing:
        return ""
    return f"Not better than {_guess(baseline)}: {joined(failing, 'and')}."


def baseline_words(baseline: Baseline | None) -> str:
    """What the baseline is and gives, in one sentence; empty without one."""
    if baseline is None:
        return ""
    right = (
        "" if baseline.accuracy is None else f" and is right {baseline.accuracy:.1%} of the time"
    )
    return (
        f"Baseline: always guessing the {baseline.guess} of the training split has a "
        f"validation loss of {number(baseline.validation_loss)} nats{right}."
    )


def _guess(baseline: Baseline) -> str:
    return f"always guessing the {baseline.guess} ({number(baseline.validation_loss)} nats)"


def _sentences(parts: Sequence[str]) -> str:
    return ". ".join(parts) + "."


def _lacking(reason: NothingToRecommend) -> str:
    match reason.lack:
        case "target":
            return "no cell reached the target with every replicate"
        case "metric":
            return "no cell ended with the metric with every replicate"
        case "loss":
            return "no cell ended with a loss with every replicate"
        case "times":
            return "no time was measured"
        case "workers":
            workers = counted(reason.num_workers or 0, "worker")
            return (
                f"no batch size was measured with as many examples a worker as {workers} would "
                f"have, and none on {workers}"
            )
    assert_never(reason.lack)


def _lowest(reason: LowestCell) -> list[str]:
    match reason.criterion:
        case "seconds_to_target":
            phrase, unit = "least training time to the target", "seconds"
        case "steps_to_target":
            phrase, unit = "fewest steps to the target (times were not measured)", "steps"
        case "validation_loss":
            phrase = "lowest validation loss at the end of the budget"
            unit = "nats" if reason.in_nats else ""
        case "maximized":
            phrase, unit = f"highest {reason.metric} at the end of the budget", ""
        case _:
            assert_never(reason.criterion)
    parts = [f"The {phrase}: {number(reason.values[0])} {unit}".rstrip()]
    others = reason.ranked[1:]
    if others:
        parts[0] += f", against {number(reason.values[1])} for the next ({others[0].label})"
    if others and not reason.has_seeds:
        parts.append("No recipe has two seeds, so how much of that is noise is not known")
    elif len(reason.unclear) == len(others) > 1:
        parts.append("Over paired seeds, the data do not separate it from any other cell")
    elif reason.unclear:
        unclear = joined([cell.label for cell in reason.unclear], "or")
        parts.append(f"Over paired seeds, the data do not separate it from {unclear}")
    return parts + _caveats_of_cell(reason.ranked[0])


def _within(reason: BestWithinLimits) -> list[str]:
    chosen, limits = reason.chosen, reason.limits
    took = f"{with_interval(chosen.seconds, apart=' ')} seconds{_on_workers(chosen)}"
    goal = _goal_words(reason.goal)
    if reason.has_target:
        parts = [f"The {goal} to the target within {_limit_words(limits)}: {took}"]
    else:
        loss = with_interval(chosen.loss, apart=" ")
        parts = [f"The {goal} within {_limit_words(limits)}: {loss} nats after {took}"]
    parts += _sureness(chosen, limits)
    if reason.overlapping:
        others = joined([cell.label for cell in reason.overlapping], "and")
        parts.append(f"Its interval overlaps with that of {others}")
    return parts + _caveats(chosen)


def _goal_words(goal: Goal) -> str:
    match goal:
        case "held_out_loss":
            return "lowest held-out loss"
        case "worker_seconds":
            return "fewest worker-seconds"
        case "seconds":
            return "least training time"
    assert_never(goal)


def _sureness(option: Option, limits: Limits) -> list[str]:
    if max_seconds(limits, option.num_workers) is None:
        return []
    if option.cut_short:
        return [
            "The limit ends the run before the study's budget, at the last evaluation before it"
        ]
    if option.chance is None:
        return ["How surely one more run meets it is not known from a single seed"]
    count = counted(option.seconds.count, "seed")
    return [f"One more run meets it with a chance of {option.chance:.2f}, by the spread of {count}"]


def _caveats(option: Option) -> list[str]:
    carried_over = (
        "Seconds are carried over from a batch with as many examples a worker, so they are at "
        "best: what more workers have to exchange was not measured"
    )
    return [carried_over] * option.carried_over + _caveats_of_cell(option.cell)


def _caveats_of_cell(cell: CellResult) -> list[str]:
    parts: list[str] = []
    if cell.source == "search":
        parts.append("Picked and measured on the same search trials, so expect somewhat worse")
    if cell.undertuned:
        parts.append(f"It may be undertuned: {' and '.join(map(undertuned, cell.undertuned))}")
    return parts


def _limit_words(limits: Limits) -> str:
    words: list[str] = []
    if limits.deadline_seconds is not None:
        words.append(f"{number(limits.deadline_seconds)} seconds")
    if limits.cost_ceiling is not None:
        words.append(f"a cost of {number(limits.cost_ceiling)}")
    if limits.num_workers is not None:
        words.append(counted(limits.num_workers, "worker"))
    return joined(words, "and")


def _on_workers(option: Option) -> str:
    return "" if option.num_workers is None else f" on {counted(option.num_workers, 'worker')}"
