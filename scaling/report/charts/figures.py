"""Which figures a report has, what each says, and why one is absent."""

import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import vl_convert
from altair.utils.schemapi import debug_mode

from scaling.analysis.cell_results import CellResult, label
from scaling.analysis.findings import Findings
from scaling.analysis.ladder.reading import LadderReading
from scaling.files.names import file_name
from scaling.report.charts import (
    by_batch,
    by_rate,
    by_rule,
    by_target,
    by_time,
    by_trial,
    ladder,
)
from scaling.report.charts.style import AnyChart, has_cut, styled
from scaling.report.charts.thinning import MOST_LINES, MOST_MARKS
from scaling.report.importance import Importance
from scaling.report.words import captions, remarks
from scaling.report.words import ladder as ladder_words
from scaling.report.words.absent import CELLS_DIFFER, NO_RATES
from scaling.report.words.measurements import axis_title
from scaling.report.words.numbers import counted, number

FIRST = "answer"
"""Section of the one figure beside the first screen's sentences."""
_VEGA_LITE = "6.4"
_PNG_SCALE = 2
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Figure:
    """One figure of a report.

    Attributes:
        name: Of its files; see `file_name`.
        title: What it shows.
        subtitle: How many trials and seeds are behind it.
        caption: How to read it.
        spec: Vega-Lite; None when the data do not allow the figure.
        absent: Why there is none; empty when there is.
        section: Where it stands in the report; see `sections`.
    """

    name: str
    title: str
    subtitle: str = ""
    caption: str = ""
    spec: dict[str, Any] | None = None
    absent: str = ""
    section: str = "search"

    def svg(self) -> str:
        """The static figure, drawn without a browser."""
        return vl_convert.vegalite_to_svg(self.spec or {}, vl_version=_VEGA_LITE)


def png(svg: str) -> bytes:
    """A static figure as a picture, two pixels a point."""
    return vl_convert.svg_to_png(svg, scale=_PNG_SCALE)


def figures(
    findings: Findings, urls: Mapping[str, str], importance: Importance | None = None
) -> list[Figure]:
    """All figures of a report in its order, absent ones with their reason.

    Args:
        findings: What the sweep shows.
        urls: Where each trial can be read, by trial_id.
        importance: Of the nuisance hyperparameters; None where the search space is not known.
    """
    builder = _Builder(findings)
    beside = "loss_and_time"
    if findings.ladder is not None:
        beside = "best_batch_vs_compute"
        _about_ladder(builder, findings, findings.ladder)
    elif findings.sweep.is_joint:
        beside = "loss_vs_global_batch_size"
    else:
        _overview(builder, findings)
        _about_lr(builder, findings, urls)
        _about_target(builder, findings)
        _about_targets_and_noise(builder, findings)
        _about_branches(builder, findings)
        _about_next_run(builder, findings)
        _about_loss(builder, findings)
        _about_gap_relations(builder, findings)
    _about_search(builder, findings, urls, importance)
    _learning_curves(builder, findings, urls)
    return [replace(f, section=FIRST) if f.name == beside else f for f in builder.made]


def _overview(builder: "_Builder", findings: Findings) -> None:
    """Loss and time of each cell's run, for the first screen."""
    objective = findings.sweep.tuned_for
    known = [cell for cell in findings.cells if cell.value_of(objective).value is not None]
    times, title, is_predicted = by_batch.times_of(findings)
    what = "intervals"
    if is_predicted:
        title += captions.chance_of_run(findings)
        what += ", of seconds predictive ones"
    orange = f" Orange, right axis: {title[0].lower()}{title[1:]}." if times else ""
    builder.add(
        "loss_and_time",
        f"{captions.tuned_name(findings)}{' and time' * bool(times)} against batch",
        f"Blue, left axis: {objective.label} at the end of the budget.{orange} Bars are 90% "
        f"{what}.",
        lambda: by_batch.loss_and_time(findings),
        "" if _num_sizes(known) > 1 else "fewer than two batch sizes have a result",
    )  # fmt: skip


def _about_ladder(builder: "_Builder", findings: Findings, reading: LadderReading) -> None:
    builder.section = "ladder"
    for field, name in (("rate", "peak learning rate"), ("batch", "batch size")):
        builder.add(
            f"best_{field}_vs_compute", f"Best {name} against compute",
            # that of the batch stands beside the first screen
            ladder_words.WAY_CAPTION if field == "batch" else "As for the batch size.",
            lambda field=field, name=name: ladder.against_compute(
                reading, field, f"Best {name}"
            ),
            "",
        )  # fmt: skip
    for field, name in (("rate", "learning rate"), ("batch", "batch size")):
        builder.add(
            f"loss_vs_{field}_by_size", f"Loss of every size against {name}",
            ladder_words.VALLEY_CAPTION if field == "rate" else "As for the learning rate.",
            lambda field=field: ladder.valleys(findings, field), "",
        )  # fmt: skip


class _Builder:
    """Collects figures; a chart is only drawn where there is no reason against it.

    `section` is that of the figures added next.
    """

    def __init__(self, findings: Findings) -> None:
        self.made: list[Figure] = []
        self.section = "search"
        self.subtitle = captions.behind(findings)
        self._says_cut = False

    def add(
        self, name: str, title: str, caption: str, draw: Callable[[], AnyChart], absent: str
    ) -> None:
        name = self._free(file_name(name))  # may hold that of a column
        if absent:
            self.made.append(Figure(name, title, absent=absent, section=self.section))
            return
        with debug_mode(False):  # a schema check at every step costs seconds; the tests draw all
            spec = styled(draw(), title, self.subtitle)
        if has_cut(spec) and not self._says_cut:  # once on a page
            self._says_cut = True
            caption += (
                " Intervals that reach zero or have no end are cut at the axis, here and below."
            )
        caption = caption.strip()
        self.made.append(Figure(name, title, self.subtitle, caption, spec, section=self.section))

    def _free(self, name: str) -> str:
        """A name that a file and an address can have, and no other figure has."""
        plain = re.sub(r"[^\w.~-]+", "_", name, flags=re.ASCII)[:_LONGEST_NAME]
        taken = {figure.name for figure in self.made}
        numbered = (f"{plain}_{number}" for number in itertools.count(2))
        return plain if plain not in taken else next(n for n in numbered if n not in taken)


def _about_target(builder: _Builder, findings: Findings) -> None:
    builder.section = "target"
    absent = ""
    if not findings.sweep.has_target:
        absent = "the study has no target"
    elif _num_sizes(cell for cell in findings.cells if cell.target.steps.value) < 2:
        absent = "fewer than two batch sizes have steps to the target"
    fit = findings.tradeoff
    builder.add(
        "steps_to_target", "Steps to target against batch",
        captions.SERIES_FITS if findings.series else captions.tradeoff_caption(fit),
        lambda: by_batch.to_target(findings, "steps", axis_title("steps_to_target")), absent,
    )  # fmt: skip
    builder.add(
        "examples_to_target", "Examples to target against batch",
        "Grey: the fit of the steps, times the batch." * (fit.headline.value is not None),
        lambda: by_batch.to_target(findings, "examples", "Examples to target"), absent,
    )  # fmt: skip
    builder.add(
        "steps_examples", "What fewer steps cost in examples",
        "Each point is a batch size. Lower is cheaper, further left is faster.",
        lambda: by_batch.steps_vs_examples(findings), absent,
    )  # fmt: skip


def _about_targets_and_noise(builder: _Builder, findings: Findings) -> None:
    curves = [c for c in findings.target_curves if any(t.steps.value for t in c.cells)]
    chosen = ". ".join(f"{number(c.target)}: {remarks.origin(c.origin)}" for c in curves)
    builder.add(
        "steps_by_target", "Steps to several targets against batch",
        f"One line per target, the study's own thicker; bars are 90% intervals over seeds. "
        f"{chosen}. Targets read off the runs are chosen after the fact.",
        lambda: by_target.steps_by_target(findings),
        "" if len(curves) > 1 else "another target needs losses along the run and a schedule that "
        "does not know the horizon",
    )  # fmt: skip
    along = [sum(point.examples > 0 for point in c.points) for c in findings.noise_curves]
    builder.add(
        "noise_scale_curve", "Gradient noise scale along training",
        "tr Σ / |G|², both averaged along each run and over a cell's seeds. "
        "Bands: 90% Fieller intervals, where there are two seeds or more. "
        f"{remarks.noise_places(findings)}",
        lambda: by_target.noise_scale_curves(findings),
        "" if max(along, default=0) > 1 else "the noise scale was not measured along the runs",
    )  # fmt: skip


def _about_gap_relations(builder: _Builder, findings: Findings) -> None:
    for relation in findings.gap_relations:
        builder.add(
            f"gap_vs_{relation.against}", f"Generalization gap against {relation.against}",
            f"Each point is a cell, a mean over its seeds; gap against {relation.against}: "
            f"{remarks.correlation_words(relation)}",
            lambda relation=relation: by_target.gap_against(relation, findings.sweep.loss_unit),
            "" if len(relation.points) > 1 else "fewer than two cells have both",
        )  # fmt: skip


def _about_branches(builder: _Builder, findings: Findings) -> None:
    if findings.branched.last is not None:
        builder.add(
            "branched_critical_batch", "Critical batch by branched training",
            captions.branched_caption(findings.branched, findings.sweep.loss_unit),
            lambda: by_target.branched_chart(findings), "",
        )  # fmt: skip


def _about_next_run(builder: _Builder, findings: Findings) -> None:
    recommendation = findings.recommendation
    chance = captions.chance_of_run(findings)
    builder.add(
        "time_vs_examples", "What time costs in examples",
        f"Seconds and examples of one more run of each cell's recipe{chance}; further left is "
        "faster, lower is cheaper. Dashed: the Pareto front. Bars are 90% predictive intervals.",
        lambda: by_time.time_vs_examples(recommendation), by_time.absent(recommendation),
    )  # fmt: skip


def _about_lr(builder: _Builder, findings: Findings, urls: Mapping[str, str]) -> None:
    builder.section = "learning_rate"
    curves = [cell for cell in findings.cells if cell.curve is not None]
    absent = "" if curves else NO_RATES
    builder.add(
        "loss_vs_lr", f"{captions.tuned_name(findings)} against learning rate",
        "Each point is a search trial. Vertical strokes: the best rate, with a bar for its "
        "interval, by a fit or between the nearest clearly higher losses. Rings: the best rate is "
        f"the lowest or highest tried. At the {captions.worse_edge(findings)} edge, filled "
        "triangles are diverged trials and open ones lie off the scale. Dashed lines: the lowest "
        "rate that diverged, or was unstable over seeds, in each cell."
        + captions.of_all(findings, MOST_MARKS),
        lambda: by_rate.loss_vs_lr(findings, urls), absent,
    )  # fmt: skip
    with_batch = [cell for cell in curves if cell.best_peak_lr is not None]
    if not absent and not findings.one_series and not findings.series:
        absent = CELLS_DIFFER
    elif not absent and len(with_batch) < 2:
        absent = "fewer than two batch sizes have a best rate"
    builder.add(
        "best_lr_vs_batch", "Best learning rate against batch",
        captions.SERIES_RATES if findings.series
        else f"{captions.lr_caption(findings)} Dotted: exponents 0, ½ and 1."
        + captions.band_caption(findings),
        lambda: by_rate.best_lr_by_series(findings) if findings.series
        else by_rate.best_lr_vs_batch(findings),
        absent,
    )  # fmt: skip
    builder.add(
        "rules_between_batches", "Regret of each rule between all batch sizes",
        "Read from the loss surface: the rate tuned at one batch size is carried to another one, "
        "larger (right) or smaller (left). Each point is a pair of batch sizes. Open points are "
        "lower bounds, where the rule leaves the rates tried; open triangles lie off the scale.",
        lambda: by_rule.rules_between_batches(findings),
        "" if findings.rule_curves else "there is no loss surface over batch sizes",
    )  # fmt: skip
    shown = [r for r in findings.regrets if r.diverged or r.regret is not None]
    absent = "" if shown else "no rule was carried to another batch size"
    splits = {r.split for r in shown if r.regret is not None}
    builder.add(
        "regret_vs_batch", "Regret of each rule against batch",
        "Loss with the carried recipe minus loss with the recipe tuned there "
        f"({' and '.join(sorted(splits)) or 'no loss'}), paired by seed. Crosses at the top edge: "
        f"diverged. {captions.not_applicable(findings)}",
        lambda: by_rule.regret_vs_batch(findings), absent,
    )  # fmt: skip


def _about_loss(builder: _Builder, findings: Findings) -> None:
    builder.section = "loss"
    name, tuned_for = captions.tuned_name(findings), findings.sweep.tuned_for
    known = [cell for cell in findings.cells if cell.value_of(tuned_for).value is not None]
    builder.add(
        "loss_vs_batch", f"{name} of the best recipe against batch",
        "At the end of the budget; bars are 90% intervals where there are seeds.",
        lambda: by_batch.loss_vs_batch(findings),
        "" if _num_sizes(known) > 1 else f"fewer than two batch sizes have a {name.lower()}",
    )  # fmt: skip
    sized = [c for c in findings.cells if c.gap.value is not None and c.global_batch_size]
    held_out = sized[0].held_out if sized else "test_loss"
    builder.add(
        "generalization_gap", "Generalization gap against batch",
        f"{held_out} − train_loss at the end of the budget. Bars: 90% intervals from seeds and "
        "from the evaluation samples; none without seeds.",
        lambda: by_batch.gap_vs_batch(findings),
        "" if _num_sizes(sized) > 1
        else "fewer than two batch sizes have a training and a held-out loss",
    )  # fmt: skip


def _num_sizes(cells: Iterable[CellResult]) -> int:
    return len({cell.global_batch_size for cell in cells} - {None})


def _about_search(
    builder: _Builder, findings: Findings, urls: Mapping[str, str], importance: Importance | None
) -> None:
    builder.section = "search"
    if importance is not None:
        several = len(importance.by_cell) > 1
        cells = [label(findings.sweep.cells[place]) for place in importance.by_cell]
        of_cell = f" of {cells[0]}" if len(cells) == 1 and cells[0] else ""
        builder.add(
            "importance", "What mattered in the search",
            f"Functional ANOVA over {importance.num_trials:,} finished trials{of_cell}: each "
            "hyperparameter's share of the variance that single hyperparameters explain. "
            + ("Grey: single cells. " if several else "")
            + importance.note,
            lambda: by_trial.importance(importance),
            "" if importance.shares else importance.note,
        )  # fmt: skip
    search = [row for row in findings.sweep.rows if row.phase == "search"]
    with_loss = [row for row in search if row.cost is not None]
    names = by_trial.searched_names(findings)
    absent = "" if names else "no hyperparameter but the learning rate is known to vary"
    absent = absent if len(with_loss) > 1 else "fewer than two trials ended with a loss"
    several = len(findings.cells) > 1
    builder.add(
        "parallel_coordinates", "All trials of the search",
        "Each line is a trial; each axis spans the values tried. "
        + ("Thick: the best trial of each cell. Click a cell in the legend to show it alone. "
           if several else "Lighter is worse, orange is the best one. ")
        + "Diverged trials have no loss and no line." + captions.of_all(findings, MOST_LINES),
        lambda: by_trial.parallel_coordinates(findings, urls), absent,
    )  # fmt: skip
    shown_before = {"peak_lr"} if any(figure.name == "loss_vs_lr" and figure.spec
                                      for figure in builder.made) else set()  # fmt: skip
    read_first = (
        "All other hyperparameters vary as well, so this is a view and not a comparison. "
        f"Ringed: the best trial{' of each cell' if several else ''}. Triangles at the "
        f"{captions.worse_edge(findings)} edge: diverged (filled), off the scale (open)."
        + captions.of_all(findings, MOST_MARKS)
    )
    shown_now = [name for name in names if name not in shown_before]
    for name in shown_now:
        builder.add(
            f"loss_vs_{name}", f"{captions.tuned_name(findings)} against {name}",
            (read_first if name == shown_now[0]
            else f"As for {shown_now[0]}, with {name} on the axis.")
            + _left_out(name, by_trial.num_blank(findings, name)),
            lambda name=name: by_trial.loss_vs_choice(findings, name, urls), absent,
        )  # fmt: skip


def _left_out(name: str, num_blank: int) -> str:
    verb = "is" if num_blank == 1 else "are"
    return f" {counted(num_blank, 'trial')} without {name} {verb} left out." if num_blank else ""


def _learning_curves(builder: _Builder, findings: Findings, urls: Mapping[str, str]) -> None:
    builder.section = "curves"
    absent = by_trial.no_curves(findings)
    caption = "The trials behind each cell's numbers, one line per seed."
    builder.add(
        "learning_curves", "Learning curves by examples", caption,
        lambda: by_trial.learning_curves(findings, urls, "examples"), absent,
    )  # fmt: skip
    builder.add(
        "learning_curves_by_step", "Learning curves by steps",
        "The same trials by optimizer step.",
        lambda: by_trial.learning_curves(findings, urls, "step"), absent,
    )  # fmt: skip
