"""Cells that differ in nothing but the batch size, and what they say along it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scaling.analysis.cell_results import CellResult
from scaling.analysis.critical_batch.target_curves import TargetCurve, target_curves, tradeoff_of
from scaling.analysis.critical_batch.targets import ToTarget
from scaling.analysis.critical_batch.tradeoff import TradeoffFit
from scaling.analysis.learning_rate.exponent import (
    FEWEST_FOR_INTERVAL,
    BestRate,
    LrScaling,
    Turn,
    lr_scaling,
    why_no_interval,
)
from scaling.analysis.learning_rate.exponent_of_surface import by_surface
from scaling.analysis.learning_rate.fitted_surface import series_of
from scaling.analysis.learning_rate.rule_regret import RuleCurve
from scaling.analysis.learning_rate.surface_reading import BatchPath, SurfaceReading
from scaling.analysis.statistics.uncertainty import ABSENT
from scaling.analysis.trial_rows import Sweep
from scaling.surface.path import BestRates


@dataclass(frozen=True)
class Series:
    """What cells that differ in nothing but the batch size say along it.

    Attributes:
        others: Their values on the other scientific axes; empty in a study of batch sizes alone.
        cells: By rising batch size, or in the order of the study where that is all of it.
        reached: What each cell took to the target of `tradeoff`.
        tradeoff: At the study's target; in a study without one, at the lowest loss that every
            cell reached, which was chosen after the fact.
        tradeoff_target: The loss of it; None where it is not known.
        rule_curves: Of each rule between all pairs of batch sizes, by the surface.
        rate_band: The surface's best rates between the batch sizes.
    """

    others: Mapping[str, Any]
    lr_scaling: LrScaling
    tradeoff: TradeoffFit
    tradeoff_target: float | None
    cells: tuple[CellResult, ...] = ()
    target_curves: tuple[TargetCurve, ...] = ()
    reached: tuple[ToTarget, ...] = ()
    rule_curves: tuple[RuleCurve, ...] = ()
    rate_band: tuple[BestRate, ...] = ()

    @property
    def label(self) -> str:
        """What tells it from the other series, in words; empty where nothing does."""
        return self.cells[0].series if self.cells else ""


def all_series(
    sweep: Sweep, cells: Sequence[CellResult], reading: SurfaceReading | None
) -> tuple[Series, ...]:
    """Every series of a sweep; one of all cells where these are batch sizes and nothing else."""
    if all(set(cell.cell) == {"global_batch_size"} for cell in cells):
        orders = [list(range(len(cells)))]
    else:
        orders = series_of([cell.cell for cell in cells])
    return tuple(
        _read(
            sweep,
            tuple(cells[index] for index in order),
            reading.path(order[0]) if reading and order else None,
        )
        for order in orders
    )


def _read(sweep: Sweep, cells: tuple[CellResult, ...], path: BatchPath | None) -> Series:
    curves = target_curves(sweep, cells)
    reached, target = tuple(cell.target for cell in cells), sweep.target
    every = next((curve for curve in curves if curve.origin == "every cell's"), None)
    if not sweep.has_target and every is not None:
        reached, target = every.cells, every.target
    fit = tradeoff_of([cell.global_batch_size for cell in cells], reached)
    others = dict(cells[0].cell) if cells else {}
    others.pop("global_batch_size", None)
    return Series(
        others=others,
        cells=cells,
        lr_scaling=_lr_scaling(sweep, cells, path.rates if path else None),
        target_curves=curves,
        reached=reached,
        tradeoff=replace(fit, free=replace(fit.free, is_tuned=_is_tuned(sweep, cells))),
        tradeoff_target=target,
        rule_curves=path.rules if path else (),
        rate_band=path.band if path else (),
    )


def _lr_scaling(sweep: Sweep, cells: tuple[CellResult, ...], rates: BestRates | None) -> LrScaling:
    if not any(cell.curve for cell in cells):
        return LrScaling(ABSENT, missing="no_rates_searched")
    law = _power(sweep, cells)
    is_contradicted = any(cell.curve and cell.curve.is_contradicted for cell in cells)
    is_shared = law.has_common_shape and all(
        cell.curve.has_common_shape for cell in cells if cell.curve
    )
    is_refused = law.exponent.interval is None or not is_shared
    if rates is not None and (sweep.is_adaptive or is_contradicted or is_refused):
        law = replace(_bounded(by_surface(rates), cells), has_common_shape=is_shared)
    path = tuple(
        BestRate(cell.global_batch_size, cell.best_peak_lr, cell.best_peak_lr_interval)
        for cell in cells
        if cell.global_batch_size is not None
    )
    return replace(law, path=path, turns=_turn(rates))


def _turn(rates: BestRates | None) -> Turn:
    if rates is None:
        return Turn()
    found = rates.turn
    if found is None:
        return Turn(missing="few_batch_sizes")
    if rates.is_cut:
        return Turn(missing="best_at_edge")
    missing = "hardly_any" if found.at is None else None
    return Turn(found.at, found.interval, found.probability, missing, found.falls)


def _bounded(law: LrScaling, cells: tuple[CellResult, ...]) -> LrScaling:
    """The law of the surface, without a claim where its best rates lie beyond those tried.

    Best rates that are cut off at an end of the rates tried would all be the same, whatever they
    are: an interval needs as many inside as any other.
    """
    bounded = [cell for cell in cells if cell.best_peak_lr_bounds is not None]
    if law.exponent.interval is not None and len(bounded) >= FEWEST_FOR_INTERVAL:
        return law
    missing = why_no_interval(law, [cell.curve for cell in cells if cell.curve])
    exponent = replace(law.exponent, interval=None)
    if missing == "best_at_edge":
        exponent = replace(exponent, value=None)
    return replace(law, exponent=exponent, evidence=(), missing=missing)


def _power(sweep: Sweep, cells: tuple[CellResult, ...]) -> LrScaling:
    """The exponent from the cells whose best rate lies inside the rates of a common basin."""
    bracketed = [
        (cell.global_batch_size, cell.curve)
        for cell in cells
        if cell.curve and cell.curve.is_bracketed and cell.global_batch_size
    ]
    law = lr_scaling(
        [size for size, _ in bracketed], [curve for _, curve in bracketed], sweep.loss_noise
    )
    if law.exponent.interval is not None:
        return law
    return replace(law, missing=why_no_interval(law, [c.curve for c in cells if c.curve]))


def _is_tuned(sweep: Sweep, cells: Sequence[CellResult]) -> bool:
    """Whether half of the batch sizes or more tried several recipes, or rates are not known."""
    searches = [sweep.rows_of(cell.cell, "search") for cell in cells]
    if any(row.peak_lr is None for rows in searches for row in rows):
        return True  # the steps alone, as tuned elsewhere
    recipes = [
        {(row.peak_lr, *sorted(map(str, row.choices.items()))) for row in rows}
        for rows in searches
        if rows
    ]
    return 2 * sum(len(found) > 1 for found in recipes) >= len(recipes)
