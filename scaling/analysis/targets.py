"""Steps, examples and seconds to the target, and which trials they are taken from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scaling.analysis.rows import TrialRow
from scaling.analysis.uncertainty import ABSENT, Estimate, mean_estimate

Measure = Literal["steps_to_target", "examples_to_target", "seconds_to_target"]


@dataclass(frozen=True)
class ToTarget:
    """What one cell took to reach the target.

    Attributes:
        steps: Optimizer steps; no value when a replicate never reached the target, since a mean
            over those that did would flatter the cell.
        examples: Training examples seen.
        seconds: Seconds of training.
        num_reached: Replicates that reached it.
        trials: The replicates that ended, all with one recipe where it was reached.
    """

    steps: Estimate = ABSENT
    examples: Estimate = ABSENT
    seconds: Estimate = ABSENT
    num_reached: int = 0
    trials: tuple[TrialRow, ...] = ()


def to_target(confirm: Sequence[TrialRow], search: Sequence[TrialRow]) -> ToTarget:
    """Mean over the confirm replicates; without any, the search's fastest recipe.

    Source: for the fastest of the tuned trials, Shallue et al. 2018 (arXiv:1811.03600) sec. 3.
    """
    rows = tuple(row for row in (confirm or fastest(search)) if row.ended)
    reached = [row for row in rows if row.steps_to_target is not None]
    if not rows or len(reached) < len(rows):
        return ToTarget(num_reached=len(reached), trials=rows)
    return ToTarget(
        steps=_mean(reached, "steps_to_target"),
        examples=_mean(reached, "examples_to_target"),
        seconds=_mean(reached, "seconds_to_target"),
        num_reached=len(reached),
        trials=rows,
    )


def fastest(search: Sequence[TrialRow]) -> tuple[TrialRow, ...]:
    """The replicates of the recipe that reaches the target in the fewest steps on average.

    Recipes of which a replicate never reached it come after all that always did; when no recipe
    did, the result is every trial.
    """
    best: tuple[float, tuple[TrialRow, ...]] | None = None
    for rows in by_recipe(search):
        steps = [row.steps_to_target for row in rows if row.steps_to_target is not None]
        if len(steps) == len(rows) and (best is None or sum(steps) / len(steps) < best[0]):
            best = (sum(steps) / len(steps), rows)
    return best[1] if best else tuple(search)


def by_recipe(rows: Sequence[TrialRow]) -> list[tuple[TrialRow, ...]]:
    """Rows grouped by recipe (they differ in the seed alone), in order of appearance."""
    groups: dict[str, list[TrialRow]] = {}
    for row in rows:
        groups.setdefault(row.recipe_key, []).append(row)
    return [tuple(group) for group in groups.values()]


def best_recipe(search: Sequence[TrialRow]) -> tuple[TrialRow, ...]:
    """The replicates of the recipe with the lowest mean objective; of equals the first.

    A recipe of which one replicate has no objective (it diverged or failed) is not eligible.
    """
    best: tuple[float, tuple[TrialRow, ...]] | None = None
    for rows in by_recipe(search):
        values = [row.objective for row in rows if row.objective is not None]
        if len(values) == len(rows) and (best is None or sum(values) / len(values) < best[0]):
            best = (sum(values) / len(values), rows)
    return best[1] if best else ()


def _mean(rows: Sequence[TrialRow], measure: Measure) -> Estimate:
    values: list[float] = [getattr(row, measure) for row in rows if getattr(row, measure)]
    return mean_estimate(values) if len(values) == len(rows) else ABSENT
