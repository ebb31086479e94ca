"""The tables of a study's report, from its findings; templates only lay them out."""

from collections.abc import Mapping, Sequence

from scaling.analysis.cell_results import CellResult
from scaling.analysis.findings import Findings
from scaling.analysis.learning_rate.rule_regret import Regret
from scaling.analysis.statistics.uncertainty import ABSENT
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.metrics import with_loss_unit
from scaling.report.tables.table import Table
from scaling.report.tables.target_tables import steps_words
from scaling.report.words.learning_rate import evidence_names, evidence_words, times
from scaling.report.words.measurements import (
    ALL,
    heading,
    in_its_unit,
    objective_title,
    of_table,
)
from scaling.report.words.numbers import (
    DASH,
    between,
    cell_name,
    extreme,
    number,
    rate,
    rate_with_bounds,
    rule_name,
    titled,
    with_interval,
)
from scaling.report.words.sources import recipe_rate

_MOST_LISTED = 10_000
"""Trials that the page lists."""


def cells_table(findings: Findings) -> Table:
    """One row a cell; columns that no cell fills are left out."""
    return Table.of_words(_cell_words(cell, findings.sweep) for cell in findings.cells)


def _cell_words(cell: CellResult, sweep: Sweep) -> dict[str, str]:
    target, best = cell.target, cell.surface_best
    reached = f"{target.num_reached} of {len(target.trials)}" if target.trials else DASH
    words = {
        "cell": cell_name(cell),
        "trials": f"{cell.num_trials}",
        "seeds": f"{cell.num_seeds}",
        "diverged": f"{cell.num_diverged}",
        "censored": f"{cell.num_censored}" if sweep.has_target else DASH,
        "best peak_lr": rate_with_bounds(cell.best_peak_lr, cell.best_peak_lr_interval, "\n"),
        recipe_rate(sweep): rate(cell.best.peak_lr if cell.best else None),
        "peak_lr for the target": rate(target.peak_lr),
        "expected regret": DASH if best is None else number(best.expected_regret, 2),
    }
    for name, metric in of_table("cells", sweep.loss_unit).items():
        digits = 4 if name.endswith("_loss") else 3
        words[heading(metric)] = in_its_unit(metric, cell.measured.get(name, ABSENT), digits)
        if name == "steps_to_target":  # of a cell that did not always reach it, what is known
            words[heading(metric)] = steps_words(target)
            fastest = number(target.best_tuned) if cell.source == "confirm" else DASH
            words["fewest steps in the search"] = fastest
    return words | {"reached target": reached if sweep.has_target else DASH}


def matched_gaps_table(findings: Findings) -> Table | None:
    """The gap at equal progress, one row a cell; None where cells have no curves to compare."""
    shown = [matched for matched in findings.matched_gaps if matched.at is not None]
    if not shown:
        return None
    units = {
        "steps": "after {} steps",
        "examples": "after {} examples",
        "train_loss": "at train_loss {}",
    }
    columns = [units[matched.matched].format(number(matched.at)) for matched in shown]
    rows = [
        (cell_name(cell), *(with_interval(m.gaps[i]) for m in shown))
        for i, cell in enumerate(findings.cells)
    ]
    return Table(("cell", *columns), tuple(rows))


def evidence_table(findings: Findings) -> Table:
    """What the data say about each reference exponent; no rows where it has no interval."""
    scaling = findings.lr_scaling
    rows = tuple(
        (
            f"{entry.exponent:g}",
            _p_value(entry.p_value, entry.is_bound),
            _p_value(entry.p_value_holm, entry.is_bound),
            ("over " if entry.is_bound else "") + times(entry.likelihood_ratio),
            evidence_words(entry.strength),
        )
        for entry in scaling.evidence
    )
    tail, ratio = evidence_names(scaling)
    columns = ("exponent", tail, f"{tail} (Holm)", f"{ratio} ratio, fitted vs this exponent")
    return Table((*columns, "evidence"), rows)


def _p_value(value: float, is_bound: bool) -> str:
    if value < 1e-4:
        return "< 0.0001"
    return ("< " if is_bound else "") + f"{value:.2g}"


def regret_table(findings: Findings) -> Table:
    """One row a rule and batch; no rows without a transfer phase."""
    rows = tuple(
        (
            regret.rule,
            f"{regret.global_batch_size:,}",
            number(regret.regret),
            between(regret.interval),
            f"{regret.num_seeds}",
            _compared_on(regret),
        )
        for regret in findings.regrets
    )
    regret = titled("regret", findings.sweep.tuned_for.regret_unit)
    columns = ("rule", "global_batch_size", regret, "90% interval", "seeds", "on")
    return Table(columns, rows)


def _compared_on(regret: Regret) -> str:
    if regret.diverged:
        return "diverged"
    if regret.tuned_diverged:
        return "the tuned recipe diverged"
    if not regret.applicable:
        return "outside the rule's domain"
    return "no paired seed" if regret.regret is None else regret.split


def rule_curves_table(findings: Findings) -> Table:
    """One row a rule, by the surface; no rows without one."""
    rows: list[tuple[str, ...]] = []
    for curve in findings.rule_curves:
        worst, bounds = curve.worst, sum(regret.is_lower_bound for regret in curve.regrets)
        least = "at least " * worst.is_lower_bound
        rows.append(
            (
                rule_name(curve.rule),
                ("at least " * (bounds > 0)) + with_interval(curve.mean, 2),
                f"{least}{number(worst.regret, 2)}\n{between(worst.interval, 2)}",
                f"{worst.base_batch_size:,} to {worst.global_batch_size:,}",
                f"{bounds} of {len(curve.regrets)}",
            )
        )
    mean, worst = (
        titled(name, findings.sweep.tuned_for.regret_unit) for name in ("mean regret", "worst")
    )
    columns = ("rule", mean, worst, "worst from", "outside rates tried")
    return Table(columns, tuple(rows))


def joint_table(findings: Findings) -> Table | None:
    """A joint search's best trial at each batch size, as a view; None for other studies."""
    if not findings.sweep.is_joint:
        return None
    search = [row for row in findings.sweep.rows if row.phase == "search"]
    rows: list[tuple[str, ...]] = []
    for size in sorted({row.global_batch_size for row in search}):
        ours = [row for row in search if row.global_batch_size == size]
        known = [row for row in ours if row.cost is not None]
        best = min(known, key=lambda row: row.cost or 0.0, default=None)
        found = (DASH, DASH, DASH)
        if best:
            found = (number(best.tuned_value, 4), rate(best.peak_lr), best.trial_id)
        rows.append((f"{size:,}", f"{len(ours)}", *found))
    objective = findings.sweep.tuned_for
    lowest = extreme(objective)
    if objective.is_loss:
        lowest = heading(with_loss_unit(ALL["best_validation_loss"], objective.unit))
    columns = ("global_batch_size", "trials", lowest, "peak_lr", "trial")
    return Table(columns, tuple(rows))


def trials_table(findings: Findings, urls: Mapping[str, str]) -> Table:
    """One row a trial, in the order in which they were started; no more than a page can hold."""
    rows = findings.sweep.rows[:_MOST_LISTED]
    total = len(findings.sweep.rows)
    which = f"{total:,} trials" if total == len(rows) else (
        f"The first {len(rows):,} of {total:,} trials"
    )  # fmt: skip
    unit, measured = findings.sweep.loss_unit, ("validation_loss", "train_loss", "steps_to_target")
    names = dict.fromkeys(name for cell in findings.sweep.cells for name in cell)
    axes = [name for name in names if name not in ("global_batch_size", "peak_lr")]
    objective = findings.sweep.tuned_for
    columns = (
        "trial", "phase", "global_batch_size", *axes, "peak_lr", "rule", "seed", "status",
        *(() if objective.is_loss else (objective_title(objective),)),
        *(heading(with_loss_unit(ALL[name], unit)) for name in measured),
    )  # fmt: skip
    leads = " A trial's name leads to its run." if urls else ""
    return Table(
        columns, tuple(_trial_words(row, axes) for row in rows),
        tuple(urls.get(row.trial_id) for row in rows),
        note=f"{which}; trials.parquet has all of them.{leads}",
    )  # fmt: skip


def _trial_words(row: TrialRow, axes: Sequence[str]) -> tuple[str, ...]:
    values = [row.cell.get(name) for name in axes]
    return (
        row.trial_id,
        row.phase,
        f"{row.global_batch_size:,}",
        *("null" if value is None else f"{value}" for value in values),
        rate(row.peak_lr),
        row.rule or DASH,
        DASH if row.seed is None else f"{row.seed}",
        row.status,
        *(() if row.tuned_for.is_loss else (number(row.tuned_value, 4),)),
        number(row.validation_loss, 4),
        number(row.train_loss, 4),
        number(row.steps_to_target),
    )
