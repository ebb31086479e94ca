"""Why a large batch ends with another held-out loss: fewer updates, or the batch itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scaling.analysis.cell_results import CellResult
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate, mean_estimate
from scaling.analysis.trial_rows import TrialRow

Curve = Sequence[tuple[float, float]]
NoParts = Literal[
    "seed_diverged", "no_common_seed", "longer_than_reference", "before_first_evaluation"
]
"""A seed of one of the two cells diverged; no seed that both cells have losses along the run of; a
run of more steps than the reference's; so few steps that the reference was not yet evaluated."""


@dataclass(frozen=True)
class LossParts:
    """Held-out loss at the end of the budget, over that of the reference batch.

    All in nats of validation loss, paired by seed: total = at_equal_steps + fewer_updates.

    Attributes:
        reference_batch_size: What it is compared with.
        total: Loss at this cell's end − loss at the reference's end.
        at_equal_steps: Loss at this cell's end − the reference's loss after as many steps: what
            the batch costs or gains at equal updates, with its own recipe.
        fewer_updates: The reference's loss after as many steps − its loss at its end: what
            stopping at so many updates costs, at the reference batch.
        num_steps: Of this cell at its end, at most those of the reference.
        missing: Why it is absent; None when it is not.
    """

    global_batch_size: int
    reference_batch_size: int
    total: Estimate = ABSENT
    at_equal_steps: Estimate = ABSENT
    fewer_updates: Estimate = ABSENT
    num_steps: float | None = None
    missing: NoParts | None = None


def reference_cell(cells: Sequence[CellResult], base_batch_size: int | None) -> CellResult | None:
    """The base batch's cell, without one the smallest batch that has replicates."""
    sized = [cell for cell in cells if cell.global_batch_size is not None and cell.replicates]
    base = [cell for cell in sized if cell.global_batch_size == base_batch_size]
    return min(base or sized, key=lambda cell: cell.global_batch_size or 0, default=None)


def loss_parts(
    cells: Sequence[CellResult], base_batch_size: int | None = None
) -> tuple[LossParts, ...]:
    """The parts of every cell with a larger batch than the reference's.

    The reference's loss between evaluations is interpolated in steps, in the logarithm of the
    loss. Intervals are Student's t over paired seeds; all seeds are evaluated on the same
    examples, so the error of evaluating on a sample largely cancels and is not in them.

    Source: equal steps, epochs and losses, Shallue et al. 2018 (arXiv:1811.03600) sec. 5.
    """
    reference = reference_cell(cells, base_batch_size)
    if reference is None or reference.global_batch_size is None:
        return ()
    size = reference.global_batch_size
    larger = [c for c in cells if c.global_batch_size is not None and c.global_batch_size > size]
    return tuple(_parts(cell, reference, size) for cell in larger)


def _parts(cell: CellResult, reference: CellResult, size: int) -> LossParts:
    empty = LossParts(cell.global_batch_size or 0, size)
    if cell.has_diverged_seed or reference.has_diverged_seed:
        return replace(empty, missing="seed_diverged")
    ours, theirs = _by_seed(cell.replicates), _by_seed(reference.replicates)
    pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
    if not pairs:
        return replace(empty, missing="no_common_seed")
    if any(large[-1][0] > small[-1][0] for large, small in pairs):
        return replace(empty, missing="longer_than_reference")
    if any(large[-1][0] < small[0][0] for large, small in pairs):
        return replace(empty, missing="before_first_evaluation")
    ends = [(large[-1][1], loss_after(small, large[-1][0]), small[-1][1]) for large, small in pairs]
    return LossParts(
        empty.global_batch_size,
        size,
        total=mean_estimate([end - base for end, _, base in ends]),
        at_equal_steps=mean_estimate([end - equal for end, equal, _ in ends]),
        fewer_updates=mean_estimate([equal - base for _, equal, base in ends]),
        num_steps=max(large[-1][0] for large, _ in pairs),
    )


def _by_seed(rows: Sequence[TrialRow]) -> dict[int | None, Curve]:
    """(steps, validation loss) of each seed's run that ended well."""
    curves = {
        row.seed: [
            (float(m.step), m.validation_loss)
            for m in row.measurements
            if m.validation_loss is not None
        ]
        for row in rows
        if row.status == "done"
    }
    return {seed: curve for seed, curve in curves.items() if curve}


def loss_after(curve: Curve, step: float) -> float:
    """A loss after some steps, in log loss between evaluations; the curve must span them."""
    before = curve[0]
    for after in curve:
        if after[0] >= step:
            if after[0] == before[0]:
                return after[1]
            share = (step - before[0]) / (after[0] - before[0])
            if min(before[1], after[1]) <= 0:
                return before[1] + share * (after[1] - before[1])
            return math.exp(math.log(before[1]) * (1 - share) + math.log(after[1]) * share)
        before = after
    raise AssertionError("the curve ends before the step")
