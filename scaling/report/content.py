"""The words and tables of a report, from its findings; the templates only lay them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from scaling.analysis.branched import branched_words
from scaling.analysis.cells import CellResult
from scaling.analysis.extension import extension_lines
from scaling.analysis.findings import Findings
from scaling.analysis.rows import TrialRow
from scaling.analysis.targets import by_recipe
from scaling.analysis.wording import DASH, between, counted, number, rate
from scaling.records import StudyRecord


@dataclass(frozen=True)
class Table:
    """A table of words; `links` are addresses of the first column, where there are any."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    links: tuple[str | None, ...] = ()


@dataclass(frozen=True)
class Setting:
    """Where the trials come from.

    Attributes:
        study_file: The study as YAML; empty for a table from elsewhere.
        environment: Versions, hardware, commit and the like.
        urls: Where each trial can be read, by trial_id.
        notes: What else a reader must know.
    """

    study_file: str = ""
    environment: Mapping[str, Any] | None = None
    urls: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()


def setting_of(study: StudyRecord) -> Setting:
    """The setting of a recorded study."""
    given = study.spec.model_dump(mode="json", exclude_unset=True)
    text = yaml.safe_dump(given, sort_keys=False, allow_unicode=True, default_flow_style=None)
    unfinished = sum(trial.status == "running" for trial in study.trials)
    notes = (f"{counted(unfinished, 'trial')} had not ended and left out",) if unfinished else ()
    return Setting(text, study.environment, study.trial_urls, notes)


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
        "steps_to_target": _with_interval(number(target.steps.value), target.steps.interval),
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
    of_noise = "not measured"
    if noise.global_batch_size is not None:
        of_noise = f"tr Σ / |G|² at the last evaluation with a batch of {noise.global_batch_size:,}"
    estimate = noise.estimate
    rows = (
        (
            "steps–examples trade-off", number(fit.value), between(fit.interval),
            f"{of_fit}; {fit.note}" if fit.note else of_fit,
        ),
        ("gradient noise scale", number(estimate.value), between(estimate.interval), of_noise),
        ("branched training", *branched_words(findings.branched)),
    )  # fmt: skip
    return Table(("by", "examples", "90% interval", "definition"), rows)


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
    """One row a trial, in the order in which they were started."""
    rows = findings.sweep.rows
    columns = (
        "trial", "phase", "global_batch_size", "peak_lr", "rule", "seed", "status",
        "validation_loss", "train_loss", "steps_to_target",
    )  # fmt: skip
    return Table(
        columns, tuple(map(_trial_words, rows)), tuple(urls.get(row.trial_id) for row in rows)
    )


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


def flags(findings: Findings) -> list[str]:
    """What makes single cells less certain than the rest, one line each."""
    lines: list[str] = []
    for cell in findings.cells:
        confirm = findings.sweep.rows_of(cell.cell, "confirm")
        lost = sum(row.status in ("diverged", "failed") for row in confirm)
        lines += [f"{cell.label}: {reason}." for reason in cell.undertuned]
        if lost:
            lines.append(
                f"{cell.label}: {lost} of {len(confirm)} confirm seeds were lost; its means are "
                "over the others."
            )
        if findings.sweep.has_target and cell.target.num_reached < len(cell.target.trials):
            lines.append(
                f"{cell.label}: {cell.target.num_reached} of {len(cell.target.trials)} reached "
                "the target, so it has no mean steps to target."
            )
    return lines + extension_lines(findings.sweep)


def sources(findings: Findings) -> str:
    """Which trials the numbers of the cells are from, in a few sentences."""
    if any(cell.source == "confirm" for cell in findings.cells):
        return (
            "Losses, gaps, steps and seconds are means over the confirm replicates of each cell's "
            "best recipe, with seeds that the search never saw."
        )
    grouped = any(len(rows) > 1 for cell in findings.cells for rows in by_recipe(cell.replicates))
    text = "There is no confirm phase: losses are those of the best recipe of each cell's search"
    text += ", averaged over its seeds" if grouped else ""
    text += ", so picking and measuring share their data and the numbers are somewhat too good."
    if findings.sweep.has_target:
        text += " Steps to target are those of "
        text += "that recipe." if findings.sweep.is_joint else "the cell's fastest search trial."
    return text


TERMS = (
    ("global batch size", "Examples that one optimizer step averages over, all workers together."),
    ("cell", "One value of what the study compares, usually a batch size; every cell is searched "
     "with the same number of trials."),
    ("search, transfer, confirm", "Search finds each cell's best recipe; transfer carries the base "
     "batch's recipe to the others by a rule; confirm repeats the best recipes with new seeds."),
    ("diverged, censored", "A diverged trial blew up. A censored one ended normally and never "
     "reached the target. Neither is turned into a number."),
    ("peak_lr", "Learning rate after warmup. The best one is the minimum of a parabola in its "
     "logarithm through the lowest points of the cell, or the best trial's where that fit has no "
     "minimum inside the rates tried."),
    ("exponent", "The p of best rate ∝ batch^p, by least squares over the batch sizes whose best "
     "rate lies inside those tried."),
    ("train_loss, validation_loss, test_loss", "In nats per target, in evaluation mode on fixed "
     "examples, at the end of the budget. Search picks on validation; confirm reports test."),
    ("generalization gap", "Held-out loss − train_loss: test in confirm, validation in search."),
    ("gap at equal progress", "validation_loss − train_loss, interpolated between evaluations, at "
     "the most steps, the most examples and the lowest train_loss that every replicate reaches."),
    ("steps to target", "Optimizer steps until the validation loss is first at or under the "
     "target, interpolated in log loss between evaluations; examples are steps × batch."),
    ("critical batch size", "Where a run takes twice the fewest steps and twice the fewest "
     "examples: beyond it, larger batches mostly cost examples."),
    ("branched training", "At points of a run its batch is multiplied, and its rate with it: the "
     "critical batch there is the largest that ends within the tolerance of the batch left as it "
     "was, after as many examples. The interval is from the largest that surely does to the "
     "smallest that surely does not."),
    ("gradient noise scale", "Spread of single-example gradients over the size of their mean, "
     "tr Σ / |G|², in examples: near it, averaging more examples stops helping."),
    ("regret", "Loss with a carried recipe minus loss with the recipe tuned at that batch."),
    ("90% interval", "Student's t over seeds (joined with the evaluation samples' error for "
     "losses and gaps), a profile interval for fits. Nothing without replicates has one."),
    ("undertuned", "The best rate is the lowest or highest tried, or the best of n trials was "
     "still falling at the last trial."),
)  # fmt: skip
"""What the words of a report mean."""
