"""Which figures a report has, what each says, and why one is absent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import vl_convert
from altair.utils.schemapi import debug_mode

from scaling.analysis.findings import Findings
from scaling.analysis.wording import between, counted, number
from scaling.report import batch_charts, lr_charts, run_charts
from scaling.report.branched_chart import branched_caption, branched_chart
from scaling.report.chart_style import AnyChart, styled

_VEGA_LITE = "6.4"
_PNG_SCALE = 2


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        name: Of its files.
        title: What it shows.
        subtitle: How many trials and seeds are behind it.
        caption: How to read it.
        spec: Vega-Lite; None when the data do not allow the figure.
        absent: Why there is none; empty when there is.
    """

    name: str
    title: str
    subtitle: str = ""
    caption: str = ""
    spec: dict[str, Any] | None = None
    absent: str = ""

    def svg(self) -> str:
        """The static figure, drawn without a browser."""
        return vl_convert.vegalite_to_svg(self.spec or {}, vl_version=_VEGA_LITE)


def png(svg: str) -> bytes:
    """A static figure as a picture, two pixels a point."""
    return vl_convert.svg_to_png(svg, scale=_PNG_SCALE)


def figures(findings: Findings, urls: Mapping[str, str]) -> list[Figure]:
    """All figures of a report in its order, absent ones with their reason."""
    builder = _Builder(findings)
    if findings.sweep.is_joint:
        return _joint(builder, findings, urls)
    _about_target(builder, findings)
    if findings.branched.last is not None:
        builder.add(
            "branched_critical_batch", "Critical batch by branched training",
            branched_caption(findings.branched), lambda: branched_chart(findings), "",
        )  # fmt: skip
    _about_lr(builder, findings, urls)
    _about_loss(builder, findings, urls)
    return builder.made


class _Builder:
    """Collects figures; a chart is only drawn where there is no reason against it."""

    def __init__(self, findings: Findings) -> None:
        self.made: list[Figure] = []
        self.subtitle = _subtitle(findings)

    def add(
        self, name: str, title: str, caption: str, draw: Callable[[], AnyChart], absent: str
    ) -> None:
        if absent:
            self.made.append(Figure(name, title, absent=absent))
            return
        with debug_mode(False):  # a schema check at every step costs seconds; the tests draw all
            spec = styled(draw(), title, self.subtitle)
        self.made.append(Figure(name, title, self.subtitle, caption, spec))


def _subtitle(findings: Findings) -> str:
    parts = [counted(findings.num_search, "search trial")]
    seeds = findings.num_seeds
    parts.append(f"{counted(seeds, 'seed')} a cell" if seeds else "no replicate seeds")
    diverged = findings.count("diverged")
    return ", ".join(parts) + (f"; {diverged:,} diverged" if diverged else "")


def _about_target(builder: _Builder, findings: Findings) -> None:
    reached = [cell for cell in findings.cells if cell.target.steps.value is not None]
    reached = [cell for cell in reached if cell.global_batch_size is not None]
    absent = ""
    if not findings.sweep.has_target:
        absent = "the study has no target"
    elif len({cell.global_batch_size for cell in reached}) < 2:
        absent = "fewer than two batch sizes always reached the target"
    fit = findings.tradeoff
    caption = f"No fit: {fit.note}." if fit.value is None else (
        f"Grey: fit of S = {number(fit.min_steps)} + {number(fit.min_examples)} / B. Orange: the "
        f"critical batch size {number(fit.value)} {between(fit.interval)}."
    )  # fmt: skip
    builder.add(
        "steps_to_target", "Steps to target against batch", caption,
        lambda: batch_charts.steps_vs_batch(findings), absent,
    )  # fmt: skip
    builder.add(
        "examples_to_target", "Examples to target against batch", caption,
        lambda: batch_charts.examples_vs_batch(findings), absent,
    )  # fmt: skip
    builder.add(
        "steps_examples", "What fewer steps cost in examples",
        "Each point is a batch size. Down is cheaper, left is sooner.",
        lambda: batch_charts.steps_vs_examples(findings), absent,
    )  # fmt: skip


def _about_lr(builder: _Builder, findings: Findings, urls: Mapping[str, str]) -> None:
    curves = [cell for cell in findings.cells if cell.curve is not None]
    absent = "" if curves else "no cell tried three learning rates or more"
    builder.add(
        "loss_vs_lr", "Validation loss against learning rate",
        "A point is a search trial. Upright strokes: best rate, with the interval of the local fit "
        "as a bar where there is one; ringed where it is the lowest or highest rate tried. At the "
        "top edge, filled triangles are diverged trials and open ones lie off the scale.",
        lambda: lr_charts.loss_vs_lr(findings, urls), absent,
    )  # fmt: skip
    with_batch = [cell for cell in curves if cell.best_peak_lr is not None]
    if not absent and not findings.one_series:
        absent = "cells differ in more than the batch size"
    elif not absent and len(with_batch) < 2:
        absent = "fewer than two batch sizes have a best rate"
    builder.add(
        "best_lr_vs_batch", "Best learning rate against batch",
        f"{lr_charts.lr_caption(findings)} Dotted: exponents 0, ½ and 1.",
        lambda: lr_charts.best_lr_vs_batch(findings), absent,
    )  # fmt: skip
    shown = [r for r in findings.regrets if r.diverged or r.regret is not None]
    absent = "" if shown else "no rule was carried to another batch size"
    splits = {r.split for r in shown if r.regret is not None}
    builder.add(
        "regret_vs_batch", "Regret of each rule against batch",
        f"Loss with the recipe carried by the rule minus loss with the recipe tuned there, on "
        f"{' and '.join(sorted(splits)) or 'no loss'}, paired by seed. Crosses at the "
        f"top edge: diverged. {_not_applicable(findings)}",
        lambda: lr_charts.regret_vs_batch(findings), absent,
    )  # fmt: skip


def _not_applicable(findings: Findings) -> str:
    refused = [f"{r.rule} at {r.global_batch_size:,}" for r in findings.regrets if not r.applicable]
    return f"Outside of their domain: {', '.join(refused)}." if refused else ""


def _about_loss(builder: _Builder, findings: Findings, urls: Mapping[str, str]) -> None:
    sized = [cell for cell in findings.cells if cell.global_batch_size is not None]
    losses = {c.global_batch_size for c in sized if c.validation_loss.value is not None}
    builder.add(
        "loss_vs_batch", "Validation loss of the best recipe against batch",
        "At the end of the budget; bars are 90% intervals where there are seeds.",
        lambda: batch_charts.loss_vs_batch(findings),
        "" if len(losses) > 1 else "fewer than two batch sizes have a validation loss",
    )  # fmt: skip
    gaps = {c.global_batch_size for c in sized if c.gap.value is not None}
    held_out = next((c.held_out for c in sized if c.gap.value is not None), "test_loss")
    builder.add(
        "generalization_gap", "Generalization gap against batch",
        f"{held_out} − train_loss at the end of the budget. Bars: 90% intervals from seeds and "
        "from the evaluation samples; none without seeds.",
        lambda: batch_charts.gap_vs_batch(findings),
        "" if len(gaps) > 1 else "fewer than two batch sizes have a training and a held-out loss",
    )  # fmt: skip
    _learning_curves(builder, findings, urls)


def _learning_curves(builder: _Builder, findings: Findings, urls: Mapping[str, str]) -> None:
    runs = [row for cell in findings.cells for row in cell.replicates]
    evaluated = [row for row in runs if any(m.examples > 0 for m in row.measurements)]
    builder.add(
        "learning_curves", "Learning curves by examples",
        "The trials that each cell's numbers are from; one line a seed.",
        lambda: run_charts.learning_curves(findings, urls),
        "" if evaluated else "no losses along the runs",
    )  # fmt: skip


def _joint(builder: _Builder, findings: Findings, urls: Mapping[str, str]) -> list[Figure]:
    with_loss = [
        row
        for row in findings.sweep.rows
        if row.phase == "search" and row.validation_loss is not None
    ]
    names = run_charts.searched_names(findings)
    absent = "" if len(with_loss) > 1 and names else "fewer than two trials ended with a loss"
    builder.add(
        "parallel_coordinates", "All trials of the joint search",
        "A line is a trial; lighter is worse, orange is the best one. Each axis runs from its "
        "lowest to its highest value tried.",
        lambda: run_charts.parallel_coordinates(findings), absent,
    )  # fmt: skip
    for name in names:
        builder.add(
            f"loss_vs_{name}", f"Validation loss against {name}",
            "All other hyperparameters vary as well, so this is a view and not a comparison.",
            lambda name=name: run_charts.loss_vs_choice(findings, name, urls), absent,
        )  # fmt: skip
    _learning_curves(builder, findings, urls)
    return builder.made
