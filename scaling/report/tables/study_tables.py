"""The tables of a study's report, from its findings; templates only lay them out."""

from collections.abc import Mapping

from scaling.analysis.cells import CellResult
from scaling.analysis.critical_batch.branched_training import branched_words
from scaling.analysis.findings import Findings
from scaling.analysis.rows import TrialRow
from scaling.analysis.wording import DASH, between, number, rate
from scaling.report.tables import target_tables
from scaling.report.tables.table import Table
from scaling.report.words.remarks import _times

_MOST_LISTED = 10_000
"""Trials that the page lists."""


def cells_table(findings: Findings) -> Table:
    """One row a cell; columns that no cell fills are left out."""
    columns: dict[str, list[str]] = {"cell": [_name(cell) for cell in findings.cells]}
    for cell in findings.cells:
        for title, value in _cell_words(cell, has_target=findings.sweep.has_target).items():
            columns.setdefault(title, []).append(value)
    kept = {title: v for title, v in columns.items() if any(word != DASH for word in v)}
    return Table(tuple(kept), tuple(zip(*kept.values(), strict=True)))


def _name(cell: CellResult) -> str:
    sizes_only = set(cell.cell) == {"global_batch_size"}
    return f"{cell.global_batch_size:,}" if sizes_only else cell.label


def _cell_words(cell: CellResult, *, has_target: bool) -> dict[str, str]:
    target = cell.target
    reached = f"{target.num_reached} of {len(target.trials)}" if target.trials else DASH
    return {
        "trials": f"{cell.num_trials}",
        "seeds": f"{cell.num_seeds}",
        "diverged": f"{cell.num_diverged}",
        "censored": f"{cell.num_censored}" if has_target else DASH,
        "best peak_lr": _rate_with_interval(cell),
        "validation_loss": _with_interval(
            number(cell.validation_loss.value, 4), cell.validation_loss.interval, 4
        ),
        "train_loss": number(cell.train_loss.value, 4),
        "test_loss": _with_interval(number(cell.test_loss.value, 4), cell.test_loss.interval, 4),
        "generalization_gap": _with_interval(number(cell.gap.value), cell.gap.interval),
        "reached target": reached if has_target else DASH,
        "steps_to_target": target_tables.steps_words(target),
        "steps, fastest search recipe": number(target.best_tuned)
        if cell.source == "confirm"
        else DASH,
        "examples_to_target": number(target.examples.value),
        "seconds_to_target": number(target.seconds.value),
        "grad_noise_scale": _with_interval(
            number(cell.noise_scale.value), cell.noise_scale.interval
        ),
    }


def _rate_with_interval(cell: CellResult) -> str:
    interval = cell.best_peak_lr_interval
    bounds = f"\n[{rate(interval[0])}, {rate(interval[1])}]" if interval else ""
    return rate(cell.best_peak_lr) + bounds


def _with_interval(value: str, interval: tuple[float, float] | None, digits: int = 3) -> str:
    return value if interval is None else f"{value}\n{between(interval, digits)}"


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
        (_name(cell), *(_with_interval(number(m.gaps[i].value), m.gaps[i].interval) for m in shown))
        for i, cell in enumerate(findings.cells)
    ]
    return Table(("cell", *columns), tuple(rows))


def critical_batch_table(findings: Findings) -> Table | None:
    """The three critical batch sizes side by side; None where cells are not batch sizes."""
    if not findings.one_series:
        return None
    fit, noise = findings.tradeoff, findings.noise_scale
    of_fit = "min_examples / min_steps of the fit S = min_steps + min_examples / B"
    of_fit += target_tables.tradeoff_target(findings)
    of_noise = "not measured"
    if noise.global_batch_size is not None:
        of_noise = f"tr Σ / |G|² at the last evaluation with a batch of {noise.global_batch_size:,}"
    estimate = noise.estimate
    rows = (
        (
            "steps–examples trade-off", number(fit.value), between(fit.interval),
            f"{of_fit}; {fit.note}" if fit.note else of_fit,
        ),
        *target_tables.overhead_rows(findings),
        ("gradient noise scale", number(estimate.value), between(estimate.interval), of_noise),
        *target_tables.noise_at_target_rows(findings),
        ("branched training", *branched_words(findings.branched)),
    )  # fmt: skip
    return Table(("by", "examples", "90% interval", "definition"), rows)


def targets_table(findings: Findings) -> Table | None:
    """Steps to each of several targets; None where the runs allow one alone."""
    made = target_tables.targets_rows(findings)
    return Table(*made) if made else None


def regimes_table(findings: Findings) -> Table | None:
    """What a larger batch still buys at each batch size; None without a trade-off."""
    made = target_tables.regimes_rows(findings)
    return Table(*made) if made else None


def loss_parts_table(findings: Findings) -> Table | None:
    """What of a larger batch's loss is due to fewer updates; None where nothing overlaps."""
    made = target_tables.loss_parts_rows(findings)
    return Table(*made) if made else None


def evidence_table(findings: Findings) -> Table | None:
    """What the data say about each reference exponent; None where the exponent has no interval."""
    scaling = findings.lr_scaling
    if not scaling.evidence:
        return None
    rows = tuple(
        (
            f"{entry.exponent:g}",
            _p_value(entry.p_value),
            _p_value(entry.p_value_holm),
            _times(entry.likelihood_ratio),
            entry.words,
        )
        for entry in scaling.evidence
    )
    return Table(
        ("exponent", "p-value", "p-value of three tests", "fitted over this", "in words"), rows
    )


def _p_value(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}"


def regret_table(findings: Findings) -> Table | None:
    """One row a rule and batch; None without a transfer phase."""
    if not findings.regrets:
        return None
    rows = tuple(
        (
            regret.rule,
            f"{regret.global_batch_size:,}",
            number(regret.regret),
            between(regret.interval),
            f"{regret.num_seeds}",
            "diverged"
            if regret.diverged
            else "outside the rule's domain"
            if not regret.applicable
            else regret.split
            if regret.regret is not None
            else "nothing to pair",
        )
        for regret in findings.regrets
    )
    columns = ("rule", "global_batch_size", "regret (nats)", "90% interval", "seeds", "on")
    return Table(columns, rows)


def joint_table(findings: Findings) -> Table | None:
    """A joint search's best trial at each batch size, as a view; None for other studies."""
    if not findings.sweep.is_joint:
        return None
    search = [row for row in findings.sweep.rows if row.phase == "search"]
    rows: list[tuple[str, ...]] = []
    for size in sorted({row.global_batch_size for row in search}):
        ours = [row for row in search if row.global_batch_size == size]
        with_loss = [row for row in ours if row.validation_loss is not None]
        best = min(with_loss, key=lambda row: row.validation_loss or 0.0, default=None)
        found = (
            (number(best.validation_loss, 4), rate(best.peak_lr), best.trial_id)
            if best
            else (DASH, DASH, DASH)
        )
        rows.append((f"{size:,}", f"{len(ours)}", *found))
    columns = ("global_batch_size", "trials", "lowest validation_loss", "peak_lr", "trial")
    return Table(columns, tuple(rows))


def trials_table(findings: Findings, urls: Mapping[str, str]) -> Table:
    """One row a trial, in the order in which they were started; no more than a page can hold."""
    rows = findings.sweep.rows[:_MOST_LISTED]
    total = len(findings.sweep.rows)
    which = f"{total:,} trials" if total == len(rows) else (
        f"The first {len(rows):,} of {total:,} trials"
    )  # fmt: skip
    columns = (
        "trial", "phase", "global_batch_size", "peak_lr", "rule", "seed", "status",
        "validation_loss", "train_loss", "steps_to_target",
    )  # fmt: skip
    return Table(
        columns, tuple(map(_trial_words, rows)), tuple(urls.get(row.trial_id) for row in rows),
        note=f"{which}; trials.parquet has all of them. A trial's name leads to its run.",
    )  # fmt: skip


def _trial_words(row: TrialRow) -> tuple[str, ...]:
    return (
        row.trial_id,
        row.phase,
        f"{row.global_batch_size:,}",
        rate(row.peak_lr),
        row.rule or DASH,
        DASH if row.seed is None else f"{row.seed}",
        row.status,
        number(row.validation_loss, 4),
        number(row.train_loss, 4),
        number(row.steps_to_target),
    )
