"""Which recipe's steps to the target count: the one tuned for them, not for the final loss.

Shallue et al. 2018 (arXiv:1811.03600) and McCandlish et al. 2018 (arXiv:1812.06162) tune each
batch size for the steps to the target; the best rate for the loss at the end is another one.
"""

from dataclasses import replace

from scaling.analysis.critical_batch.targets import ToTarget, of_recipe, to_target
from scaling.analysis.learning_rate.surface_reading import FittedSurface, fitted_surface
from scaling.analysis.trial_rows import Cell, Sweep, TrialRow
from scaling.records.objective import VALIDATION_LOSS

_AS_GOOD = 0.05
"""Share above the fewest expected steps up to which a recipe with seeds of its own is taken."""
_PREFERENCE = {"confirm_target": 0, "search": 2}
"""Of recipes that are as good; the phases that are not named come between."""


def surface_of_steps(sweep: Sweep) -> FittedSurface | None:
    """The surface of steps to the target through the trials of all cells and phases.

    A trial that missed the target, diverged or never ran so far lies above all that reached it.

    Returns:
        None without a target, in a joint search, or with fewer than six search trials that
        reached it.
    """
    if not sweep.has_target or sweep.is_joint:
        return None
    rows = tuple(_with_steps(row) for row in sweep.rows)
    by_steps = replace(sweep, rows=rows, tuned_for=VALIDATION_LOSS, metrics={}, rules=())
    return fitted_surface(by_steps, [by_steps.rows_of(cell, "search") for cell in sweep.cells])


def _with_steps(row: TrialRow) -> TrialRow:
    """A row whose loss is its steps to the target."""
    status = row.status
    if row.ended:
        status = "diverged" if row.steps_to_target is None else "done"
    return replace(
        row, validation_loss=row.steps_to_target, tuned_for=VALIDATION_LOSS, status=status
    )


def to_target_of(sweep: Sweep, place: int, surface: FittedSurface | None) -> ToTarget:
    """What the recipe of one cell took that the surface of steps expects to be the fastest.

    The trials of every phase that lie on the axes compete. Of recipes that are as good within 5%
    the one that was confirmed for the target is taken: the search alone chose it, and its seeds
    are new. Else it is another one after the search, whose seeds chose nothing.

    Args:
        sweep: The sweep.
        place: Index of the cell.
        surface: Of steps to the target; without one the recipe counts that was confirmed for the
            target, or for the loss, or the search's fastest.
    """
    cell = sweep.cells[place]
    confirm, search = sweep.rows_of(cell, "confirm"), sweep.rows_of(cell, "search")
    confirmed = sweep.rows_of(cell, "confirm_target")
    usual = to_target(confirmed or confirm, search)
    if surface is None:
        return usual
    ranked: list[tuple[float, int, list[TrialRow]]] = []
    for rows in _recipes(sweep, cell, surface):
        expected = surface.expected(place, rows[0])
        if expected is not None and all(row.steps_to_target is not None for row in rows):
            ranked.append((expected, _PREFERENCE.get(rows[0].phase, 1), rows))
    if not ranked:
        return usual
    least = min(expected for expected, _, _ in ranked)
    good = [entry for entry in ranked if entry[0] <= least + abs(least) * _AS_GOOD]
    chosen = min(good, key=lambda entry: (entry[1], entry[0]))[2]
    return replace(of_recipe(chosen), best_tuned=usual.best_tuned)


def _recipes(sweep: Sweep, cell: Cell, surface: FittedSurface) -> list[list[TrialRow]]:
    """The ended runs of each recipe of a cell, one a seed; those of the search apart."""
    groups: dict[tuple[str, bool], dict[object, TrialRow]] = {}
    for phase in ("search", "confirm_target", "confirm", "transfer"):
        for row in sweep.rows_of(cell, phase):
            recipe = surface.recipe(row)
            if recipe is not None and row.ended:
                seeds = groups.setdefault((recipe, phase == "search"), {})
                seeds.setdefault(row.trial_id if row.seed is None else row.seed, row)
    return [list(rows.values()) for rows in groups.values()]
