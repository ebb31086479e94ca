"""The words and tables of a report, from its findings; the templates only lay them out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from scaling.analysis.baseline import baseline_words
from scaling.analysis.branched import branched_words
from scaling.analysis.cells import CellResult
from scaling.analysis.extension import extension_lines
from scaling.analysis.findings import Findings
from scaling.analysis.lr_exponent import LrScaling
from scaling.analysis.rows import TrialRow
from scaling.analysis.targets import by_recipe
from scaling.analysis.wording import DASH, between, counted, number, rate
from scaling.records.study import StudyRecord
from scaling.report import target_tables

_SCATTERED = 3.0
"""Variance of the optima over what the noise explains, from which on a reader is told."""

_MOST_LISTED = 10_000
"""Trials that the page lists."""

_MLFLOW_UI = "http://127.0.0.1:5000/"  # where `mlflow ui` answers unless it is told otherwise


@dataclass(frozen=True)
class Table:
    """A table of words.

    Attributes:
        links: Addresses of the first column, where there are any.
        title: What it shows, where it stands among figures.
        note: How to read it.
        remarks: What it shows, in sentences.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    links: tuple[str | None, ...] = ()
    title: str = ""
    note: str = ""
    remarks: tuple[str, ...] = ()


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
    notes = study.notes
    if unfinished:
        notes += (f"Left out: {counted(unfinished, 'trial')} that had not ended.",)
    urls = {
        trial: _MLFLOW_UI + url if url.startswith("#") else url
        for trial, url in study.trial_urls.items()
    }
    if urls != study.trial_urls:
        notes += (f"Links to runs need `mlflow ui` with the study's store, at {_MLFLOW_UI}.",)
    return Setting(text, study.environment, urls, notes)


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


def _times(ratio: float) -> str:
    return "over a million" if ratio > 1e6 else number(ratio)


def law_words(findings: Findings) -> str:
    """Whether a power is the law at all, in a few sentences."""
    scaling = findings.lr_scaling
    if scaling.exponent.interval is None:
        return ""
    parts = [
        "The ratio says how many times likelier the data are under the fitted exponent than under "
        "this one: from 8 fairly strong evidence, from 32 strong. Three tests were made, so the "
        "second p-value counts them together (Holm). An exponent that is not excluded is not shown."
    ]
    parts.append(_shape_words(scaling))
    if scaling.scatter is not None and scaling.scatter > _SCATTERED:
        parts.append(
            f"The optima scatter about the power {number(scaling.scatter, 2)} times as much (in "
            "variance) as the trials' noise explains: a power is at best a summary."
        )
    surge = scaling.surge
    if surge.over_power is None:
        parts.append(f"A law that turns (surge) was not asked for: {surge.note}.")
    elif surge.preferred:
        parts.append(
            f"The surge law fits better, the data being {_times(surge.over_power)} times likelier "
            f"under it: the best rate is highest, {rate(surge.peak_lr)}, at a batch of "
            f"{number(surge.noise_batch.value)} {between(surge.noise_batch.interval)}."
        )
    else:
        reason = surge.note or "the data are not 8 times likelier under it than under the power"
        parts.append(f"A law that turns (surge) is not preferred: {reason}.")
    return " ".join(parts)


def _shape_words(scaling: LrScaling) -> str:
    if not scaling.has_common_shape:
        return (
            "No one shape of loss against rate fits all cells, so each best rate is only bounded, "
            "by the nearest rates with clearly higher losses."
        )
    if scaling.is_shape_checked:
        return "Replicates do not refuse one shape of loss against rate for all cells."
    return (
        "The interval takes loss against rate to have one shape in all cells. Without replicates "
        "only neighbouring rates can show that it has not, hardly with as few as six a cell, and "
        "then the interval is too narrow."
    )


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
    """Which trials the numbers of the cells are from, and the least that they have to beat."""
    return " ".join(filter(None, (_phases(findings), baseline_words(findings.sweep))))


def _phases(findings: Findings) -> str:
    if any(cell.source == "confirm" for cell in findings.cells):
        return (
            "Losses, gaps, steps and seconds are means over the confirm replicates of each cell's "
            "best recipe, with seeds that the search never saw."
        )
    grouped = any(len(rows) > 1 for cell in findings.cells for rows in by_recipe(cell.replicates))
    text = "There is no confirm phase: losses are those of the best recipe of each cell's search"
    text += ", averaged over its seeds" if grouped else ""
    if not target_tables.picked_on_search(findings):
        return text + ". Each cell has one recipe, so none was picked."
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
    ("peak_lr", "Learning rate after warmup. The best one is the bottom of a basin in its "
     "logarithm through the lowest points of the cell, equally lopsided in all cells, or the best "
     "trial's where that fit has no bottom inside the rates tried."),
    ("exponent", "The p of best rate ∝ batch^p, fitted to the losses of all batch sizes whose "
     "best rate lies inside those tried."),
    ("surge", "A law in which the best rate rises as √batch, is highest at a batch B_n, and falls "
     "beyond it."),
    ("train_loss, validation_loss, test_loss", "In nats per target, in evaluation mode on fixed "
     "examples, at the end of the budget. Search picks on validation; confirm reports test."),
    ("generalization gap", "Held-out loss − train_loss: test in confirm, validation in search."),
    ("gap at equal progress", "validation_loss − train_loss, interpolated between evaluations, at "
     "the most steps, the most examples and the lowest train_loss that every replicate reaches."),
    ("steps to target", "Optimizer steps until the validation loss is first at or under the "
     "target, interpolated in log loss between evaluations; examples are steps × batch. A mean "
     "over the confirm replicates; beside it those of the fastest recipe of the search, picked and "
     "measured on the same trials and so somewhat too few. “> n”: a run went n steps without "
     "reaching it."),
    ("slope, regime", "−d log steps / d log batch of the fit, critical / (critical + batch). "
     "Perfect scaling: above 0.9 with its whole interval, so that doubling the batch nearly halves "
     "the steps. Maximal data parallelism: below 0.1, larger batches buy nothing. Between: "
     "diminishing returns. Undecided: the interval spans a bound."),
    ("due to fewer updates, the rest", "A larger batch's validation loss at its end minus the "
     "reference batch's at its end is the sum of two: what the reference lost by stopping after as "
     "few steps, and the larger batch's loss minus the reference's after equal steps. Each batch "
     "has its own recipe, so the rest holds that as well."),
    ("critical batch size", "Where a run takes twice the fewest steps and twice the fewest "
     "examples: beyond it, larger batches mostly cost examples. 20% overhead is another "
     "definition and another number: the batch that spends 20% more examples than a reference."),
    ("branched training", "At points of a run its batch is multiplied, and its rate with it: the "
     "critical batch there is the largest that ends within the tolerance of the batch left as it "
     "was, after as many examples. The interval is from the largest that surely does to the "
     "smallest that surely does not."),
    ("gradient noise scale", "Spread of single-example gradients over the size of their mean, "
     "tr Σ / |G|², in examples: near it, averaging more examples stops helping."),
    ("baseline", "Guessing by how often a class, tag, token or answer position occurs in the "
     "training split, whatever the input (each counted once more). It is evaluated on the examples "
     "that trials are; a recipe beats it with a loss that is lower by more than both losses' 90% "
     "sampling error."),
    ("regret", "Loss with a carried recipe minus loss with the recipe tuned at that batch."),
    ("time against examples", "A run of each cell's recipe in seconds and in examples. One that "
     "another beats in both is never worth running; the others are the front."),
    ("at best", "Seconds on other workers than the study's are those of a batch with as many "
     "examples a worker; what more workers have to exchange is not counted."),
    ("chance within the limits", "That one more run ends within the deadline and the cost, by the "
     "spread of its seconds over seeds (Student's t)."),
    ("importance", "Share of the objective's variance over the search space that one nuisance "
     "hyperparameter explains alone (functional ANOVA, Hutter et al. 2014, by Optuna). It says "
     "what the ranges searched made matter, not what to set."),
    ("nuisance hyperparameter", "One that is searched inside each cell so that cells are compared "
     "at their best, as the learning rate."),
    ("trial, seed", "A trial is one training run. A seed decides its initial weights and the order "
     "of its data; runs of one recipe with several seeds show how much chance moves a number."),
    ("recipe", "Everything that determines a training run but its seed."),
    ("warmup_steps, clip_norm", "Steps over which the rate rises to peak_lr; the largest norm that "
     "a gradient keeps."),
    ("rule", "How a recipe is carried to another batch: none keeps the rate, sqrt and linear "
     "multiply it by a power of the batch's growth, adam_sde moves Adam's other settings too."),
    ("90% interval", "Student's t over seeds (joined with the evaluation samples' error for "
     "losses and gaps), a profile interval for fits: of the trade-off from seeds and from how far "
     "batch sizes miss the curve, the larger where they differ. A mean without replicates has "
     "none. Methods and their measured coverage: docs/statistics.md."),
    ("undertuned", "The best rate may lie beyond those tried, or the best of n trials was still "
     "falling: twice the trials would probably gain more than 1% of the loss."),
)  # fmt: skip
"""What the words of a report mean."""
