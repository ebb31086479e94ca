"""The first paragraph: what the study answers, and no more than its intervals support."""

from collections.abc import Sequence

from scaling.analysis.baseline import nothing_learnt
from scaling.analysis.cell_results import CellResult
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.findings import Findings
from scaling.analysis.learning_rate.exponent import Evidence, LrScaling
from scaling.analysis.learning_rate.rule_regret import RuleCurve
from scaling.report.words.absent import no_exponent, no_tradeoff
from scaling.report.words.ladder import ladder_answer
from scaling.report.words.numbers import (
    between,
    counted,
    either,
    extreme,
    first_few,
    joined,
    number,
    rate,
    rule_name,
    target_words,
    with_article,
    with_unit,
)
from scaling.report.words.reasons import not_learnt_words, nothing_learnt_words, reason_words
from scaling.report.words.remarks import agreement_words, branched_words

JOINT_CAVEAT = "A joint search finds a recipe; it does not compare tuned batch sizes."
_REFERENCE_EXPONENTS = {0.0: "0", 0.5: "½", 1.0: "1"}


def answer(findings: Findings) -> str:
    """The study's question, answered from the numbers in a few sentences."""
    if findings.ladder is not None:
        return ladder_answer(findings.ladder, findings.check, findings.carried)
    if findings.sweep.is_joint:
        sentences = [_joint(findings)]
    elif not findings.one_series:
        sentences = [_best_cell(findings)]
    else:
        sentences = [
            _steps(findings),
            _critical_batch(findings),
            _branched(findings),
            _best_lr(findings),
            _rules(findings),
            _gap(findings),
        ]
    unlearnt = nothing_learnt(findings.sweep, findings.cells)
    sentences = [
        nothing_learnt_words(unlearnt) if unlearnt else "",
        *sentences,
        not_learnt_words(findings),
        undertuned_cells(findings),
    ]
    text = " ".join(sentence for sentence in dict.fromkeys(sentences) if sentence)
    return text or "Not enough data: no trial ended with a loss or reached a target."


def _joint(findings: Findings) -> str:
    cell = findings.cells[0]
    if cell.best is None:
        return "Not enough data: no trial of the joint search ended with a loss."
    best = cell.best
    objective = findings.sweep.tuned_for
    found_value = cell.value_of(objective)
    trials = counted(cell.num_trials, "trial")
    found = f"The best of {trials} in the joint search has"
    if best.phase == "confirm" and findings.sweep.is_adaptive:  # a recipe that was not tried
        found = f"The joint search of {trials} recommends"
    text = (
        f"{found} a batch of {best.global_batch_size:,} and a peak learning rate of "
        f"{rate(best.peak_lr)}"
    )
    if cell.source == "confirm":
        text += (
            f"; over {counted(found_value.count, 'new seed')} its {objective.label} is "
            f"{either(found_value)}"
        )
    else:
        known = number(found_value.value)
        text += f", with {with_article(objective.label)} of {known} in the trial that was picked"
    return f"{text}. {JOINT_CAVEAT}"


def _best_cell(findings: Findings) -> str:
    recommendation = findings.recommendation
    reason = reason_words(recommendation.reason)
    if recommendation.global_batch_size is None:
        return reason
    return f"Of {counted(len(findings.cells), 'cell')}: {reason}"


def _steps(findings: Findings) -> str:
    """Steps to target at the smallest and the largest batch that reached it."""
    if not findings.sweep.has_target:
        return _losses(findings)
    reached = [cell for cell in findings.cells if cell.target.steps.value is not None]
    reached.sort(key=_batch)
    goal = "the target"
    if findings.sweep.target is not None:
        goal = target_words(findings.sweep.target_metric, findings.sweep.target)
    if len(reached) < 2:
        count = counted(len(reached), "batch size")
        return f"Not enough data on steps: {count} always reached {goal}."
    first, last = reached[0], reached[-1]
    fewest, most = last.target.steps.value, first.target.steps.value
    assert fewest is not None
    assert most is not None
    text = (
        f"From a batch of {_batch(first):,} to one of {_batch(last):,}, steps to {goal} go "
        f"from {number(most)} to {number(fewest)}"
    )
    if fewest > 0:  # a pretrained model may be at the target before its first step
        text += (
            f", {number(most / fewest, 2)} times fewer for "
            f"{number(_batch(last) / _batch(first), 2)} times the examples a step"
        )
    missing = [cell for cell in findings.cells if cell.target.steps.value is None]
    if missing:
        sizes = joined([f"{_batch(cell):,}" for cell in missing], "and")
        text += f" (not always reached at {sizes})"
    return text + "."


def _losses(findings: Findings) -> str:
    objective = findings.sweep.tuned_for
    measured = [cell for cell in findings.cells if cell.value_of(objective).value is not None]
    if not measured:
        return ""
    best = min(measured, key=lambda cell: objective.oriented(cell.value_of(objective).value or 0.0))
    found = best.value_of(objective)
    bounds = f"{between(found.interval)} " if found.interval else ""
    return (
        f"The {extreme(objective)} of "
        f"{counted(len(measured), 'batch size')} is "
        f"{number(found.value)} {bounds}at {_batch(best):,} "
        f"with a peak learning rate of {rate(best.best.peak_lr if best.best else None)}."
    )


def _critical_batch(findings: Findings) -> str:
    fit = findings.tradeoff
    if not findings.sweep.has_target and fit.value is None:
        return ""
    if fit.value is None:
        return f"The critical batch size is not determined: {no_tradeoff(fit)}{_bound(fit)}."
    text = _headline(fit)
    if not findings.sweep.has_target:
        at = with_unit(number(findings.tradeoff_target), findings.sweep.target_metric.unit_shown)
        text += f" (at {at}, a target chosen after the fact)"
    noise = findings.noise_scale.estimate
    if noise.value is not None:
        text += f"; the gradient noise scale at the end is {either(noise)}"
    return " ".join([text + ".", *map(agreement_words, findings.agreements)])


def _headline(fit: TradeoffFit) -> str:
    """The critical batch size, by the curve that the data allow."""
    classical = f"{number(fit.value)} examples {between(fit.interval)}"
    free = fit.free
    if free.excludes_one:
        return (
            f"Steps are twice their least at a batch of {either(free.at_twice_min_steps)}, with "
            f"the exponent of the trade-off fitted (α = {either(free.alpha)}). The classical "
            f"critical batch size, with α = 1, is {classical}, and the data speak against it"
        )
    text = f"Critical batch size (steps–examples fit): {classical}"
    if fit.misfit_exceeds_seeds:
        text += "; the curve fits poorly, its residuals exceed seed noise"
    if free.at_twice_min_steps.interval is not None:
        text += f"; {either(free.at_twice_min_steps)} with the exponent of the trade-off fitted"
    return text


def _bound(fit: TradeoffFit) -> str:
    """The side on which the data do bound the bend; empty where they do on neither."""
    low, high = fit.bounds
    if low is not None and high is None:
        return f" (above {number(low)} examples)"
    return f" (below {number(high)} examples)" if high is not None and low is None else ""


def _branched(findings: Findings) -> str:
    """The critical batch size along the run, from its first point to its last."""
    points = [point for point in findings.branched.points if point.value is not None]
    if not points:
        return ""
    words = [
        f"{' '.join(branched_words(point))} after {point.examples:,} examples"
        for point in (points if len(points) < 3 else (points[0], points[-1]))
    ]
    return f"By branched training the critical batch size is {joined(words, 'and')}."


def _best_lr(findings: Findings) -> str:
    scaling = findings.lr_scaling
    exponent = scaling.exponent
    if not any(cell.curve for cell in findings.cells):
        return ""
    if exponent.value is None or exponent.interval is None:
        start = "Not enough data to say how the best rate moves with the batch"
        return f"{start} ({no_exponent(findings)})."
    low, high = exponent.interval
    text = (
        f"The best peak learning rate moves as the batch to the power {exponent.value:.3f} "
        f"[{low:.3f}, {high:.3f}]"
    )
    return f"{text}; {_against(scaling.evidence)}.{_surge(scaling)}"


def _against(evidence: Sequence[Evidence]) -> str:
    """Which reference exponents the data speak against, and that no other is thereby shown."""
    strong, fairly, rest = (
        [_REFERENCE_EXPONENTS[entry.exponent] for entry in evidence if entry.strength == strength]
        for strength in ("strong", "fairly_strong", "not_strong")
    )
    parts = [f"strong evidence against {joined(strong, 'and')}"] if strong else []
    parts += [f"fairly strong evidence against {joined(fairly, 'and')}"] if fairly else []
    if not parts:
        return "of 0 (none), ½ (square root) and 1 (linear) there is strong evidence against none"
    parts += [f"none that is strong against {joined(rest, 'or')}"] if rest else []
    return f"of 0 (none), ½ (square root) and 1 (linear) there is {joined(parts, 'and')}"


def _surge(scaling: LrScaling) -> str:
    """The law that turns, where the data prefer it."""
    surge = scaling.surge
    if not surge.preferred:
        return ""
    turn = surge.noise_batch
    return (
        " It does not keep rising: a law that turns (surge) fits better, with the highest rate "
        f"at a batch of {number(turn.value)} {between(turn.interval)}."
    )


def _rules(findings: Findings) -> str:
    """Which rules cost something, diverged or cannot be told from tuning."""
    between_all = [_over_all_pairs(findings, curve) for curve in findings.rule_curves]
    curved = {curve.rule for curve in findings.rule_curves}
    phrases = [
        phrase
        for rule in findings.sweep.rules
        if rule not in curved and (phrase := _rule(findings, rule))
    ]
    sentences: list[str] = []
    if between_all:
        sentences.append(
            "Carrying a tuned rate to another batch size costs, on average over all pairs of batch "
            f"sizes: {'; '.join(between_all)}."
        )
    if phrases:
        costs = "; ".join(phrases)
        sentences.append(f"Instead of tuning at each batch, carrying the recipe costs: {costs}.")
    if not sentences and findings.regrets:
        return "Not enough data to say what a rule costs."
    return " ".join(sentences)


def _over_all_pairs(findings: Findings, curve: RuleCurve) -> str:
    """What one rule costs between the batch sizes, and where it diverged as it was run."""
    unit = findings.sweep.tuned_for.regret_unit
    least = "at least " * any(regret.is_lower_bound for regret in curve.regrets)
    mean = with_unit(f"{number(curve.mean.value, 2)} {between(curve.mean.interval, 2)}", unit)
    return f"{rule_name(curve.rule)} {least}{mean}{_divergence(findings, curve.rule)}"


def _divergence(findings: Findings, rule: str) -> str:
    lost = [r for r in findings.regrets if r.rule == rule and r.diverged]
    if not lost:
        return ""
    sizes = joined([f"{r.global_batch_size:,}" for r in lost], "and")
    return f", and it diverged at {sizes}, from {findings.sweep.base_batch_size:,}"


def _rule(findings: Findings, rule: str) -> str:
    """What one rule costs at its worst; empty where nothing was measured."""
    rows = [regret for regret in findings.regrets if regret.rule == rule]
    measured = [r for r in rows if r.regret is not None]
    worst = max(measured, key=lambda r: r.regret or 0.0, default=None)
    words: list[str] = []
    if worst is not None and any(r.interval and r.interval[0] > 0 for r in measured):
        words.append(
            with_unit(
                f"at most {number(worst.regret)} {between(worst.interval)}",
                findings.sweep.tuned_for.regret_unit,
            )
            + f" (at {worst.global_batch_size:,})"
        )
    elif any(r.interval for r in measured):
        words.append("nothing that the intervals tell from zero")
    elif measured:
        words.append("an amount without an interval")
    lost = [f"{r.global_batch_size:,}" for r in rows if r.diverged]
    if lost:
        words.append(f"divergence at {', '.join(first_few(lost))}")
    return f"{rule} {' and '.join(words)}" if words else ""


def _gap(findings: Findings) -> str:
    measured = [cell for cell in findings.cells if cell.gap.value is not None]
    bounded = [cell for cell in measured if cell.gap.interval is not None]
    if not measured:
        return ""
    if not bounded:
        return "Not enough data on the generalization gap: it has no interval without seeds."
    bounded.sort(key=_batch)
    first, last = bounded[0], bounded[-1]
    text = (
        f"The generalization gap is {number(first.gap.value)} {between(first.gap.interval)} nats "
        f"at {_batch(first):,}"
    )
    if first is last:
        return text + "."
    text += f" and {number(last.gap.value)} {between(last.gap.interval)} at {_batch(last):,}"
    return text + (
        "; these intervals overlap." if _overlap(first, last) else "; these intervals are apart."
    )


def _overlap(first: CellResult, last: CellResult) -> bool:
    a, b = first.gap.interval, last.gap.interval
    return a is not None and b is not None and a[0] <= b[1] and b[0] <= a[1]


def undertuned_cells(findings: Findings) -> str:
    """Which cells need more search, in one sentence; empty where none does."""
    flagged = [cell.label for cell in findings.cells if cell.undertuned]
    if not flagged:
        return ""
    if len(flagged) == len(findings.cells) and len(flagged) > 1:
        return "Every cell may be undertuned, so these comparisons may change with more search."
    return f"Possibly undertuned, so read with care: {'; '.join(first_few(flagged))}."


def _batch(cell: CellResult) -> int:
    assert cell.global_batch_size is not None
    return cell.global_batch_size
