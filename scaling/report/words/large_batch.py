"""The first screen on large batches: how far the batch can grow, and what it costs."""

from collections.abc import Iterable

from scaling.analysis.cell_results import CellResult
from scaling.analysis.critical_batch.branched_training import BranchPoint
from scaling.analysis.findings import Findings
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.report.words.absent import no_tradeoff
from scaling.report.words.numbers import joined, number, telling_digits, with_ends, with_unit
from scaling.report.words.remarks import branched_words, of_more_examples
from scaling.report.words.sentences import shortest


def critical_batch_words(findings: Findings) -> str:
    """By the curve that the data allow, with its interval, and beside it by the other one.

    Which of the two leads may change with a few trials more; that both are said does not.
    """
    fit = findings.tradeoff
    if fit.headline.interval is None:
        if not findings.sweep.has_target:
            return ""
        bound = _bound(fit.bounds)
        return shortest(
            f"The critical batch size is not determined{bound}: {no_tradeoff(fit)}.",
            f"The critical batch size is not determined{bound}.",
        )
    after = briefly = ""
    if not findings.sweep.has_target:
        reached = with_unit(number(findings.tradeoff_target), findings.sweep.loss_unit)
        after = f", at a loss of {reached}, the lowest that every batch reached"
        briefly = f", at a loss of {reached} that every batch reached"
    value, free = with_ends(fit.headline), fit.free
    if not free.excludes_one:
        text = f"The critical batch size (steps–examples fit) is {value} examples"
        if not free.is_tuned or free.at_twice_min_steps.interval is None:
            return f"{text}{after}."
        fitted = with_ends(free.at_twice_min_steps)
        return shortest(
            f"{text}{after}; with the exponent α fitted, {fitted}.",
            f"{text}, {fitted} with α fitted{after}.",
            f"{text}{after}.",
        )
    text = f"Steps are twice their minimum at a batch of {value} examples"
    both: list[str] = []
    if fit.value is not None:
        classical = with_ends(Estimate(fit.value, fit.interval, fit.num_trials))
        both = [
            f"{text}{after}; the classical curve (α = 1), which the data disfavor, "
            f"gives {classical}.",
            f"{text} (classical curve, disfavored: {classical}){briefly}.",
        ]
    alone = f"{text}{after}; the data disfavor the classical curve (α = 1).", f"{text}{after}."
    return shortest(*both, *alone)


def _bound(bounds: tuple[float | None, float | None]) -> str:
    """The side on which the data do bound the critical batch; empty where they do on neither."""
    low, high = bounds
    if low is not None and high is None:
        return f" (above {number(low)} examples)"
    return f" (below {number(high)} examples)" if high is not None and low is None else ""


def branched_path_words(findings: Findings) -> str:
    """The critical batch size along the run, from its first point to its last."""
    points = [point for point in findings.branched.points if point.value is not None]
    words = [
        f"{_at_point(point)} after {point.examples:,} examples"
        for point in (points if len(points) < 3 else (points[0], points[-1]))
    ]
    start = "By branched training the critical batch size in examples is"
    return shortest(f"{start} {joined(words, 'and')}.", f"{start} {words[-1]}.") if words else ""


def _at_point(point: BranchPoint) -> str:
    value, interval = branched_words(point)
    only_bound = point.is_upper_bound and point.interval is not None
    if point.interval is None:
        return value if point.is_bound else f"{value} ({interval})"
    return interval if only_bound else f"{value} {interval}"


def cost_words(findings: Findings) -> tuple[str, str]:
    """Loss and gap at the smallest and the largest batch: in one sentence where it is short.

    Either sentence may be empty. They are of the cells whose runs saw the fewest examples: longer
    training lowers a loss by itself.
    """
    objective = findings.sweep.tuned_for
    longer = [cell for cell, _ in of_more_examples(findings)[1]]
    cells = [cell for cell in findings.cells if all(cell is not other for other in longer)]
    start = "At equal examples, from" if longer else "From"
    if len(cells) < 2 <= len(findings.cells):  # as with a budget of steps
        cells, start = list(findings.cells), "At unequal examples, from"
    cells = [cell for cell in cells if not cell.has_diverged_seed]
    losses = [(cell, cell.value_of(objective)) for cell in cells]
    loss = _at_ends([(cell, value) for cell, value in losses if value.value is not None])
    gap = _at_ends([(cell, cell.gap) for cell in cells if cell.gap.interval is not None])
    label = "loss" if objective.is_loss else objective.label
    final = "final " * findings.sweep.has_target  # the screen also has a loss at the target
    words = f"the {final}{label} goes from {loss[1]}" if loss else ""
    amount = with_unit(gap[1], findings.sweep.loss_unit) if gap else ""
    if loss and gap and loss[0] == gap[0]:
        # A unit that both have is said once, at the end.
        once = words if objective.is_loss else with_unit(words, objective.unit_shown)
        shorter = gap[0].removeprefix("a ").replace(" of", "")
        both = shortest(
            f"{start} {gap[0]} {once}, the generalization gap from {amount}.",
            f"{start} {shorter} {once}, the gap from {amount}.",
            f"{start} {shorter}: {final}{label} {once.partition(' from ')[2]}, gap {amount}.",
        )
        if both:
            return both, ""
    of_loss = f"{start} {loss[0]} {with_unit(words, objective.unit_shown)}." if loss else ""
    of_gap = f"{start} {gap[0]} the generalization gap goes from {amount}." if gap else ""
    return shortest(of_loss), shortest(of_gap)


def _at_ends(values: Iterable[tuple[CellResult, Estimate]]) -> tuple[str, str] | None:
    """From which batch to which, and the values there; None without two of them."""
    known = sorted(values, key=lambda pair: pair[0].global_batch_size or 0)
    if len(known) < 2:
        return None
    (first, a), (last, b) = known[0], known[-1]
    digits = telling_digits(a.value, b.value)
    return (
        f"a batch of {first.global_batch_size or 0:,} to {last.global_batch_size or 0:,}",
        f"{with_ends(a, digits)} to {with_ends(b, digits)}",
    )
