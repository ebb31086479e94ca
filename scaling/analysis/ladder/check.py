"""Whether a prediction is the bottom: the size trained at it, and around it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.special import stdtr  # pyright: ignore -- scipy ships no types

from scaling.analysis.statistics.uncertainty import (
    TAILS,
    Estimate,
    bounded,
    holm,
    mean_estimate,
    t_quantile,
)
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.metrics import Unit

_FAR = 1.9
"""Octaves. Half and twice a batch or rate are two apart; the prediction is about one from both."""


@dataclass(frozen=True)
class CheckedRecipe:
    """One recipe of a check.

    Attributes:
        loss: At the end, over seeds; no value where a seed diverged.
        excess: Its loss less the prediction's, over seeds that both have; no value where a seed
            of either diverged.
        num_seeds: That ended, those that diverged included.
    """

    global_batch_size: int
    peak_lr: float
    is_prediction: bool
    loss: Estimate
    excess: Estimate
    num_seeds: int
    num_diverged: int


@dataclass(frozen=True)
class LadderCheck:
    """The recipes of a check, the prediction first, where it has been run.

    Attributes:
        scale: The size that was kept out of the search.
    """

    scale: Mapping[str, float]
    recipes: tuple[CheckedRecipe, ...]
    loss_unit: Unit = "nats"

    @property
    def lower(self) -> tuple[CheckedRecipe, ...]:
        """Recipes that are lower than the prediction, all comparisons taken together (Holm 1979).

        Of four equal recipes one's own interval leaves out 0, below it, in 15% of checks.
        """
        compared = [recipe for recipe in self.recipes if recipe.excess.interval is not None]
        together = holm([_chance(recipe.excess) for recipe in compared])
        return tuple(
            recipe for recipe, chance in zip(compared, together, strict=True) if chance < TAILS[0]
        )


def check_of(sweep: Sweep) -> LadderCheck | None:
    """What the check came to; None where none has been run."""
    rows = [row for row in sweep.rows if row.phase == "check" and row.peak_lr]
    if not rows:
        return None
    groups: dict[tuple[int, float], list[TrialRow]] = {}
    for row in rows:
        groups.setdefault((row.global_batch_size, row.peak_lr or 0.0), []).append(row)
    # Around the prediction are twice and half of its batch and rate. Where two recipes alone were
    # run, either could be it; the lower one is, since twice is run before half.
    middle = next(
        (key for key in sorted(groups) if all(_are_beside(key, other) for other in groups)), None
    )
    keys = sorted(groups, key=lambda key: (key != middle, key))
    at_prediction: dict[int | None, float] = {}
    if middle and not any(row.status == "diverged" for row in groups[middle]):
        at_prediction = _losses(groups[middle])
    scale = {n: v for n, v in rows[0].cell.items() if n != "global_batch_size"}
    return LadderCheck(
        scale,
        tuple(
            _recipe(key, groups[key], at_prediction, key == middle, sweep.least_loss)
            for key in keys
        ),
        sweep.loss_unit,
    )


def _are_beside(key: tuple[int, float], other: tuple[int, float]) -> bool:
    """Whether recipes of a check have the batch or the rate in common, and the other nearly."""
    octaves = sorted(abs(math.log2(a / b)) for a, b in zip(key, other, strict=True))
    return octaves[0] == 0 and octaves[1] < _FAR


def _recipe(
    key: tuple[int, float],
    rows: Sequence[TrialRow],
    at_prediction: Mapping[int | None, float],
    is_prediction: bool,
    least: float | None,
) -> CheckedRecipe:
    losses = _losses(rows)
    diverged = sum(row.status == "diverged" for row in rows)
    both = [losses[seed] - at_prediction[seed] for seed in losses if seed in at_prediction]
    return CheckedRecipe(
        *key,
        is_prediction=is_prediction,
        loss=bounded(mean_estimate(list(losses.values())), least) if not diverged else Estimate(),
        excess=mean_estimate(both) if not diverged and not is_prediction else Estimate(),
        num_seeds=len(losses) + diverged,
        num_diverged=diverged,
    )


def _losses(rows: Sequence[TrialRow]) -> dict[int | None, float]:
    """By seed, of those that ended with one."""
    return {row.seed: row.validation_loss for row in rows if row.validation_loss is not None}


def _chance(excess: Estimate) -> float:
    """One-sided p-value of a mean over seeds that is no lower than 0, from Student's interval."""
    assert excess.value is not None
    assert excess.interval is not None
    error = (excess.interval[1] - excess.value) / t_quantile(excess.count - 1)
    if error == 0:
        return 1.0 if excess.value >= 0 else 0.0
    return float(stdtr(excess.count - 1, excess.value / error))  # pyright: ignore -- untyped
