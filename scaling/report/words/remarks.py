"""What a reader must know beside the numbers: flags, sources, the evidence for a law."""

from scaling.analysis.baseline import baseline_words
from scaling.analysis.critical_batch.targets import by_recipe
from scaling.analysis.findings import Findings
from scaling.analysis.learning_rate.beyond_range import extension_lines
from scaling.analysis.learning_rate.exponent import LrScaling
from scaling.analysis.wording import between, number, rate
from scaling.report.tables import target_tables

_SCATTERED = 3.0
"""Variance of the optima over what the noise explains, from which on a reader is told."""


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
