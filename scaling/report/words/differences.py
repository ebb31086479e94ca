"""What the comparison of two studies says, and what of them must not be compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from scaling.analysis.contrasts import Comparison, Contrast
from scaling.report.words.absent import other_unit
from scaling.report.words.measurements import ALL
from scaling.report.words.numbers import between, counted, number

_COMPARED = ("test_loss", "validation_loss", "generalization_gap", "steps_to_target")
"""What the answer sets side by side, beside the best rate."""


def comparison_answer(comparison: Comparison, names: tuple[str, str]) -> str:
    """What differs between A and B, and no more than the intervals support."""
    if not comparison.shared:
        return "Not enough data: the two studies have no cell in common."
    sentences = [
        f"{counted(len(comparison.shared), 'shared cell')}; A is {names[0]}, B is {names[1]}."
    ]
    sentences += [direction(words, found) for words, found in compared_measures(comparison)]
    for contrast in comparison.contrasts:
        if contrast.global_batch_size is None and not contrast.cell and contrast.interval:
            name = contrast.measure.replace("lr_", "learning rate's ").replace("_", " ")
            word = "B − A" if contrast.kind == "difference" else "B / A"
            sentences.append(
                f"The {name}, {word}: {number(contrast.value)} {between(contrast.interval)}."
            )
    if not comparison.num_intervals:
        return " ".join([*sentences, "Not enough data: no difference has an interval."])
    chance = number(comparison.expected_by_chance, 2)
    sentences.append(
        f"Of {counted(comparison.num_intervals, 'interval')} {comparison.num_apart} leave out "
        f"no difference, where {chance} would by chance alone; with Holm's correction over all "
        f"of them {sum(c.holm for c in comparison.contrasts)} stand."
    )
    return " ".join(sentences)


def compared_measures(comparison: Comparison) -> list[tuple[str, list[Contrast]]]:
    """What is set side by side, in words, with its contrasts that have an interval."""
    measures = [(name, ALL[name].label) for name in _COMPARED] + [("best_peak_lr", "best rate")]
    found = [
        (words, [c for c in comparison.contrasts if c.measure == measure and c.interval])
        for measure, words in measures
    ]
    return [(words, contrasts) for words, contrasts in found if contrasts]


def direction(words: str, found: Sequence[Contrast]) -> str:
    """At which cells B has less of something than A, and at which more, in one sentence."""
    below = [c for c in found if c.apart and c.value < (0 if c.kind == "difference" else 1)]
    above = [c for c in found if c.apart and c not in below]
    groups = (("lower", below), ("higher", above))
    parts = [f"{word} at {', '.join(map(_at, group))}" for word, group in groups if group]
    if not parts:
        return f"B's {words} cannot be told from A's at {counted(len(found), 'cell')}."
    rest = len(found) - len(below) - len(above)
    return f"B's {words} is {' and '.join(parts)}" + (
        f", and cannot be told from A's at {counted(rest, 'other cell')}." if rest else "."
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
        notes.append(f"Losses are not compared, nor gaps and what depends on a target: {words}.")
    conditions = zip(names, (one, other), strict=True)
    unknown = [name for name, known in conditions if known is None]
    if unknown:
        notes.append(
            f"Of {' and '.join(unknown)} the task, the tokenizer, the data and the budget are not "
            "known (a table does not hold them, nor does a report of an older version): losses "
            "are compared as if they were in the same unit, on the same examples and of equally "
            "long runs. If they are not, the differences mean nothing."
        )
    if one is not None and other is not None and one.budget != other.budget:
        budgets = " and ".join(map(budget_words, (one.budget, other.budget)))
        notes.append(f"The budgets of a trial are {budgets}: each loss is at the end of its own.")
    loss_names = {s.tuned_for.label for s in (ours, theirs) if s.tuned_for.is_loss}
    if len(loss_names) > 1:
        notes.append(f"The losses have different names: {' and '.join(sorted(loss_names))}.")
    if ours.has_target and theirs.has_target and not setup.targets:
        notes.append(
            f"Steps, examples and seconds to target, and the critical batch size, are not "
            f"compared: the targets are {ours.target:g} and {theirs.target:g}."
        )
    if setup.same_data:
        notes.append("Same data and split: seeds that both studies confirmed with are paired.")
    elif not unknown:
        notes.append("Their data or its split differ, so that nothing is paired by seed.")
    return notes


def budget_words(budget: Mapping[str, Any]) -> str:
    """What a trial may take: steps 400."""
    return ", ".join(f"{name} {value:,}" for name, value in budget.items())
