"""How the best rate moves with the batch, and what carrying it there by a rule costs."""

from collections.abc import Iterator, Sequence
from typing import assert_never

from scaling.analysis.findings import Findings
from scaling.analysis.learning_rate.exponent import Evidence, LrScaling, Strength, Turn
from scaling.analysis.learning_rate.rule_regret import RuleCurve
from scaling.report.words.absent import no_exponent, no_surge
from scaling.report.words.numbers import (
    between,
    chance,
    fixed,
    joined,
    number,
    rate,
    rule_name,
    with_ends,
)

_RULED_OUT = {0.0: "a constant rate", 0.5: "square-root scaling", 1.0: "linear scaling"}
_SCATTERED = 3.0
"""Variance of the optima over what the noise explains, from which on a reader is told."""
_LIKELY = 0.5
"""Probability that the best rate stops rising, from which on one power is not said alone."""


def best_rate_words(findings: Findings) -> Iterator[str]:
    """How the best rate moves with the batch, and what that rules out; the longest way first."""
    law = findings.lr_scaling
    if not any(cell.curve for cell in findings.cells):
        return
    if law.exponent.value is None or law.exponent.interval is None:
        why = no_exponent(findings)
        yield f"Not enough data on how the best rate moves with the batch ({why})."
        yield "Not enough data to say how the best rate moves with the batch."
        return
    power = fixed(law.exponent, 2)
    turns = law.turns
    if turns.probability is not None and turns.probability >= _LIKELY and turns.at is not None:
        excluded = [f"{e.exponent:g}" for e in law.evidence if e.strength == "strong"]
        no = f", not {joined(excluded, 'or')}" if excluded else ""
        power = f"as one power of the batch it is {power}{no}"
        stops = f"The best peak learning rate stops rising near batch {number(turns.at)}"
        then = ""
        if turns.falls:
            stops = f"The best peak learning rate rises up to batch {number(turns.at)}"
            then = " and falls beyond"
        likely = f"(probability {chance(turns.probability, '.0%')})"
        yield f"{stops} {between(turns.interval)}{then} {likely}; {power}."
        yield f"{stops}{then} {likely}; {power}."
        yield f"{stops}{then} {likely}."
        return
    text = f"The best peak learning rate moves as the batch to the power {power}"
    strong, fairly = (_ruled_out(law.evidence, s) for s in ("strong", "fairly_strong"))
    if strong:
        text += f"; the data rule out {strong}"
    elif fairly:
        text += f"; the data disfavor {fairly}"
    yield text + "."


def _ruled_out(evidence: Sequence[Evidence], strength: Strength) -> str:
    rules = [_RULED_OUT[entry.exponent] for entry in evidence if entry.strength == strength]
    return joined(rules, "and")


def times(ratio: float) -> str:
    """How many times likelier, up to what the tails' shape allows to say."""
    return "over a million" if ratio > 1e6 else number(ratio)


def law_words(findings: Findings) -> str:
    """Whether a power is the law at all, in a few sentences."""
    scaling = findings.lr_scaling
    if scaling.exponent.interval is None:
        return ""
    tail, ratio = evidence_names(scaling)
    parts = [
        f"The {ratio} ratio compares the fitted exponent with the row's: 8 is fairly strong "
        f"evidence, 32 strong. The second {tail} is corrected for three tests (Holm). That "
        "an exponent is not ruled out does not support it."
    ]
    if scaling.from_surface:
        parts.append(
            "Tail probabilities are two-sided, of drawn surfaces, and densities are of their "
            "exponents. One power is fitted to all batch sizes, also where the path bends."
        )
    parts += [_shape_words(scaling), turn_words(scaling.turns)]
    if scaling.scatter is not None and scaling.scatter > _SCATTERED:
        parts.append(
            f"The best rates scatter about the power law with {number(scaling.scatter, 2)} times "
            "the variance that trial noise explains: a power law is at best a summary."
        )
    surge = scaling.surge
    if surge.over_power is None:
        parts.append(f"Peaked (surge) law not fitted: {no_surge(surge)}.")
    elif surge.preferred:
        parts.append(
            f"The peaked (surge) law fits better, with a likelihood ratio of "
            f"{times(surge.over_power)}: the best rate is highest, {rate(surge.peak_lr)}, at a "
            f"batch of {number(surge.noise_batch.value)} {between(surge.noise_batch.interval)}."
        )
    else:
        reason = no_surge(surge) or "its likelihood ratio over the power law is below 8"
        parts.append(f"Peaked (surge) law not preferred: {reason}.")
    return " ".join(filter(None, parts))


def turn_words(turns: Turn) -> str:
    """Whether the best rate stops rising, by the surface; empty where it cannot tell."""
    if turns.probability is None:
        return ""
    probability = chance(turns.probability, ".0%")
    text = f"The best rate stops rising at some batch size with probability {probability}"
    if turns.at is None or turns.interval is None:
        return f"{text}."
    then = ", and falls beyond" if turns.falls else ""
    return f"{text}; if it does, at {number(turns.at)} examples {between(turns.interval)}{then}."


def _shape_words(scaling: LrScaling) -> str:
    if scaling.from_surface:
        apart = "No single shape of loss against rate fits all cells. "
        return apart * (not scaling.has_common_shape) + (
            "The exponent is read from the loss surface, one model of loss over rate and batch. It "
            "is fitted to the trials of all batch sizes, also where the best rate is at an edge."
        )
    if not scaling.has_common_shape:
        return (
            "No single shape of loss against rate fits all cells, so each best rate is only "
            "bounded by the nearest rates with clearly higher losses."
        )
    if scaling.is_shape_checked:
        return "The replicates are consistent with one shape of loss against rate in all cells."
    return (
        "The interval assumes one shape of loss against rate in all cells. Without replicates "
        "that can hardly be tested with as few as six rates per cell; where it fails, the interval "
        "is too narrow."
    )


def evidence_names(scaling: LrScaling) -> tuple[str, str]:
    """What says how far an exponent is off, and whose ratio: of draws those of a posterior."""
    return ("tail probability", "density") if scaling.from_surface else ("p-value", "likelihood")


def evidence_words(strength: Strength) -> str:
    """What a likelihood ratio says against an exponent."""
    match strength:
        case "strong":
            return "strong evidence against it"
        case "fairly_strong":
            return "fairly strong evidence against it"
        case "not_strong":
            return "no strong evidence against it"
    assert_never(strength)


def rule_costs_words(findings: Findings) -> Iterator[str]:
    """What carrying a rate costs by each rule, or where it cost the most."""
    unit = findings.sweep.tuned_for.regret_unit or "in loss"
    costs = [
        f"{rule_name(curve.rule)} {'at least ' * _is_bound(curve)}{with_ends(curve.mean, 2)}"
        for curve in findings.rule_curves
    ]
    if costs:
        text = f"Carrying a tuned rate to another batch size costs on average: {'; '.join(costs)}"
        yield f"{text} {unit}."
    base = findings.sweep.base_batch_size
    lost = [
        f"{rule_name(regret.rule)} at {regret.global_batch_size:,}"
        for regret in findings.regrets
        if regret.diverged
    ]
    if base is not None and lost:
        yield f"Runs with the recipe carried from {base:,} diverged: {joined(lost, 'and')}."
        yield f"Runs with the recipe carried from {base:,} diverged."
        return
    measured = [r for r in findings.regrets if r.regret is not None and r.interval is not None]
    worst = max(measured, key=lambda r: r.regret or 0.0, default=None)
    if worst is not None and base is not None:
        yield (
            f"The largest regret of a rule in its own runs is {number(worst.regret)} "
            f"{between(worst.interval)} {unit}: {rule_name(worst.rule)} from "
            f"{base:,} to {worst.global_batch_size:,}."
        )


def _is_bound(curve: RuleCurve) -> bool:
    return any(regret.is_lower_bound for regret in curve.regrets)
