"""Everything the report says, as numbers: one call from rows to findings."""

from dataclasses import dataclass

from scaling.analysis.branched import BranchedTraining, branched_training
from scaling.analysis.cells import CellResult, cell_results
from scaling.analysis.critical_batch import TradeoffFit, fit_tradeoff
from scaling.analysis.lr_scaling import lr_exponent_estimate
from scaling.analysis.matched_gap import MatchedGap, matched_gaps
from scaling.analysis.regret import Regret, regrets
from scaling.analysis.rows import Sweep
from scaling.analysis.uncertainty import ABSENT, Estimate


@dataclass(frozen=True)
class LrScaling:
    """best rate ∝ global_batch_size^exponent.

    Attributes:
        exponent: Over the cells whose optimum lies inside the rates tried.
        batch_sizes: Of those cells.
        note: Why the exponent or its interval is missing; empty when neither is.
    """

    exponent: Estimate
    batch_sizes: tuple[int, ...]
    note: str = ""


@dataclass(frozen=True)
class NoiseScale:
    """The gradient noise scale of one cell, as a critical batch size.

    Attributes:
        estimate: In examples.
        global_batch_size: Of the cell it was measured in; None when it was not.
    """

    estimate: Estimate
    global_batch_size: int | None


@dataclass(frozen=True)
class Findings:
    """What a sweep shows, with intervals.

    Attributes:
        one_series: True when the cells differ in nothing but the batch size, so that a fit over
            batch sizes means something.
    """

    sweep: Sweep
    cells: tuple[CellResult, ...]
    one_series: bool
    lr_scaling: LrScaling
    tradeoff: TradeoffFit
    noise_scale: NoiseScale
    regrets: tuple[Regret, ...]
    matched_gaps: tuple[MatchedGap, ...]
    branched: BranchedTraining

    @property
    def num_search(self) -> int:
        """Search trials of the whole study."""
        return sum(cell.num_trials for cell in self.cells)

    @property
    def num_seeds(self) -> int:
        """Most seeds that any cell was confirmed with."""
        return max((cell.num_seeds for cell in self.cells), default=0)

    def count(self, status: str) -> int:
        """Trials of all phases that ended so."""
        return sum(row.status == status for row in self.sweep.rows)


def analyse(sweep: Sweep) -> Findings:
    """All findings of a sweep; what the data do not allow is absent, never guessed."""
    cells = cell_results(sweep)
    one_series = not sweep.is_joint and all(
        cell.series == "" and cell.global_batch_size is not None for cell in cells
    )
    return Findings(
        sweep=sweep,
        cells=cells,
        one_series=one_series,
        lr_scaling=_lr_scaling(cells, one_series),
        tradeoff=_tradeoff(cells, one_series),
        noise_scale=_noise_scale(sweep, cells, one_series),
        regrets=regrets(sweep),
        matched_gaps=matched_gaps(cells),
        branched=branched_training(sweep),
    )


def _lr_scaling(cells: tuple[CellResult, ...], one_series: bool) -> LrScaling:
    if not one_series:
        return LrScaling(ABSENT, (), "cells differ in more than the batch size")
    if not any(cell.curve for cell in cells):
        return LrScaling(ABSENT, (), "no cell tried three learning rates or more")
    bracketed: list[tuple[int, float]] = []
    for cell in cells:
        best = cell.best_peak_lr
        if cell.curve and cell.curve.edge is None and cell.global_batch_size and best:
            bracketed.append((cell.global_batch_size, best))
    sizes = tuple(size for size, _ in bracketed)
    exponent = lr_exponent_estimate(sizes, [best for _, best in bracketed])
    note = ""
    if exponent.interval is None:
        note = f"{len(sizes)} of {len(cells)} batch sizes have their best rate inside those tried"
    return LrScaling(exponent, sizes, note)


def _tradeoff(cells: tuple[CellResult, ...], one_series: bool) -> TradeoffFit:
    if not one_series:
        return TradeoffFit(note="cells differ in more than the batch size")
    sizes: list[int] = []
    steps: list[float] = []
    for cell in cells:
        if cell.global_batch_size is not None and cell.target.steps.value:
            sizes.append(cell.global_batch_size)
            steps.append(cell.target.steps.value)
    return fit_tradeoff(sizes, steps)


def _noise_scale(sweep: Sweep, cells: tuple[CellResult, ...], one_series: bool) -> NoiseScale:
    """At the base batch of the transfer, else at the middle one."""
    if not one_series or not cells:
        return NoiseScale(ABSENT, None)
    ordered = sorted(cells, key=lambda cell: cell.global_batch_size or 0)
    middle = ordered[(len(ordered) - 1) // 2]
    base = [cell for cell in cells if cell.global_batch_size == sweep.base_batch_size]
    chosen = base[0] if base else middle
    measured = chosen.noise_scale.value is not None
    return NoiseScale(chosen.noise_scale, chosen.global_batch_size if measured else None)
