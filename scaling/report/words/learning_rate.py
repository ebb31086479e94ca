"""How the best rate moves with the batch, and what carrying it there by a rule costs."""

from collections.abc import Iterator, Sequence

from scaling.analysis.findings import Findings
from scaling.analysis.learning_rate.exponent import Evidence, Strength
from scaling.analysis.learning_rate.rule_regret import RuleCurve
from scaling.report.words.absent import no_exponent
from scaling.report.words.numbers import (
    between,
    joined,
    number,
    rule_name,
    with_interval,
)

_RULED_OUT = {0.0: "a constant rate", 0.5: "square-root scaling", 1.0: "linear scaling"}
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
    value, low, high = (f"{round(end, 2) + 0.0:.2f}" for end in (
        law.exponent.value, *law.exponent.interval
    ))  # fmt: skip
    turns = law.turns
    if turns.probability is not None and turns.probability >= _LIKELY and turns.at is not None:
        excluded = [f"{e.exponent:g}" for e in law.evidence if e.strength == "strong"]
        no = f", not {joined(excluded, 'or')}" if excluded else ""
        power = f"as one power of the batch it is {value} [{low}, {high}]{no}"
        stops = f"The best peak learning rate stops rising near batch {number(turns.at)}"
        chance = f"(probability {turns.probability:.0%})"
        yield f"{stops} {between(turns.interval)} {chance}; {power}."
        yield f"{stops} {chance}; {power}."
        return
    text = f"The best peak learning rate moves as the batch to the power {value} [{low}, {high}]"
    strong, fairly = (_ruled_out(law.evidence, s) for s in ("strong", "fairly_strong"))
    if strong:
        text += f"; the data rule out {strong}"
    elif fairly:
        text += f"; the data disfavor {fairly}"
    yield text + "."


def _ruled_out(evidence: Sequence[Evidence], strength: Strength) -> str:
    rules = [_RULED_OUT[entry.exponent] for entry in evidence if entry.strength == strength]
    return joined(rules, "and")


def rule_costs_words(findings: Findings) -> Iterator[str]:
    """What carrying a rate costs by each rule, or where it cost the most."""
    unit = findings.sweep.tuned_for.regret_unit or "in loss"
    costs = [
        f"{rule_name(curve.rule)} {'at least ' * _is_bound(curve)}"
        f"{with_interval(curve.mean, 2, apart=' ')}"
        for curve in findings.rule_curves
    ]
    if costs:
        text = f"Carrying a tuned rate to another batch size costs on average: {'; '.join(costs)}"
        yield f"{text} {unit}."
    measured = [r for r in findings.regrets if r.regret is not None and r.interval is not None]
    worst = max(measured, key=lambda r: r.regret or 0.0, default=None)
    if worst is not None and findings.sweep.base_batch_size is not None:
        yield (
            f"The largest regret of a rule in its own runs is {number(worst.regret)} "
            f"{between(worst.interval)} {unit}: {rule_name(worst.rule)} from "
            f"{findings.sweep.base_batch_size:,} to {worst.global_batch_size:,}."
        )


def _is_bound(curve: RuleCurve) -> bool:
    return any(regret.is_lower_bound for regret in curve.regrets)
