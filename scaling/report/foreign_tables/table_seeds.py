"""Rows that differ in their seed alone: which of them are no replicates of each other."""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scaling.analysis.trial_rows import TrialRow
from scaling.report.foreign_tables.table_trial import without_losses
from scaling.report.words.numbers import counted, joined, number, rate

_FAR = 20.0
"""Standard deviations of the other seeds beyond which one is no part of their scatter."""
_ALIKE = 4.0
"""Standard deviations that the other seeds of its recipe may differ by; more is unstable."""
_LEARNED, _NEAR_TOP = 0.25, 0.7
"""Shares of the way from the table's best to its worst up to which something was learned, and
from which on nothing was."""
_LEAST_NOISE = 1e-3
"""Of a loss, between seeds."""
_MOST_NAMED = 5


@dataclass(frozen=True)
class Separated:
    """A table's rows, with those apart that are no replicates, and what is said of them."""

    rows: Sequence[TrialRow]
    notes: tuple[str, ...] = ()


def with_retyped_rates(rows: Sequence[TrialRow]) -> Separated:
    """A run joins the seeds that repeat its recipe at its rate as a report shows it.

    Who repeats a recipe types the rate from the report, 0.00031, where the sweep had 0.0003122.
    A run whose seed is among the repeated ones stays apart, and of two with one seed the one whose
    rate is further away.
    """
    recipes: dict[str, list[TrialRow]] = {}
    for row in rows:
        if row.seed is not None and row.peak_lr is not None:
            recipes.setdefault(row.recipe_key, []).append(row)
    repeated = {
        _but_for_rate(group[0]): group
        for group in recipes.values()
        if len(group) > 1 and rate(group[0].peak_lr) == f"{group[0].peak_lr:g}"
    }
    nearest: dict[tuple[str, int | None], tuple[float, TrialRow]] = {}
    for group in recipes.values():
        row, others = group[0], repeated.get(_but_for_rate(group[0]), [])
        if len(group) == 1 and others and row.seed not in {other.seed for other in others}:
            recipe_and_seed, away = (others[0].recipe_key, row.seed), _apart(row, others[0])
            if recipe_and_seed not in nearest or away < nearest[recipe_and_seed][0]:
                nearest[recipe_and_seed] = away, row
    moved = {r.trial_id: replace(r, recipe_key=key) for (key, _), (_, r) in nearest.items()}
    if not moved:
        return Separated(rows)
    verb = "counts as a seed" if len(moved) == 1 else "count as seeds"
    note = (
        f"{counted(len(moved), 'run')} {verb} of a recipe that was repeated at the same rate, "
        "rounded as reports show it."
    )
    return Separated([moved.get(row.trial_id, row) for row in rows], (note,))


def _apart(a: TrialRow, b: TrialRow) -> float:
    assert a.peak_lr is not None
    assert b.peak_lr is not None
    return abs(math.log(a.peak_lr / b.peak_lr))


def _but_for_rate(row: TrialRow) -> tuple[object, ...]:
    """What rows of one recipe share, with the rate as a report shows it."""
    choices = [value for name, value in row.choices.items() if name != "peak_lr"]
    parts = (*row.cell.values(), row.warmup_steps, row.clip_norm, *choices)
    return (rate(row.peak_lr), *map(str, parts))


def without_stuck(rows: Sequence[TrialRow]) -> Separated:
    """Seeds that stayed where they began, beside others of their recipe that learned: they failed.

    Such a seed is far from all others of its recipe, which agree with each other, and about as
    bad as the worst trial of the table. Fewer than half of a recipe's seeds can be stuck, or one
    of two; where more are, the recipe does not learn. Of one that is stuck in one of two the other
    is no result by itself. Where seeds are stuck at one rate at several batch sizes, among other
    rates, it is the rate that does not learn: they diverged.
    """
    recipes: dict[str, list[TrialRow]] = {}
    for row in rows:
        if row.seed is not None and row.status == "done" and row.cost is not None:
            recipes.setdefault(row.recipe_key, []).append(row)
    groups = [sorted(group, key=_cost) for group in recipes.values() if len(group) > 1]
    if not groups:
        return Separated(rows)
    costs = [row.cost for row in rows if row.cost is not None and row.status == "done"]
    best, worst = min(costs), max(costs)
    spreads = [statistics.pstdev(map(_cost, g[:-1] if len(g) > 2 else g)) for g in groups]
    noise = max(statistics.median(spreads), _LEAST_NOISE * abs(best))
    stuck: dict[str, tuple[TrialRow, Sequence[TrialRow]]] = {}
    notes: list[str] = []
    for group in groups:
        for count in range(1, max((len(group) - 1) // 2, 1) + 1):
            kept, left = group[:-count], group[-count:]
            away = _cost(left[0]) - _cost(kept[-1])
            learned = _cost(kept[-1]) - best <= _LEARNED * (worst - best)
            is_bad = _cost(left[0]) - best >= _NEAR_TOP * (worst - best)
            if not is_bad:
                break  # the others of this recipe are better still
            if not (learned and away > _FAR * noise):
                continue
            if statistics.pstdev(map(_cost, kept)) <= _ALIKE * noise:
                stuck |= {row.trial_id: (row, kept) for row in left}
                break
    if not stuck:
        return Separated(rows)
    rates = {row.peak_lr for row in rows}
    batches = {(row.peak_lr, row.global_batch_size) for row, _ in stuck.values()}
    at_rate = Counter(rate for rate, _ in batches) if len(rates) > 1 else Counter[float | None]()
    found: dict[str, TrialRow] = {}
    said: dict[str, list[str]] = {}
    for name, (row, kept) in stuck.items():
        diverged = at_rate[row.peak_lr] > 1
        error = _stayed(row, kept)
        key = row.recipe_key if diverged or (len(kept) == 1 and len(rates) > 1) else name
        lost = replace(row, status="diverged" if diverged else "failed", recipe_key=key, metrics={})
        lost = replace(lost, error=None if diverged else error)
        found[name] = without_losses(lost, keeps_target=False)
        start = "Counted as diverged, stuck at one rate at several batch sizes"
        said.setdefault(start if diverged else "Set aside as failed", []).append(error)
    for start, named in said.items():
        more = f"; and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
        count = counted(len(named), "run")
        notes.append(f"{start}: {count}: {'; '.join(named[:_MOST_NAMED])}{more}.")
    return Separated([found.get(row.trial_id, row) for row in rows], tuple(notes))


def _cost(row: TrialRow) -> float:
    assert row.cost is not None
    return row.cost


def _stayed(row: TrialRow, others: Sequence[TrialRow]) -> str:
    beside = joined([number(other.tuned_value) for other in others[:3]], "and")
    return (
        f"{row.trial_id.replace('-', ' ')} ({row.global_batch_size:,} at {rate(row.peak_lr)}, seed "
        f"{row.seed}) stayed at {number(row.tuned_value)} beside {beside} of its recipe's other "
        "seeds"
    )


def apart_where_mixed(rows: Sequence[TrialRow]) -> Separated:
    """Rows of a recipe that has a seed twice get a recipe each.

    Such a seed shows that something else differs, which the table's columns that are read do not
    tell: then no mean over such rows means anything.
    """
    seen: set[tuple[str, int]] = set()
    mixed: set[str] = set()
    for row in rows:
        if row.seed is not None:
            pair = (row.recipe_key, row.seed)
            if pair in seen:
                mixed.add(row.recipe_key)
            seen.add(pair)
    if not mixed:
        return Separated(rows)
    count = counted(sum(row.recipe_key in mixed for row in rows), "row")
    apart = [replace(r, recipe_key=r.trial_id) if r.recipe_key in mixed else r for r in rows]
    note = (
        f"{count} have batch, rate and seed in common with another one, so that something else "
        "differs: each counts as a recipe of its own (--nuisance COLUMN names what was varied)."
    )
    return Separated(apart, (note,))
