"""Why a recipe is recommended, or none; what was learnt over guessing by frequencies."""

from collections.abc import Sequence
from typing import assert_never

from scaling.analysis.baseline import NothingLearnt, cells_not_learnt
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
from scaling.records.objective import Objective
from scaling.report.words.absent import undertuned
from scaling.report.words.numbers import (
    chance,
    counted,
    extreme,
    joined,
    number,
    telling_digits,
    with_ends,
    with_unit,
)
from scaling.spec.phases import Limits

_BUSY = 1.25
"""Usual over idle time of a step, from which on a reader is told."""


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
                f"No measured recipe is expected to meet {_limit_words(limits)}. The "
                f"fastest takes {with_ends(nearest.seconds)} seconds"
                f"{_on_workers(nearest)} at {nearest.cell.label}, where {bound} are allowed",
                *_expected_run(nearest),
                *_caveats(nearest),
            ])  # fmt: skip
    assert_never(reason)


def why_none(reason: Reason) -> str:
    """Why nothing is recommended, as a clause."""
    match reason:
        case NothingToRecommend():
            return _lacking(reason)
        case NothingLearnt():
            return "no cell's recipe beats the baseline"
        case LowestCell() | BestWithinLimits() | NoneWithinLimits():
            return "no trial has its recipe"
    assert_never(reason)


def nothing_learnt_words(found: NothingLearnt) -> str:
    """That no cell beats the baseline by what was tuned, in one sentence."""
    baseline = found.baseline
    lowest = with_unit(number(found.lowest_loss), baseline.loss_unit)
    guess = _guess(baseline, found.tuned_for)
    label = found.tuned_for.label
    match found.nearest:
        case "single_trial":
            best = f"the lowest loss of a single trial is {lowest}"
            if not found.tuned_for.is_loss:
                best = f"the highest {label} of a single trial is {number(found.best_accuracy)}"
            return f"Over seeds no recipe beats {guess}, so no batch is recommended; {best}."
        case "accuracy":
            return (
                f"No trial's loss beats {guess}, so no batch is recommended; the best accuracy is "
                f"{number(found.best_accuracy)}, the likeliest guess's {number(baseline.accuracy)}."
            )
        case "none" if not found.tuned_for.is_loss:
            return f"No trial's {label} is above that of {guess}, so no batch is recommended."
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
    guess = _guess(baseline, findings.sweep.tuned_for)
    return f"Not better than {guess}: {joined(failing, 'and')}."


def baseline_words(baseline: Baseline | None) -> str:
    """What the baseline is and gives, in one sentence; empty without one."""
    if baseline is None:
        return ""
    right = (
        "" if baseline.accuracy is None else f" and is right {baseline.accuracy:.1%} of the time"
    )
    loss = with_unit(number(baseline.validation_loss), baseline.loss_unit)
    return (
        f"Baseline: always guessing the {baseline.guess} of the training split has a "
        f"validation loss of {loss}{right}."
    )


def _guess(baseline: Baseline, tuned_for: Objective) -> str:
    """What it guesses, with the loss of that, or the accuracy where it is judged by that."""
    if not tuned_for.is_loss:
        return f"the likeliest guess ({number(baseline.accuracy)})"
    loss = with_unit(number(baseline.validation_loss), baseline.loss_unit)
    return f"always guessing the {baseline.guess} ({loss})"


def _sentences(parts: Sequence[str]) -> str:
    return ". ".join(parts) + "."


def _lacking(reason: NothingToRecommend) -> str:
    match reason.lack:
        case "target":
            return "no cell reached the target with every replicate"
        case "stricter_target":
            return "every run that reached the target began at it; set a stricter one"
        case "metric":
            return "no cell ended with the metric with every replicate"
        case "loss":
            return "no cell ended with a loss with every replicate"
        case "times":
            return "no time was measured"
        case "workers":
            workers = counted(reason.num_workers or 0, "worker")
            return (
                f"no batch size was measured with as many examples per worker as {workers} would "
                f"have, and none on {workers}"
            )
    assert_never(reason.lack)


def _lowest(reason: LowestCell) -> list[str]:
    match reason.criterion:
        case "seconds_to_target":
            phrase, unit = "least training time to the target, on an idle machine", "seconds"
        case "steps_to_target":
            phrase, unit = "fewest steps to the target (times were not measured)", "steps"
        case "objective":
            phrase = f"{extreme(reason.objective)} at the end of the budget"
            unit = reason.objective.unit_shown
        case _:
            assert_never(reason.criterion)
    place = reason.ranked.index(reason.chosen.cell)
    tied = {id(cell) for cell in reason.tied}
    apart = [
        (cell, value)
        for cell, value in zip(reason.ranked, reason.values, strict=True)
        if cell is not reason.chosen.cell and id(cell) not in tied
    ]
    value, least = reason.values[place], reason.values[0]
    others = [least.value] * (place > 0) + [other.value for _, other in apart[:1]]
    digits = telling_digits(value.value, *others)
    start = f"The {phrase}" if place == 0 else _among(phrase)
    parts = [f"{start}: {with_unit(with_ends(value, digits), unit)}"]
    if place > 0:
        parts.append(f"The best is {number(least.value, digits)} ({reason.ranked[0].label})")
    if apart:
        cell, other = apart[0]
        which = "the best outside the tie" if reason.tied else "the next"
        parts[-1] += f", against {number(other.value, digits)} for {which} ({cell.label})"
    parts += _ties(reason)
    return parts + _expected_run(reason.chosen) + _caveats(reason.chosen)


def _ties(reason: LowestCell) -> list[str]:
    """What the chosen cell is not told from, and by what it was chosen then."""
    if not reason.is_known:
        place = reason.ranked.index(reason.chosen.cell)
        unknown = "Its recipe has no two seeds, so the noise in this is not known"
        if reason.values[place].count > 1:
            unknown = "It or the next one has no interval, so whether they tie is not known"
        return [unknown] if reason.ranked[1:] else []
    if not reason.tied:
        return []
    place = {id(cell): value for cell, value in zip(reason.ranked, reason.values, strict=True)}
    others = joined([f"{c.label} ({number(place[id(c)].value)})" for c in reason.tied], "or")
    if reason.criterion == "objective":
        return [f"Over seeds, the data do not distinguish it from {others}"]
    rule = tie_rule(reason)
    return [f"The data do not distinguish it from {others}; {rule}"]


BEST_CHOSEN = "the best one is chosen"


def tie_rule(reason: LowestCell | BestWithinLimits) -> str:
    """By what one of those that tie on the way to a target was chosen."""
    size = reason.chosen.cell.global_batch_size or 0
    sizes = [cell.global_batch_size or 0 for cell in reason.tied]
    if set(sizes) == {size}:
        match reason:
            case LowestCell() if reason.ranked[0] is reason.chosen.cell:
                return BEST_CHOSEN
            case LowestCell() | BestWithinLimits():  # a cell may run on several numbers of workers
                return "among ties, the fewest workers and then the best one are chosen"
            case _:
                assert_never(reason)
    if size <= min(sizes):
        return "the smallest batch among ties is chosen"
    return "among ties, the fewest workers and then the smallest batch are chosen"


def _expected_run(option: Option) -> list[str]:
    """Of how many steps a run to the target is, and how surely it reaches it."""
    if not option.mean_steps.value or option.steps.value is None:
        return []
    mean, steps = with_ends(option.mean_steps), number(option.steps.value)
    if option.chance_of_target is None:
        return [
            f"Runs took {mean} steps; without replicates the spread of one more run is not known"
        ]
    return [
        f"Runs took {mean} steps on average, by the spread over seeds; in {steps} steps "
        f"one more run reaches the target with a chance of {chance(option.chance_of_target, '.0%')}"
    ]


def _within(reason: BestWithinLimits) -> list[str]:
    chosen, limits = reason.chosen, reason.limits
    took = f"{with_ends(chosen.seconds)} seconds{_on_workers(chosen)}"
    goal = _goal_words(reason.goal, reason.objective)
    if reason.has_target:
        start = _among(goal) if reason.tied else f"The {goal}"
        parts = [f"{start} to the target within {_limit_words(limits)}: {took}"]
    else:
        value = with_unit(with_ends(chosen.metric), reason.objective.unit_shown)
        if reason.goal == "held_out_loss":
            value = with_unit(with_ends(chosen.loss), reason.loss_unit)
        parts = [f"The {goal} within {_limit_words(limits)}: {value} after {took}"]
    parts += _sureness(chosen, limits)
    if reason.tied:
        others = joined([cell.label for cell in reason.tied], "or")
        rule = f"; {tie_rule(reason)}" if reason.has_target else ""
        parts.append(f"The data do not distinguish it from {others}{rule}")
    return parts + _expected_run(chosen) + _caveats(chosen)


def _among(phrase: str) -> str:
    """Of what ties with the least, which may have been less."""
    return f"Among the {phrase.replace('training time', 'training times')}"


def _goal_words(goal: Goal, objective: Objective) -> str:
    match goal:
        case "held_out_loss":
            return "lowest held-out loss"
        case "metric":
            return extreme(objective)
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
        return ["A single seed does not show how likely one more run is to meet it"]
    count = counted(option.seconds.count, "timed trial")
    return [
        f"One more run meets it with a chance of {chance(option.chance)}, by the spread over seeds "
        f"and the times of {count}"
    ]


def _caveats(option: Option) -> list[str]:
    carried_over = (
        "Seconds are those of a batch with as many examples per worker, and so a lower bound: "
        "communication among more workers was not measured"
    )
    parts = [carried_over] * option.carried_over
    if option.pace is not None and option.pace.contention > _BUSY:
        parts.append(
            f"The machine was busy: a step usually took {number(option.pace.contention, 2)} times "
            "as long as on an idle one; the interval of the expected seconds includes that"
        )
    return parts + _caveats_of_cell(option)


def is_picked(option: Option) -> bool:
    """Whether its recipe was selected and measured on the same trials."""
    cell = option.cell
    return cell.picked_on(
        cell.replicates if option.mean_steps.value is None else cell.target.trials
    )


def _caveats_of_cell(option: Option) -> list[str]:
    parts: list[str] = []
    cell = option.cell
    if is_picked(option):
        parts.append("Selected and measured on the same search trials, so expect somewhat worse")
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
