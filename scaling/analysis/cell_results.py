"""All that is known of one cell, from its search and its confirm trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from scaling.analysis.critical_batch.target_recipe import to_target_of
from scaling.analysis.critical_batch.targets import ToTarget, best_recipe, to_target
from scaling.analysis.generalization.gap import SPLITS, HeldOut, gap_estimate, loss_estimate
from scaling.analysis.learning_rate.curves import LrCurve, lr_curves
from scaling.analysis.learning_rate.fitted_surface import FittedSurface
from scaling.analysis.learning_rate.surface_reading import SurfaceReading
from scaling.analysis.learning_rate.tuning import Undertuned, edge_reasons, undertuned_reasons
from scaling.analysis.measured import of_seeds, of_task
from scaling.analysis.statistics.uncertainty import (
    ABSENT,
    Estimate,
    Interval,
    ratio_of_means,
    seed_variance,
)
from scaling.analysis.trial_rows import Cell, Sweep, TrialRow
from scaling.records.measurement import MEASURED
from scaling.records.objective import Objective
from scaling.records.outcome import is_censored
from scaling.surface.loss_surface import CellBest

Source = Literal["confirm", "search"]
_REGRET: tuple[Undertuned, ...] = ("regret_above_limit",)


@dataclass(frozen=True)
class CellResult:
    """One cell.

    Attributes:
        cell: Its scientific values; empty for a joint search.
        global_batch_size: Examples per step; in a joint search those of the best recipe; None
            when no trial gave one.
        num_trials: Search trials.
        num_seeds: Seeds of the best recipe: those of confirm, or of a table with a seed column.
        num_censored: Those of them that ended and never reached the target.
        num_diverged: Those of them that blew up.
        source: Which phase the losses and times are from.
        best: A trial with the best recipe, of confirm where that has one (the surface recommends
            recipes that were not tried), else of the search; None if every one was lost.
        curve: Loss against rate; None when the rate was not searched in this cell.
        held_out: The split that the gap uses.
        undertuned: Why the cell needs more search; empty when it does not.
        metrics: The task's own metrics at the end, over the replicates.
        measured: Every measurement that a table of the report has, over the replicates, by name.
        surface_best: The best recipe by the surface, with its expected regret; None where there
            is no surface.
    """

    cell: Cell
    global_batch_size: int | None
    num_trials: int
    num_recipes: int
    num_seeds: int
    num_censored: int
    num_diverged: int
    source: Source
    best: TrialRow | None
    curve: LrCurve | None
    validation_loss: Estimate
    train_loss: Estimate
    test_loss: Estimate
    gap: Estimate
    held_out: HeldOut
    target: ToTarget
    noise_scale: Estimate
    steps: Estimate
    undertuned: tuple[Undertuned, ...]
    replicates: tuple[TrialRow, ...]
    metrics: Mapping[str, Estimate]
    measured: Mapping[str, Estimate]
    surface_best: CellBest | None

    def value_of(self, objective: Objective) -> Estimate:
        """The loss, or a metric, at the end of the cell's recipe."""
        if objective.is_loss:
            return self.validation_loss
        return self.metrics.get(objective.name, ABSENT)

    @property
    def has_diverged_seed(self) -> bool:
        """Whether a seed of its recipe diverged, so that a mean of the others flatters."""
        return any(row.status == "diverged" for row in self.replicates)

    def picked_on(self, rows: Sequence[TrialRow]) -> bool:
        """Whether some of its rows are of the search that picked their recipe among several."""
        return self.num_recipes > 1 and any(row.phase == "search" for row in rows)

    @property
    def series(self) -> str:
        """What tells this cell from others with the same batch; empty when nothing does."""
        return label({k: v for k, v in self.cell.items() if k != "global_batch_size"})

    @property
    def label(self) -> str:
        """The cell in words."""
        return label(self.cell) or "all trials"

    @property
    def best_peak_lr(self) -> float | None:
        """The fitted optimum where there is one, else the rate of the best trial."""
        if self.curve is not None and self.curve.optimum is not None and self.curve.edge is None:
            return self.curve.optimum
        return self.best.peak_lr if self.best else None

    @property
    def best_peak_lr_interval(self) -> Interval | None:
        """Of the optimum; an end beyond the rates tried is infinite."""
        if self.curve is None or (self.curve.edge is not None and not self.curve.from_surface):
            return None
        return self.curve.interval

    @property
    def best_peak_lr_bounds(self) -> Interval | None:
        """The interval where both of its ends lie inside the rates tried."""
        interval = self.best_peak_lr_interval
        return interval if interval and all(map(math.isfinite, interval)) else None


def seeds_alike(replicates: Sequence[TrialRow]) -> bool:
    """Whether several seeds of a recipe have the same validation loss to the last digit."""
    known = [row.validation_loss for row in replicates if row.validation_loss is not None]
    return len(known) > 1 and len(set(known)) == 1


def label(values: Mapping[str, Any]) -> str:
    """Names and values in words, as in `optimizer sgd, clip_norm null`."""
    return ", ".join(
        f"{name} {'null' if value is None else value}" for name, value in values.items()
    )


def cell_results(
    sweep: Sweep, reading: SurfaceReading | None = None, steps: FittedSurface | None = None
) -> tuple[CellResult, ...]:
    """Every cell of a sweep, in its order.

    A best rate and its interval are those of the basin that all cells share, where one fits, has
    an interval and is not contradicted by the surface; else those of the surface, and always
    where the surface chose the trials.

    Args:
        sweep: The sweep.
        reading: Of the surface of losses, by which best rates and regrets are read.
        steps: The surface of steps to the target, by which the recipe for the target is picked.
    """
    searches = [sweep.steady_search(cell) for cell in sweep.cells]
    curves: list[LrCurve | None] = [None] * len(searches)
    if not sweep.is_joint:
        curves = lr_curves(searches, sweep.loss_noise)
        if 2 * sum(curve is not None for curve in curves) < len(curves):
            curves = [None] * len(searches)  # sampled batch sizes: few have a basin, by chance
    if reading is not None:
        curves = reading.curves(searches, curves)
    reasons = undertuned_reasons(searches, curves, _objective_noise(sweep))
    bests = reading.bests if reading is not None else [None] * len(searches)
    if reading is not None and sweep.is_adaptive:
        # Regret is counted inside the rates tried, so that it says nothing of a range too short.
        reasons = [
            edge_reasons(curve) + _REGRET * sweep.small_regret.is_passed(best)
            for curve, best in zip(curves, reading.bests, strict=True)
        ]
    return tuple(
        _cell_result(sweep, place, curve, undertuned, best, steps)
        for place, (curve, undertuned, best) in enumerate(zip(curves, reasons, bests, strict=True))
    )


def _cell_result(
    sweep: Sweep,
    place: int,
    curve: LrCurve | None,
    undertuned: tuple[Undertuned, ...],
    surface_best: CellBest | None,
    steps: FittedSurface | None,
) -> CellResult:
    cell = sweep.cells[place]
    search, confirm = sweep.rows_of(cell, "search"), sweep.rows_of(cell, "confirm")
    tuned = best_recipe(search)
    replicates = tuple(row for row in (confirm or tuned) if row.ended)
    held_out: HeldOut = "validation_loss"
    if confirm and any(row.test_loss is not None for row in replicates):
        held_out = "test_loss"
    seeds = {row.seed for row in replicates if row.seed is not None}
    best = next(iter(replicates or tuned), None)
    any_row = best or next(iter(search), None)
    shared = not sweep.is_joint or best is not None
    least = sweep.least_loss
    losses = {split: loss_estimate(replicates, split, least) for split in SPLITS}
    if not confirm:
        losses["test_loss"] = ABSENT
    if seeds_alike(replicates):  # no noise was seen, which is not that there is none
        losses = {split: replace(loss, interval=None) for split, loss in losses.items()}
    gap, noise_scale = gap_estimate(replicates, held_out), _noise_scale(replicates)
    target = ToTarget()
    if sweep.has_target:
        joint = sweep.is_joint
        target = to_target(confirm, tuned) if joint else to_target_of(sweep, place, steps)
    own = {
        "generalization_gap": gap,
        "steps_to_target": target.steps,
        "examples_to_target": target.examples,
        "seconds_to_target": target.seconds,
        "grad_noise_scale": noise_scale,
    }
    whole = [row for row in replicates if row.status != "diverged"]
    others = {
        name: replace(metric, least=least) if metric.unit == "nats" else metric
        for name, metric in MEASURED.items()
        if metric.table and name not in losses | own
    }
    return CellResult(
        cell=cell,
        global_batch_size=any_row.global_batch_size if any_row and shared else None,
        num_trials=len(search),
        num_recipes=len({row.recipe_key for row in search}),
        num_seeds=len(seeds) if confirm or len(seeds) > 1 else 0,
        num_censored=sum(row.censored for row in search) if sweep.has_target else 0,
        num_diverged=sum(row.status == "diverged" for row in search),
        source="confirm" if confirm else "search",
        best=best,
        curve=curve,
        **losses,
        gap=gap,
        held_out=held_out,
        target=target,
        noise_scale=noise_scale,
        steps=_whole_run(replicates),
        undertuned=undertuned,
        surface_best=surface_best,
        replicates=replicates,
        metrics=of_task(sweep.metrics, [row.metrics for row in whole]),
        measured=losses | own | of_seeds(others, [row.measured for row in whole]),
    )


def _noise_scale(rows: Sequence[TrialRow]) -> Estimate:
    """The noise scale tr Σ / |G|² in examples, as a ratio of means over replicates."""
    pairs = [
        (row.grad_covariance_trace, row.grad_sq_norm)
        for row in rows
        if row.grad_covariance_trace is not None and row.grad_sq_norm is not None
    ]
    return ratio_of_means([trace for trace, _ in pairs], [square for _, square in pairs])


def _whole_run(rows: Sequence[TrialRow]) -> Estimate:
    """Steps of the longest replicate: their number is decided before the run."""
    steps = [row.steps for row in rows if row.steps is not None and row.status == "done"]
    return Estimate(max(steps), None, len(steps)) if steps else ABSENT


def _objective_noise(sweep: Sweep) -> float | None:
    """Standard deviation of the search's objective over seeds of one recipe, over all cells."""
    groups: list[dict[int, float]] = []
    for cell in sweep.cells:
        rows = sweep.rows_of(cell, "confirm")
        seeds = (-place if row.seed is None else row.seed for place, row in enumerate(rows, 1))
        known = zip(seeds, (row.objective for row in rows), strict=True)
        groups.append({s: v for s, v in known if v is not None and not is_censored(v)})
    found = seed_variance(groups)
    return None if found is None else math.sqrt(found.variance)
