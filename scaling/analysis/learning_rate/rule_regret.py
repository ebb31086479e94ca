"""What it costs to carry a recipe by a rule instead of tuning it at the new batch size."""

from collections.abc import Sequence
from dataclasses import dataclass

from scaling.analysis.statistics.uncertainty import Interval, mean_estimate
from scaling.analysis.trial_rows import Sweep, TrialRow


@dataclass(frozen=True)
class Regret:
    """One rule at one batch size against the recipe tuned there.

    Attributes:
        regret: Mean over seeds of the loss by the rule minus the loss tuned, in nats; None when
            a seed diverged or nothing can be paired.
        interval: From the paired differences. The evaluation sample is the same on both sides
            and cancels for the most part, so it is not added.
        num_seeds: Seeds that are paired.
        diverged: True when a trial of the rule diverged.
        applicable: False when the rule defines no recipe at this batch size.
        split: Which loss was compared: test_loss, or validation_loss when there is no test.
    """

    rule: str
    global_batch_size: int
    regret: float | None = None
    interval: Interval | None = None
    num_seeds: int = 0
    diverged: bool = False
    applicable: bool = True
    split: str = "test_loss"


def regrets(sweep: Sweep) -> tuple[Regret, ...]:
    """Every rule at every batch size other than the one it carries from, in the study's order."""
    batches = sorted({row.global_batch_size for row in sweep.rows} | {b for _, b in sweep.refused})
    return tuple(
        _regret(sweep, rule, batch)
        for rule in sweep.rules
        for batch in batches
        if batch != sweep.base_batch_size
    )


def _regret(sweep: Sweep, rule: str, batch: int) -> Regret:
    rows = [r for r in sweep.rows if r.global_batch_size == batch]
    carried = [r for r in rows if r.phase == "transfer" and r.rule == rule]
    tuned = [r for r in rows if r.phase == "confirm"]
    if not carried:
        return Regret(rule, batch, applicable=(rule, batch) not in sweep.refused)
    if any(row.status == "diverged" for row in carried):
        return Regret(rule, batch, diverged=True)
    split = "test_loss"
    differences = _paired(carried, tuned, split)
    if not differences:
        split = "validation_loss"
        differences = _paired(carried, tuned, split)
    estimate = mean_estimate(differences)
    return Regret(
        rule, batch, estimate.value, estimate.interval, num_seeds=estimate.count, split=split
    )


def _paired(carried: Sequence[TrialRow], tuned: Sequence[TrialRow], split: str) -> list[float]:
    """Loss by the rule minus loss tuned, for each seed that has both."""
    losses: dict[int | None, float | None] = {row.seed: getattr(row, split) for row in tuned}
    differences: list[float] = []
    for row in carried:
        ours: float | None = getattr(row, split)
        theirs = losses.get(row.seed)
        if ours is not None and theirs is not None:
            differences.append(ours - theirs)
    return differences
