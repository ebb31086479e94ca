"""The headline: what a study or a comparison found, in three to eight short sentences."""

from collections.abc import Iterator, Sequence

from scaling.analysis.baseline import nothing_learnt
from scaling.analysis.cell_results import CellResult
from scaling.analysis.contrasts import Comparison
from scaling.analysis.findings import Findings
from scaling.analysis.learning_rate.exponent import Evidence, Strength
from scaling.analysis.learning_rate.rule_regret import RuleCurve
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.report.words.absent import no_exponent, no_tradeoff
from scaling.report.words.answer import JOINT_CAVEAT, undertuned_cells
from scaling.report.words.differences import compared_measures, direction
from scaling.report.words.ladder import exponent_words, ladder_headline
from scaling.report.words.numbers import (
    between,
    counted,
    extreme,
    joined,
    number,
    rate,
    rule_name,
    target_words,
    with_interval,
    with_unit,
)
from scaling.report.words.reasons import not_learnt_words, nothing_learnt_words
from scaling.report.words.remarks import branched_words

MOST_SENTENCES, MOST_WORDS = 8, 30
_RULED_OUT = {0.0: "a constant rate", 0.5: "square-root scaling", 1.0: "linear scaling"}


def headline(findings: Findings) -> str:
    """The main findings of a study; whatever was measured, three sentences or more."""
    if findings.ladder is not None:
        said = ladder_headline(findings.ladder, findings.check)
        return _joined(
            [*map(_shortest, said), _shortest(exponent_words(findings.ladder))],
            [],
            [_counts(findings)],
        )
    if findings.sweep.is_joint:
        main, further = [_joint(findings), JOINT_CAVEAT], []
    elif not findings.one_series:
        main, further = [_best_result(findings)], []
    else:
        main = [_at_target(findings), _critical_batch(findings), _best_rate(findings)]
        further = [_rules(findings), _gap(findings), _branched(findings), _diverged_rules(findings)]
    unlearnt = nothing_learnt(findings.sweep, findings.cells)
    main = [
        _shortest(nothing_learnt_words(unlearnt)) if unlearnt else "",
        *main,
        _shortest(not_learnt_words(findings)),
    ]
    end = [
        _recommended(findings),
        _shortest(undertuned_cells(findings), "Some cells may be undertuned, so read with care."),
        _counts(findings),
    ]
    return _joined(main, further, end)


def comparison_headline(comparison: Comparison, names: tuple[str, str]) -> str:
    """The main differences of two studies, B against A."""
    shared = counted(len(comparison.shared), "cell")
    main = [
        _shortest(
            f"A is {names[0]} and B is {names[1]}; they have {shared} in common.",
            f"The two studies have {shared} in common.",
        )
    ]
    further: list[str] = []
    if not comparison.shared:
        main.append("Not enough data: without a cell in common nothing is compared.")
    for words, found in compared_measures(comparison):
        further.append(
            _shortest(direction(words, found), f"B's {words} differs from A's at some cells.")
        )
    if not comparison.num_intervals:
        further = ["Not enough data: no difference has an interval."]
    apart, holm = comparison.num_apart, sum(c.holm for c in comparison.contrasts)
    end = [
        f"Of {counted(comparison.num_intervals, 'interval')}, {apart} show a difference; by chance "
        f"alone {number(comparison.expected_by_chance, 2)} would.",
        f"After Holm's correction {holm} of them remain.",
    ]
    return _joined(main, further, end)


def _joined(main: Sequence[str], further: Sequence[str], end: Sequence[str]) -> str:
    """`main` and `end`, each sentence once, and of `further` as many as there is room for."""
    fixed = [s for s in dict.fromkeys((*main, *end)) if s]
    room = MOST_SENTENCES - len(fixed)
    chosen = [s for s in dict.fromkeys(further) if s and s not in fixed][: max(room, 0)]
    return " ".join([s for s in dict.fromkeys((*main, *chosen, *end)) if s][:MOST_SENTENCES])


def _shortest(*sentences: str) -> str:
    """The first of several ways to say it that is one sentence of at most 30 words, or nothing.

    What a user named may be long, and hold a full stop of its own.
    """
    return next((s for s in sentences if len(s.split()) <= MOST_WORDS and ". " not in s), "")


def _goal(findings: Findings) -> str:
    sweep = findings.sweep
    return "the target" if sweep.target is None else target_words(sweep.target_metric, sweep.target)


def _at_target(findings: Findings) -> str:
    """Steps at the smallest and the largest batch that reached the target, or the lowest loss."""
    if not findings.sweep.has_target:
        return _best_result(findings)
    reached = [cell for cell in findings.cells if cell.target.steps.value is not None]
    reached.sort(key=lambda cell: cell.global_batch_size or 0)
    goal = _goal(findings)
    if len(reached) < 2:
        sizes = "1 batch size" if reached else "no batch size"
        return f"Not enough data on steps: {sizes} always reached {goal}."
    first, last = reached[0], reached[-1]
    return _shortest(
        f"Reaching {goal} takes {_steps(first)} steps at a batch of {first.global_batch_size:,} "
        f"and {_steps(last)} at {last.global_batch_size:,}."
    )


def _steps(cell: CellResult) -> str:
    return _with_interval(cell.target.steps)


def _with_interval(estimate: Estimate, digits: int = 3) -> str:
    return with_interval(estimate, digits, apart=" ")


def _best_result(findings: Findings) -> str:
    """The best value of what the cells were tuned for, and at which batch."""
    objective = findings.sweep.tuned_for
    known = [cell for cell in findings.cells if cell.value_of(objective).value is not None]
    if not known:
        return "Not enough data: no trial ended with a result."
    best = min(known, key=lambda cell: objective.oriented(cell.value_of(objective).value or 0.0))
    value = _with_interval(best.value_of(objective))
    place = f"at a batch of {best.global_batch_size:,}"
    if not findings.one_series:
        place = f"at {best.label}"
    return _shortest(
        f"The {extreme(objective)} is {value}, {place}.",
        f"The best result is {value}, {place}.",
        f"The best result is {value}.",
    )


def _joint(findings: Findings) -> str:
    cell = findings.cells[0]
    best = cell.best
    if best is None:
        return "Not enough data: no trial of the joint search ended with a loss."
    return (
        f"The best of {counted(cell.num_trials, 'trial')} in the joint search has a batch of "
        f"{best.global_batch_size:,} and a peak learning rate of {rate(best.peak_lr)}."
        if best.phase == "search"
        else f"The joint search of {counted(cell.num_trials, 'trial')} recommends a batch of "
        f"{best.global_batch_size:,} and a peak learning rate of {rate(best.peak_lr)}."
    )


def _critical_batch(findings: Findings) -> str:
    """By the curve that the data allow, with its interval."""
    fit = findings.tradeoff
    if not findings.sweep.has_target and fit.value is None:
        return ""
    if fit.value is None:
        return _shortest(
            f"The critical batch size is not determined: {no_tradeoff(fit)}.",
            "The critical batch size is not determined.",
        )
    after = "" if findings.sweep.has_target else ", at a target chosen after the fact"
    if fit.free.excludes_one:
        return (
            f"Steps are twice their least at a batch of {_with_interval(fit.headline)}"
            f"{after}; the data speak against the classical curve with α = 1."
        )
    value = _with_interval(fit.headline)
    return f"The critical batch size (steps–examples fit) is {value} examples{after}."


def _best_rate(findings: Findings) -> str:
    """How the best rate moves with the batch, and what that rules out."""
    law = findings.lr_scaling
    if not any(cell.curve for cell in findings.cells):
        return ""
    if law.exponent.value is None or law.exponent.interval is None:
        return _shortest(
            f"How the best rate moves with the batch is not determined: {no_exponent(findings)}.",
            "Not enough data to say how the best rate moves with the batch.",
        )
    value, low, high = (f"{round(end, 2) + 0.0:.2f}" for end in (
        law.exponent.value, *law.exponent.interval
    ))  # fmt: skip
    text = f"The best peak learning rate moves as the batch to the power {value} [{low}, {high}]"
    strong, fairly = (_ruled_out(law.evidence, s) for s in ("strong", "fairly_strong"))
    if strong:
        text += f"; the data rule out {strong}"
    elif fairly:
        text += f"; the data speak against {fairly}"
    return text + "."


def _ruled_out(evidence: Sequence[Evidence], strength: Strength) -> str:
    rules = [_RULED_OUT[entry.exponent] for entry in evidence if entry.strength == strength]
    return joined(rules, "and")


def _rules(findings: Findings) -> str:
    """What carrying a rate costs by each rule, or where it cost the most."""
    unit = findings.sweep.tuned_for.regret_unit
    costs = [
        f"{rule_name(curve.rule)} {'at least ' * _is_bound(curve)}{_with_interval(curve.mean, 2)}"
        for curve in findings.rule_curves
    ]
    measured = [r for r in findings.regrets if r.regret is not None and r.interval is not None]
    worst = max(measured, key=lambda r: r.regret or 0.0, default=None)
    run = ""
    if worst is not None and findings.sweep.base_batch_size is not None:
        run = (
            f"The largest regret of a rule as it was run is {number(worst.regret)} "
            + with_unit(between(worst.interval), unit)
            + f": {rule_name(worst.rule)} from "
            f"{findings.sweep.base_batch_size:,} to {worst.global_batch_size:,}."
        )
    if not costs:
        return _shortest(run)
    text = f"A rate carried to another batch size costs on average: {'; '.join(costs)}"
    return _shortest(f"{text} {unit}".rstrip() + ".", run)


def _is_bound(curve: RuleCurve) -> bool:
    return any(regret.is_lower_bound for regret in curve.regrets)


def _diverged_rules(findings: Findings) -> str:
    lost = {r.rule: None for r in findings.regrets if r.diverged}
    if not lost:
        return ""
    names = joined([rule_name(rule) for rule in lost], "and")
    return _shortest(
        f"Some transfer runs diverged: those of {names}.", "Some transfer runs diverged."
    )


def _gap(findings: Findings) -> str:
    bounded = [cell for cell in findings.cells if cell.gap.interval is not None]
    bounded.sort(key=lambda cell: cell.global_batch_size or 0)
    if not bounded:
        return ""
    ends = bounded if len(bounded) == 1 else [bounded[0], bounded[-1]]
    words = [
        f"{_with_interval(cell.gap)} nats at a batch of {cell.global_batch_size:,}" for cell in ends
    ]
    return f"The generalization gap is {joined(words, 'and')}."


def _branched(findings: Findings) -> str:
    last = findings.branched.last
    if last is None:
        return ""
    value, interval = branched_words(last)
    return (
        f"By branched training the critical batch size is {value} ({interval}) after "
        f"{last.examples:,} examples."
    )


def _recommended(findings: Findings) -> str:
    """The recipe to run next."""
    found = findings.recommendation
    if found.option is None or found.trial is None:
        return "No recipe is recommended."
    return _shortest(*_recommendations(findings))


def _recommendations(findings: Findings) -> Iterator[str]:
    """The recommendation in several ways, the longest first."""
    found = findings.recommendation
    size, trial = found.global_batch_size, found.trial
    assert trial is not None
    text = "Recommended" if found.meets_limits is not False else "Nearest to the limits"
    at = "" if trial.peak_lr is None else f" at a peak learning rate of {rate(trial.peak_lr)}"
    if findings.one_series or findings.sweep.is_joint:
        yield f"{text}: a batch of {size:,}{at}."
    else:
        assert found.option is not None
        yield f"{text}: {found.option.cell.label}{at}."
        yield f"{text}: a run{at or ' of one cell'}."


def _counts(findings: Findings) -> str:
    lost = [f"{count} {s}" for s in ("diverged", "failed") if (count := findings.count(s))]
    text = f"{counted(len(findings.sweep.rows), 'trial')} ended"
    return f"{text}, of which {joined(lost, 'and')}." if lost else f"{text}."
