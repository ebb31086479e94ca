"""Which recipe's steps to the target count: the one tuned for them, not for the final loss.

Shallue et al. 2018 (arXiv:1811.03600) and McCandlish et al. 2018 (arXiv:1812.06162) tune each
batch size for the steps to the target; the best rate for the loss at the end is another one.
"""

from dataclasses import dataclass, replace

from scaling.analysis.critical_batch.targets import ToTarget, of_recipe, to_target
from scaling.analysis.learning_rate.fitted_surface import FittedSurface, fitted_surface
from scaling.analysis.trial_rows import Cell, Sweep, TrialRow
from scaling.records.objective import VALIDATION_LOSS

_AS_GOOD = 0.05
"""Share above the fewest expected steps up to which a recipe is as good."""
_PREFERENCE = {"confirm_target": 0, "confirm": 1}
"""Of recipes that are as good."""
_SURE = 0.975
"""Chance from which on the surface is sure that a recipe is not as good as another. It chooses
between the fastest of many trials, which was also lucky, and new seeds, which were not."""


def surface_of_steps(sweep: Sweep) -> FittedSurface | None:
    """The surface of steps to the target through the trials of all cells and phases.

    A trial that missed the target takes more steps than it ran. One that diverged, or was stopped,
    counts as the longest run of its cell that ran to its end; where none did, it counts as worse
    than all that reached the target.

    Returns:
        None without a target, in a joint search, or with fewer than six search trials that
        reached it.
    """
    if not sweep.has_target or sweep.is_joint:
        return None
    rows = tuple(_with_steps(row) for row in sweep.rows)
    by_steps = replace(sweep, rows=rows, tuned_for=VALIDATION_LOSS, metrics={}, rules=())
    searches = [by_steps.rows_of(cell, "search") for cell in sweep.cells]
    return fitted_surface(by_steps, searches, is_steps=True)


def _with_steps(row: TrialRow) -> TrialRow:
    """A row whose loss is its steps to the target; none of a run that missed it."""
    status = row.status
    if row.ended and row.steps_to_target is not None:
        status = "done"
    elif row.ended and status != "done":
        status = "diverged"
    return replace(
        row, validation_loss=row.steps_to_target, tuned_for=VALIDATION_LOSS, status=status
    )


@dataclass(frozen=True)
class _Candidate:
    """A recipe that was run: one of its runs, what all took, and its steps by the surface."""

    run: TrialRow
    reached: ToTarget
    expected: float

    @property
    def is_known(self) -> bool:
        """Whether its steps are, and not only what they are above."""
        return self.reached.steps.value is not None

    @property
    def order(self) -> tuple[int, float]:
        """Rises from the one to take first, of recipes that are as good."""
        return _PREFERENCE.get(self.run.phase, 2), self.expected


def to_target_of(sweep: Sweep, place: int, surface: FittedSurface | None) -> ToTarget:
    """What the recipe of one cell took that counts as the fastest.

    The trials of every phase that lie on the axes compete. Runs after the search have seeds that
    chose nothing, so one of their recipes is taken unless the surface is sure, at 97.5%, that a
    search trial's is faster by more than 5%: among many trials the fastest was also lucky. Of
    recipes with such seeds that are as good within 5% the one that was confirmed for the target
    is taken, which the search alone chose, or else the one for the loss: a row of one recipe.
    One whose steps are not known, as its seeds missed the target, comes after those, and still
    before a search trial that is not surely faster; then only what they are above is known.

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
    candidates: list[_Candidate] = []
    for rows in _recipes(sweep, cell, surface):
        is_new = rows[0].phase != "search"
        expected = surface.expected(place, rows[0])
        reached = to_target(rows, ()) if is_new else of_recipe(rows)
        if expected is not None and (is_new or reached.steps.value is not None):
            candidates.append(_Candidate(rows[0], reached, expected))
    if not any(candidate.is_known for candidate in candidates):
        return usual
    fastest = min((c for c in candidates if c.is_known), key=lambda c: c.expected)
    new = [c for c in candidates if c.run.phase != "search"]
    slower = surface.chance_above(place, fastest.run, [c.run for c in new], _AS_GOOD)
    new = [c for c, chance in zip(new, slower, strict=True) if chance < _SURE]
    new = [c for c in new if c.is_known] or new
    chosen = fastest
    if new:
        least = min(c.expected for c in new)
        good = [c for c in new if c.expected <= least + abs(least) * _AS_GOOD]
        chosen = min(good, key=lambda c: c.order)
    return replace(chosen.reached, best_tuned=usual.best_tuned)


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
