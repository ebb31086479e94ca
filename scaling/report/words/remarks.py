"""What a reader must know beside the numbers: flags, the evidence for a law."""

from typing import assert_never

from scaling.analysis.cell_results import CellResult, label, seeds_alike
from scaling.analysis.critical_batch.agreement import Agreement
from scaling.analysis.critical_batch.branched_training import BranchPoint
from scaling.analysis.critical_batch.target_curves import Origin
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.findings import Findings
from scaling.analysis.generalization.gap_relations import GapRelation
from scaling.analysis.learning_rate.beyond_range import ExtendedCell, extended_cells
from scaling.analysis.statistics.uncertainty import Estimate, Interval
from scaling.analysis.trial_rows import Sweep
from scaling.report.words.absent import no_free_exponent, undertuned
from scaling.report.words.numbers import (
    beside,
    between,
    cell_name,
    counted,
    either,
    joined,
    number,
    rate,
    with_unit,
)

_DEFINITIONS = {
    "steps_examples": "the steps–examples fit",
    "noise_scale_at_target": "the gradient noise scale at the target",
    "noise_scale_at_end": "the gradient noise scale at the end",
    "branched": "branched training",
}
_MORE_EXAMPLES = 1.2
"""Examples over the fewest of any cell, from which on a reader is told."""


def flags(findings: Findings) -> list[str]:
    """What makes single cells less certain than the rest, one line each."""
    lines: list[str] = []
    for cell in findings.cells:
        confirm = findings.sweep.rows_of(cell.cell, "confirm")
        lost = sum(row.status in ("diverged", "failed") for row in confirm)
        if findings.sweep.ladder is None:  # a ladder searches for the way of the bottom, not cells
            lines += [f"{cell.label}: {undertuned(reason)}." for reason in cell.undertuned]
        if lost:
            rest = "; its means are over the others"
            rest = ", so it has no means" if lost == len(confirm) else rest
            lines.append(f"{cell.label}: {lost} of {len(confirm)} confirm seeds were lost{rest}.")
        if seeds_alike(cell.replicates):
            lines.append(
                f"{cell.label}: its seeds give the same loss to the last digit, so it has no "
                "interval."
            )
        if cell.target.first_gap is not None:
            lines.append(_first_gap_words(cell.label, cell.target.first_gap))
        if findings.sweep.has_target and cell.target.num_reached < len(cell.target.trials):
            lines.append(_missed_words(cell))
    lines += _diverged_rules(findings)
    lines += _without_metric(findings.sweep)
    lines += _unequal_examples(findings) if findings.sweep.ladder is None else []
    least = min((cell.num_trials for cell in findings.cells), default=0)
    return lines + [extension_words(cell, least) for cell in extended_cells(findings.sweep)]


def all_lost_words(sweep: Sweep) -> str:
    """That no trial is left of all that were run, or that none was; empty where one is."""
    if not sweep.rows:
        return "No trial was run."
    met = {row.status for row in sweep.rows}
    if not met <= {"diverged", "failed"}:
        return ""
    num = len(sweep.rows)
    return f"{'The only trial' if num == 1 else f'All {num:,} trials'} {' or '.join(sorted(met))}."


def _missed_words(cell: CellResult) -> str:
    """That some of a cell's seeds missed the target, and how they count."""
    reached, total = cell.target.num_reached, len(cell.target.trials)
    start = f"{cell.label}: {reached} of {total}"
    if cell.target.steps.value is None:
        return f"{start} reached the target, so it has no mean steps to target."
    if reached == total - 1:
        missed = (
            "The other nearly did, and counts with the steps that it would probably have taken."
        )
    else:
        missed = (
            "The others nearly did, and count with the steps that they would probably have taken."
        )
    return f"{start} seeds reached the target. {missed}"


def _first_gap_words(name: str, gap: Interval) -> str:
    return (
        f"{name}: it reached the target between its first two evaluations, at steps "
        f"{number(gap[0])} and {number(gap[1])}. Its steps to target lie anywhere between, so the "
        "steps–examples fit excludes it. Evaluate more often early on (evaluation.growth_ratio)."
    )


def _diverged_rules(findings: Findings) -> list[str]:
    """Which rules diverged as they were run, and where recipes tuned there did."""
    lines: list[str] = []
    for rule in findings.sweep.rules:
        sizes = [r.global_batch_size for r in findings.regrets if r.rule == rule and r.diverged]
        if sizes:
            at = joined([f"{size:,}" for size in sizes], "and")
            base = findings.sweep.base_batch_size or 0
            lines.append(f"The recipe carried from {base:,} by the rule {rule} diverged at {at}.")
    tuned = sorted({r.global_batch_size for r in findings.regrets if r.tuned_diverged})
    if tuned:
        at = joined([f"{size:,}" for size in tuned], "and")
        lines.append(f"A seed of the recipe tuned at {at} diverged: no rule has a regret there.")
    return lines


def _without_metric(sweep: Sweep) -> list[str]:
    """Which trials ended without the metric that recipes are tuned for, or the target's."""
    ended = [row for row in sweep.rows if row.status == "done" and row.measurements]
    lines: list[str] = []
    targeted = [sweep.target_metric] if sweep.has_target else []
    for objective in dict.fromkeys([sweep.tuned_for, *targeted]):
        names = [r.trial_id for r in ended if objective.value_of(r.measurements[-1]) is None]
        if names and not objective.is_loss:
            lines.append(
                f"{counted(len(names), 'trial')} of {len(ended):,} ended without {objective.name}, "
                f"so nothing is read from {'it' if len(names) == 1 else 'them'}: "
                f"{joined(names, 'and')}."
            )
    return lines


def of_more_examples(findings: Findings) -> tuple[float, list[tuple[CellResult, float]]]:
    """The fewest examples of a cell's runs, and the cells whose runs saw clearly more.

    A budget in examples has a least of steps.
    """
    seen = [
        (cell, max(examples))
        for cell in findings.cells
        if (examples := [r.examples for r in cell.replicates if r.examples and r.status == "done"])
    ]
    fewest = min((examples for _, examples in seen), default=0.0)
    return fewest, [(cell, count) for cell, count in seen if count > _MORE_EXAMPLES * fewest]


def _unequal_examples(findings: Findings) -> list[str]:
    fewest, more = of_more_examples(findings)
    return [
        f"{cell.label}: its runs saw {number(count)} examples, the shortest runs {number(fewest)}; "
        "losses and gaps are not at equal examples."
        for cell, count in more
    ]


def noise_places(findings: Findings) -> str:
    """The noise scale at the target and at the end of the headline's cell, in a sentence."""
    size, curve = findings.noise_scale.global_batch_size, findings.noise_scale.curve
    if curve is None:
        return ""
    at_target = f"{either(curve.at_target)} at the target and " if curve.at_target.value else ""
    return f"With a batch of {size:,}: {at_target}{either(curve.at_end)} at the end."


def tradeoff_target(findings: Findings) -> str:
    """Which target the trade-off is at; empty where it is not known."""
    if findings.tradeoff_target is None:
        return ""
    text = f"; target {number(findings.tradeoff_target)}"
    if not findings.sweep.has_target:
        text += ", the lowest loss that every cell reached: chosen after the fact"
    return text


def critical_notes(findings: Findings) -> list[str]:
    """What must be known to read the critical batch sizes: their disagreement, the fit's limits."""
    fit = findings.tradeoff
    notes = list(map(agreement_words, findings.agreements))
    notes += _shape_notes(fit)
    if fit.headline.value is not None:
        notes += _picked_steps(findings)
    if fit.interval is not None and fit.num_trials == fit.num_batches:
        notes.append(
            "One run per batch size: the interval is from the scatter around the curve alone."
        )
    return notes


def _picked_steps(findings: Findings) -> list[str]:
    """At which cells the steps are those of the search trials that picked their recipe."""
    known = [(cell, cell.replicates) for cell in findings.cells]
    if findings.sweep.has_target:
        known = [(c, c.target.trials) for c in findings.cells if c.target.steps.value is not None]
    picked = [cell_name(cell) for cell, rows in known if cell.picked_on(rows)]
    if not picked:
        return []
    at = "" if len(picked) == len(known) else f" at {joined(picked, 'and')}"
    return [
        f"The steps{at} are those of the search's fastest trials: min_steps and min_examples are "
        "biased low (selected and measured on the same trials)."
    ]


def _shape_notes(fit: TradeoffFit) -> list[str]:
    """How the classical curve fits, and what its exponent is when it is fitted."""
    notes: list[str] = []
    alpha, twice = fit.free.alpha, fit.free.at_twice_min_steps
    if fit.free.excludes_one:
        notes.append(
            f"The data disfavor α = 1 in S = min_steps · (1 + (B_c / B)^α): α is "
            f"{beside(alpha, 1.0)}. "
            + "The interval of the classical fit assumes α = 1 and does not hold. "
            * (fit.interval is not None)
            + f"With α fitted, steps are twice their minimum at a batch of {either(twice)}."
        )
    elif alpha.interval is not None:
        notes.append(
            f"The classical fit assumes α = 1 in S = min_steps · (1 + (B_c / B)^α). Fitted, α is "
            f"{either(alpha)}, and steps are twice their minimum at a batch of {either(twice)}."
        )
    elif fit.interval is not None:
        notes.append(
            "The interval of the classical fit assumes S = min_steps + min_examples / B. That was "
            f"not tested: {no_free_exponent(fit)}."
        )
    if fit.misfit_exceeds_seeds and fit.rms_misfit is not None:
        notes.append(
            f"The classical curve fits poorly: its residuals, {fit.rms_misfit:.1%}, exceed seed "
            "noise. Either the curve has another shape, or cells are not equally well tuned."
        )
        if fit.interval is not None and fit.of_seeds.critical is not None:
            notes[-1] += (
                " The interval uses the residuals. From seed noise alone it would be "
                f"{between(fit.of_seeds.critical)}."
            )
    return notes


def differences_words(findings: Findings) -> list[str]:
    """The gap of the largest batch over the reference batch's at each kind of equal progress."""
    lines: list[str] = []
    sized = [cell for cell in findings.cells if cell.global_batch_size is not None]
    if not findings.one_series or not sized:
        return lines
    largest = max(sized, key=lambda cell: cell.global_batch_size or 0)
    place = findings.cells.index(largest)
    names = {"steps": "equal steps", "examples": "equal examples", "train_loss": "equal train_loss"}
    for matched in findings.matched_gaps:
        difference = matched.differences[place]
        if difference.value is not None and difference.interval is not None:
            lines.append(
                f"At {names[matched.matched]}, the gap at {largest.global_batch_size:,} minus that "
                f"at {matched.reference_batch_size:,} is "
                f"{with_unit(either(difference), findings.sweep.loss_unit)} over "
                f"{counted(difference.count, 'paired seed')}: {_sign(difference)}."
            )
    return lines


def _sign(difference: Estimate) -> str:
    assert difference.interval
    low, high = difference.interval
    if low > 0:
        return "larger"
    return "smaller" if high < 0 else "not distinguishable from zero"


def relations_words(findings: Findings) -> list[str]:
    """Rank correlations of the gap, or that there is not enough data for one."""
    names = {
        "sharpness": "sharpness",
        "hessian_top_eigenvalue": "the largest curvature",
        "grad_noise_scale": "the gradient noise scale",
    }
    return [
        f"The gap against {names[relation.against]}: {correlation_words(relation)}"
        for relation in findings.gap_relations
        if len(relation.points) > 1
    ]


def correlation_words(relation: GapRelation) -> str:
    """The rank correlation of a relation, or that there is not enough data for one."""
    over = f"over {counted(len(relation.points), 'cell')}"
    if relation.correlation.value is None:
        return f"not enough data {over}: a rank correlation needs eight."
    return f"rank correlation {either(relation.correlation)} {over}."


def branched_words(point: BranchPoint) -> tuple[str, str]:
    """The value and the interval of one point; "at most" where the base batch is its lower end."""
    value = "at least " * point.is_bound + number(point.value)
    if point.interval is not None and point.is_upper_bound:
        return value, f"at most {number(point.interval[1])}"
    return value, between(point.interval)


def agreement_words(agreement: Agreement) -> str:
    """How far two critical batch sizes by different definitions are apart."""
    first, second = _DEFINITIONS[agreement.first], _DEFINITIONS[agreement.second]
    text = f"Ratio of {first} to {second}: {beside(agreement.ratio, 1.0)}"
    match agreement.verdict:
        case "unknown":
            return f"{text}; not enough data to distinguish them."
        case "not_told_apart":
            return f"{text}: the data do not distinguish them."
        case "differ_overlapping":
            return f"{text}: they differ; their intervals overlap."
        case "differ_apart":
            return f"{text}: they differ; their intervals do not overlap."
    assert_never(agreement.verdict)


def extension_words(extended: ExtendedCell, fewest: int) -> str:
    """That a cell was searched beyond its range, and with more trials than the fewest of a cell."""
    rates = extended.peak_lr_beyond
    where = f" at rates from {rate(rates[0])} to {rate(rates[1])}" if rates else ""
    return (
        f"{label(extended.cell) or 'all trials'}: searched beyond the study file's range "
        f"with {counted(extended.num_trials_beyond, 'trial')} more{where}, as densely as before. "
        f"It has {extended.num_trials} trials in all"
        f"{', more than other cells' * (extended.num_trials > fewest)}."
    )


def origin(target: Origin) -> str:
    """Where a target is from."""
    match target:
        case "the study's":
            return "the study's target"
        case "earlier":
            return "earlier in training"
        case "every cell's":
            return "reached by every cell"
        case "three quarters of the cells'":
            return "reached by three quarters of the cells"
        case "half of the cells'":
            return "reached by half of the cells"
    assert_never(target)
