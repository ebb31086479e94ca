"""What the comparison of two studies says, and what of them must not be compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from scaling.analysis.contrasts import Comparison, Contrast
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.analysis.trial_rows import Sweep
from scaling.records.objective import VALIDATION_LOSS
from scaling.report.words.absent import other_unit
from scaling.report.words.headline import MOST_SENTENCES
from scaling.report.words.measurements import ALL
from scaling.report.words.numbers import beside, counted, joined, number, target_words
from scaling.report.words.sentences import shortest
from scaling.spec.phases import TO_TARGET

_COMPARED = ("test_loss", "validation_loss", "generalization_gap", "steps_to_target")
"""What is set side by side, beside the best rate."""
_SAME = "Give both studies the same batch sizes and other cells."
_SEEDS = "Repeat their recipes with at least three seeds."


def comparison_headline(comparison: Comparison, names: tuple[str, str]) -> str:
    """The main differences of two studies, B against A, and no more than the intervals support."""
    shared = counted(len(comparison.shared), "cell")
    who = shortest(
        f"A is {names[0]} and B is {names[1]}; they have {shared} in common.",
        f"The two studies have {shared} in common.",
    )
    if not comparison.shared:
        return f"{who} Not enough data: without a cell in common nothing is compared. {_SAME}"
    if not comparison.num_intervals:
        return f"{who} Not enough data: no difference has an interval. {_SEEDS}"
    apart, holm = comparison.num_apart, sum(c.holm for c in comparison.contrasts)
    end = [
        f"Of {counted(comparison.num_intervals, 'interval')}, {apart} "
        f"{'shows' if apart == 1 else 'show'} a difference; by chance "
        f"alone {number(comparison.expected_by_chance, 2)} would.",
        f"With Holm's correction the number is {holm}.",
    ]
    found = [
        shortest(_direction(words, contrasts), f"B's {words} differs from A's at some cells.")
        for words, contrasts in _compared_measures(comparison)
    ]
    found += [
        _of_study(contrast)
        for contrast in comparison.contrasts
        if contrast.interval and contrast.global_batch_size is None and not contrast.cell
    ]
    room = MOST_SENTENCES - 1 - len(end)
    return " ".join([who, *[s for s in dict.fromkeys(found) if s][:room], *end])


def _of_study(contrast: Contrast) -> str:
    """A difference of two whole studies, in one sentence."""
    assert contrast.interval is not None
    name = contrast.measure.replace("lr_", "learning rate's ").replace("_", " ")
    word = "B − A" if contrast.kind == "difference" else "B / A"
    found = Estimate(contrast.value, contrast.interval)
    return f"The {name}, {word}: {beside(found, 0.0 if contrast.kind == 'difference' else 1.0)}."


def _compared_measures(comparison: Comparison) -> list[tuple[str, list[Contrast]]]:
    """What is set side by side, in words, with its contrasts."""
    measures = [(name, ALL[name].label) for name in _COMPARED] + [("best_peak_lr", "best rate")]
    found = [
        (words, [c for c in comparison.contrasts if c.measure == measure])
        for measure, words in measures
    ]
    return [(words, contrasts) for words, contrasts in found if contrasts]


def _direction(words: str, found: Sequence[Contrast]) -> str:
    """At which cells B has less of something than A, and at which more, in one sentence."""
    unknown = sum(contrast.interval is None for contrast in found)
    if unknown == len(found):
        return f"B's {words} has no interval at any cell, so it is not known to differ from A's."
    found = [contrast for contrast in found if contrast.interval is not None]
    apart = [c for c in found if c.apart and c.value is not None]
    below = [c for c in apart if (c.value or 0.0) < (0 if c.kind == "difference" else 1)]
    above = [c for c in apart if c not in below]
    groups = (("lower", below), ("higher", above))
    parts = [f"{word} at {joined([*map(_at, group)], 'and')}" for word, group in groups if group]
    if not parts:
        return f"B's {words} is not distinguishable from A's at {counted(len(found), 'cell')}."
    rest = len(found) - len(below) - len(above)
    return f"B's {words} is {' and '.join(parts)}" + (
        f", and not distinguishable from A's at {counted(rest, 'other cell')}." if rest else "."
    )


def _at(contrast: Contrast) -> str:
    only_size = contrast.cell == f"global_batch_size {contrast.global_batch_size}"
    return f"{contrast.global_batch_size:,}" if only_size else contrast.cell


def comparability_notes(comparison: Comparison, names: tuple[str, str]) -> list[str]:
    """What of the two studies is not compared or not paired, and why."""
    setup, ours, theirs = comparison.setup, comparison.a.sweep, comparison.b.sweep
    one, other = ours.conditions, theirs.conditions
    notes: list[str] = []
    if one is not None and other is not None and setup.other_unit is not None:
        words = other_unit(setup.other_unit, one, other)
        notes.append(f"Losses, gaps and what depends on a target are not compared: {words}.")
    conditions = zip(names, (one, other), strict=True)
    unknown = [name for name, known in conditions if known is None]
    if unknown:
        notes.append(
            f"Task, tokenizer, data and budget of {' and '.join(unknown)} are not known: tables "
            "and reports of older versions do not hold them. Losses are compared as if their unit, "
            "examples and run lengths were the same. If they are not, the differences mean nothing."
        )
    if one is not None and other is not None and one.budget != other.budget:
        budgets = " and ".join(map(budget_words, (one.budget, other.budget)))
        notes.append(f"The budgets of a trial are {budgets}: each loss is at the end of its own.")
    goals = [_goal(sweep) for sweep in (ours, theirs)]
    if goals[0] != goals[1]:
        notes.append(
            f"A was tuned for {goals[0]} and B for {goals[1]}: their best rates and losses are "
            "of recipes chosen by different measures."
        )
    loss_names = {s.tuned_for.label for s in (ours, theirs) if s.tuned_for.is_loss}
    if len(loss_names) > 1:
        notes.append(f"The losses have different names: {' and '.join(sorted(loss_names))}.")
    if ours.target is not None and theirs.target is not None and not setup.targets:
        targets = " and ".join(target_words(s.target_metric, s.target or 0) for s in (ours, theirs))
        notes.append(
            f"Steps, examples and seconds to target, and the critical batch size, are not "
            f"compared: the targets are {targets}."
        )
    for side, place in (("A", 0), ("B", 1)):
        lost = [pair[place].label for pair in comparison.shared if pair[place].has_diverged_seed]
        if lost and setup.losses:
            cells = joined(lost, "and")
            notes.append(f"A seed of {side} diverged at {cells}: no loss is compared there.")
    if setup.same_data:
        notes.append("Same data and split: confirm seeds that both studies have are paired.")
    elif not unknown:
        notes.append("Their data or splits differ, so nothing is paired by seed.")
    return notes


def _goal(sweep: Sweep) -> str:
    """What the search went by: the loss of whatever name, a metric, or steps to a target."""
    if sweep.objective in TO_TARGET:
        return sweep.objective.replace("_", " ")
    return VALIDATION_LOSS.label if sweep.tuned_for.is_loss else sweep.tuned_for.label


def budget_words(budget: Mapping[str, Any]) -> str:
    """What a trial may take: steps 400."""
    return ", ".join(f"{name} {value:,}" for name, value in budget.items())
