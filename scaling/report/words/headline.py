"""The first screen: what a study found, in short sentences that stand alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from scaling.analysis.baseline import nothing_learnt
from scaling.analysis.cell_results import CellResult
from scaling.analysis.findings import Findings
from scaling.analysis.next_run.goodput import Option
from scaling.analysis.next_run.recommendation import BestWithinLimits, LowestCell
from scaling.report.words.ladder import checked, exponent_words, ladder_headline
from scaling.report.words.large_batch import (
    branched_path_words,
    cost_words,
    critical_batch_words,
)
from scaling.report.words.learning_rate import best_rate_words, rule_costs_words
from scaling.report.words.measurements import ALL
from scaling.report.words.numbers import (
    DASH,
    cell_name,
    chance,
    counted,
    extreme,
    joined,
    number,
    rate,
    target_words,
    telling_digits,
    with_article,
    with_ends,
    with_unit,
)
from scaling.report.words.reasons import (
    BEST_CHOSEN,
    is_picked,
    not_learnt_words,
    nothing_learnt_words,
    tie_rule,
    why_none,
)
from scaling.report.words.remarks import all_lost_words
from scaling.report.words.sentences import shortest
from scaling.report.words.series import (
    contrast_words,
    critical_batches_words,
    exponents_words,
)
from scaling.report.words.sources import half_lives
from scaling.report.words.unknown import unknown

MOST_SENTENCES = 8

Topic = Literal["run", "batch", "rate", "cost", "prediction", "unknown"]
TOPICS: Final[dict[Topic, str]] = {
    "run": "What to run",
    "batch": "How far the batch can grow",
    "rate": "How the rate must move",
    "cost": "What a large batch costs",
    "prediction": "How well it predicts",
    "unknown": "What is not known",
}
"""The questions of the first screen, in its order."""


@dataclass(frozen=True)
class Line:
    """One sentence of the first screen.

    Attributes:
        topic: The question that it answers.
        text: The sentence, with its number and interval.
        evidence: The section of the page that shows where it comes from.
        rank: Which sentences stay where there are more than eight, the lowest first.
    """

    topic: Topic
    text: str
    evidence: str
    rank: int


def first_screen(findings: Findings) -> list[Line]:
    """Three to eight sentences of at most 30 words, by topic."""
    if findings.ladder is not None:
        found = list(_ladder(findings))
    else:
        found = [*_run(findings), *_of_kind(findings)]
        found.append(Line("unknown", shortest(not_learnt_words(findings)), "cells", 1))
        found.append(Line("unknown", shortest(*unknown(findings)), "cells", 1))
        if findings.check is not None:  # of sizes that cannot be fitted
            found.append(Line("prediction", checked(findings.check), "ladder", 1))
    found.append(Line("unknown", _counts(findings), "trials", 0))
    once: dict[str, Line] = {}
    for line in found:
        if line.text:
            once.setdefault(line.text, line)
    kept = sorted(once.values(), key=lambda line: line.rank)[:MOST_SENTENCES]
    order = [line for line in once.values() if line in kept]
    return sorted(order, key=lambda line: [*TOPICS].index(line.topic))


def headline(findings: Findings) -> str:
    """The sentences of the first screen, one after the other."""
    return " ".join(line.text for line in first_screen(findings))


def _ladder(findings: Findings) -> Iterator[Line]:
    assert findings.ladder is not None
    for topic, text in ladder_headline(findings.ladder, findings.check):
        yield Line(topic, shortest(text), "ladder", 1)
    yield Line("rate", shortest(exponent_words(findings.ladder)), "ladder", 1)


def _of_kind(findings: Findings) -> Iterator[Line]:
    """What was measured of the batch, of the rate and of what a large batch costs."""
    if findings.sweep.is_joint:
        yield Line("batch", _joint(findings), "search", 1)
        return
    if not findings.one_series:
        yield Line("batch", shortest(*critical_batches_words(findings)), "target", 1)
        yield Line("batch", shortest(*contrast_words(findings)), "target", 2)
        yield Line("rate", shortest(*exponents_words(findings)), "learning_rate", 1)
        yield Line("cost", _best_result(findings), "cells", 1)
        return
    yield Line("batch", _at_target(findings), "target", 3)
    yield Line("batch", critical_batch_words(findings), "target", 1)
    yield Line("batch", branched_path_words(findings), "target", 2)
    yield Line("rate", shortest(*best_rate_words(findings)), "learning_rate", 1)
    yield Line("rate", shortest(*rule_costs_words(findings)), "learning_rate", 6)
    loss, gap = cost_words(findings)
    yield Line("cost", loss, "loss", 2)
    yield Line("cost", gap, "loss", 4)


# --- what to run ----------------------------------------------------------------------------------


def _run(findings: Findings) -> Iterator[Line]:
    """The recipe, what to expect of it, and what ties with it."""
    unlearnt, found = nothing_learnt(findings.sweep, findings.cells), findings.recommendation
    if unlearnt:
        none = "No batch is recommended: no cell's recipe beats always guessing."
        yield Line("run", shortest(nothing_learnt_words(unlearnt), none), "cells", 0)
        if found.option is None:
            return
    if found.option is None or found.trial is None:
        none = "No recipe is recommended"
        yield Line("run", shortest(f"{none}: {why_none(found.reason)}.", f"{none}."), "cells", 0)
        return
    yield Line("run", shortest(*_recommendations(findings)), "recommendation", 0)
    yield Line("run", shortest(*_expected(findings, found.option)), "recommendation", 2)
    yield Line("run", shortest(*_tie(findings)), "recommendation", 2)


def _recommendations(findings: Findings) -> Iterator[str]:
    """The recipe in several ways, the longest first."""
    found = findings.recommendation
    size, trial = found.global_batch_size, found.trial
    assert trial is not None
    text = "Run" if found.meets_limits is not False else "Nearest to the limits:"
    at = "" if trial.peak_lr is None else f" at a peak learning rate of {rate(trial.peak_lr)}"
    further = []
    if trial.warmup_steps is not None:
        further.append(counted(trial.warmup_steps, "warmup step"))
    if trial.clip_norm is not None:
        further.append(f"gradients clipped at {trial.clip_norm:g}")
    rest = f", with {joined(further, 'and')}" if further else ""
    if findings.one_series or findings.sweep.is_joint:
        yield f"{text} a batch of {size:,}{at}{rest}."
    else:
        assert found.option is not None
        yield f"{text} {found.option.cell.label}{at}{rest}."
        yield f"{text} {found.option.cell.label}{at}."
        yield f"{text} one cell's recipe{at}."


def _expected(findings: Findings, option: Option) -> Iterator[str]:
    """Steps, time and loss in one more run, and its chance to reach the target."""
    took, results = [], []
    if option.steps.value is not None:
        took.append(f"{number(option.steps.value)} steps")
    if option.seconds.value is not None:
        at_best = f" on {counted(option.num_workers or 1, 'worker')} at best"
        took.append(f"{with_ends(option.seconds)} seconds{at_best * option.carried_over}")
    if option.metric.value is not None:
        tuned_for = findings.sweep.tuned_for
        metric = with_unit(with_ends(option.metric), tuned_for.unit_shown)
        results.append(f"{with_article(tuned_for.label)} of {metric}")
    elif option.loss.value is not None:
        loss = with_unit(with_ends(option.loss), findings.sweep.loss_unit)
        averaged = " (averaged weights)" if half_lives(option.cell.replicates) else ""
        results.append(f"a {ALL[option.loss_name].label}{averaged} of {loss}")
    words = [*took, *results]
    if is_picked(option) and not any(
        found.interval for found in (option.metric, option.loss, option.mean_steps)
    ):
        yield from _reached(took, results)
        return
    if option.chance_of_target is not None and option.steps.value is not None:
        reach = f"a chance of {chance(option.chance_of_target, '.0%')} to reach the target"
        yield f"In {words[0]} expect {joined([*words[1:], reach], 'and')}."
    if words:
        yield f"Expect {joined(words, 'and')} in one more run."
        yield f"Expect {joined(words[:2], 'and')} in one more run."


def _reached(took: list[str], results: list[str]) -> Iterator[str]:
    """What the one trial came to that was picked among several by it."""
    if results:
        after = f" in {joined(took, 'and')}" if took else ""
        yield f"Its trial reached {results[0]}{after}; expect somewhat worse."
        yield f"Its trial reached {results[0]}; expect somewhat worse."
    elif took:
        yield f"Its trial took {joined(took, 'and')}; expect somewhat more."


def _tie(findings: Findings) -> Iterator[str]:
    """Which batches the data do not separate from the recommended one, and how it was chosen."""
    reason, chosen = findings.recommendation.reason, findings.recommendation.option
    if not isinstance(reason, LowestCell | BestWithinLimits) or chosen is None:
        return
    if isinstance(reason, LowestCell) and not reason.is_known:
        yield from _next_best(findings, reason)
        return
    if not reason.tied:
        return
    is_sized = findings.one_series
    cells = sorted(reason.tied, key=_batch)
    names = joined([cell_name(cell) if is_sized else cell.label for cell in cells], "and")
    what = ("a batch of " if len(cells) == 1 else "batches of ") if is_sized else ""
    rule = tie_rule(reason) if findings.sweep.has_target else BEST_CHOSEN
    yield f"The data do not distinguish it from {what}{names}; {rule}."
    yield f"The data do not distinguish it from {counted(len(cells), 'other cell')}; {rule}."


def _next_best(findings: Findings, reason: LowestCell) -> Iterator[str]:
    """The runner-up where no seeds tell which differences are noise."""
    if len(reason.ranked) < 2:
        return
    cell, start = reason.ranked[1], f"The next {_compared_words(reason)}"
    place = f"a batch of {cell_name(cell)}" if findings.one_series else cell.label
    text = "; without more seeds it is not known whether the difference is noise."
    yield f"{start}, at {place}{text}"
    yield f"{start}{text}"


def _compared_words(reason: LowestCell) -> str:
    """What cells are compared by, with the second value, and the first where they look alike."""
    best, value = (found.value for found in reason.values[:2])
    digits = telling_digits(best, value)
    after = f" after {number(best, digits)}" if number(best) == number(value) != DASH else ""
    match reason.criterion:
        case "objective":
            amount = with_unit(number(value, digits), reason.objective.unit_shown)
            return f"{extreme(reason.objective)} is {amount}{after}"
        case "seconds_to_target":
            return f"least training time to the target is {number(value, digits)} seconds{after}"
        case "steps_to_target":
            return f"fewest steps to the target are {number(value, digits)}{after}"
    assert_never(reason.criterion)


# --- how far the batch can grow -------------------------------------------------------------------


def _goal(findings: Findings) -> str:
    sweep = findings.sweep
    return "the target" if sweep.target is None else target_words(sweep.target_metric, sweep.target)


def _at_target(findings: Findings) -> str:
    """Steps at the smallest and the largest batch that reached the target, or the lowest loss."""
    if not findings.sweep.has_target:
        return _best_result(findings)
    reached = [cell for cell in findings.cells if cell.target.steps.value is not None]
    reached.sort(key=_batch)
    goal = _goal(findings)
    if len(reached) < 2:
        sizes = "1 batch size" if reached else "no batch size"
        always = "" if reached else "always "
        return f"Not enough data on steps: {sizes} {always}reached {goal}."
    first, last = reached[0], reached[-1]
    text = f"Reaching {goal} takes {_steps(first)} steps at a batch of {_batch(first):,} and "
    text += f"{_steps(last)} at {_batch(last):,}"
    missing = [f"{_batch(cell):,}" for cell in findings.cells if cell.target.steps.value is None]
    less = f" (not always reached at {joined(missing, 'and')})" if missing else ""
    return shortest(f"{text}{less}.", f"{text}.")


def _steps(cell: CellResult) -> str:
    steps = cell.target.steps
    return with_ends(steps) if steps.value else "0"


def _batch(cell: CellResult) -> int:
    return cell.global_batch_size or 0


def _best_result(findings: Findings) -> str:
    """The best value of what the cells were tuned for, and at which batch."""
    objective = findings.sweep.tuned_for
    ended = [cell for cell in findings.cells if cell.value_of(objective).value is not None]
    known = [cell for cell in ended if not cell.has_diverged_seed]
    if not known and ended:
        return "Not enough data: in each cell a seed of the best recipe diverged."
    if not known:
        return "Not enough data: no trial ended with a result."
    best = min(known, key=lambda cell: objective.oriented(cell.value_of(objective).value or 0.0))
    found = best.value_of(objective)
    value = with_unit(with_ends(found), objective.unit_shown)
    value += f" over {counted(found.count, 'seed')}" if found.count > 1 else ""
    place = f"at a batch of {_batch(best):,}" if findings.one_series else f"at {best.label}"
    return shortest(
        f"The {extreme(objective)}{_at_end(findings)} is {value}, {place}.",
        f"The {extreme(objective)}{_at_end(findings)} is {value}.",
    )


def _at_end(findings: Findings) -> str:
    """When a result was measured, where the screen also has one at the target."""
    return " at the end of the budget" * findings.sweep.has_target


def _joint(findings: Findings) -> str:
    cell = findings.cells[0]
    best = cell.best
    if best is None:
        return "Not enough data: no trial of the joint search ended with a loss."
    objective = findings.sweep.tuned_for
    found, label = cell.value_of(objective), objective.label + _at_end(findings)
    value = with_unit(with_ends(found), objective.unit_shown)
    trials = counted(cell.num_trials, "trial")
    if best.phase == "search":
        start, size = f"The best of {trials} in the joint search has", f"{best.global_batch_size:,}"
        short = f"{start} a batch of {size}."
        if found.value is None:  # none of its new seeds ended
            return short
        result = f"{with_article(objective.label)} of {value}{_at_end(findings)}"
        return shortest(f"{start} {result} with a batch of {size}.", short)
    start = f"The joint search of {trials} recommends a batch of {best.global_batch_size:,}"
    if findings.recommendation.option is None:
        start = f"The joint search's best recipe has a batch of {best.global_batch_size:,}"
    rest = f"; over {counted(found.count, 'new seed')} its {label} is {value}"
    if cell.has_diverged_seed or found.value is None:
        lost = sum(row.status == "diverged" for row in cell.replicates)
        rest = f"; {lost} of {counted(len(cell.replicates), 'new seed')} diverged" if lost else ""
    return shortest(f"{start}{rest}.", f"{start}.")


def _counts(findings: Findings) -> str:
    if all_lost := all_lost_words(findings.sweep):
        return all_lost
    lost = [f"{count} {s}" for s in ("diverged", "failed") if (count := findings.count(s))]
    text = f"The answers rest on {counted(len(findings.sweep.rows), 'trial')}"
    return f"{text}, of which {joined(lost, 'and')}." if lost else f"{text}."
