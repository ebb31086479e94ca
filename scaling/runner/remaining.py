"""What a study has still to run, from its study file and the trials that have ended."""

from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from scaling.analysis.learning_rate.beyond_range import rate_edge
from scaling.records.ledger import by_cell
from scaling.records.outcome import BestRecipe, best_trial, fastest_trial, left_over
from scaling.records.study import beaten_note
from scaling.records.trial import ENDED, Status, TrialRecord
from scaling.search.proposals import next_round
from scaling.space.branches import planned_branches
from scaling.space.cells import cell_name, cells
from scaling.space.extension import Edge, planned_extension
from scaling.space.ladder import planned_check
from scaling.space.layout import Facts
from scaling.space.rounds import Rounds, SurfaceRecipe, planned_rounds
from scaling.space.trials import (
    PlannedTrial,
    planned_point,
    planned_replicates,
    planned_search,
    with_own_ids,
)
from scaling.spec.checks.sizes import num_trials
from scaling.spec.phases import Phase
from scaling.spec.study import StudySpec

_SOUND_ENDS: tuple[Status, ...] = ("done", "stopped", "diverged")
LATER_ROUNDS = "later rounds, any cell"


@dataclass(frozen=True)
class Stage:
    """Trials that run together.

    Attributes:
        phases: Of the trials.
        planned: All of them.
        missing: Those that have not ended, or failed and run again.
        notes: How far a search by the surface is, or why another goes on beyond the range of the
            study file, a line a cell; trials that the study leaves out.
        rules_refused: What a rule could not carry: (rule, global_batch_size, why).
        rounds: Of a search by the surface, all that has been proposed, this stage included, and
            what it came to; to be kept before a trial of it starts.
    """

    phases: tuple[Phase, ...]
    planned: Sequence[PlannedTrial]
    missing: Sequence[PlannedTrial]
    notes: Sequence[str] = ()
    rules_refused: Sequence[tuple[str, int, str]] = ()
    rounds: Rounds | None = None


def stages(
    spec: StudySpec, records: Mapping[str, TrialRecord], facts: Facts, rounds: Rounds | None = None
) -> Iterator[Stage]:
    """The stages of a study in their order: the search, its rounds or extensions, what follows.

    Each follows from the records when it is asked for, so whoever runs trials runs those of a
    stage before asking for the next one. A resumed study plans the same.

    Args:
        spec: The study.
        records: Its trials so far.
        facts: Sizes of its data, and of trials' worker groups.
        rounds: What a search by the surface has proposed so far; None for another sampler.
    """
    how_it_ended: Sequence[str] = ()
    if rounds is None:
        yield from _search(spec, records, facts)
    else:
        how_it_ended, rounds = yield from _search_in_rounds(spec, records, facts, rounds)
    best = _best_recipes(spec, records, facts, rounds)
    for_target = _recipes_for_target(spec, records, facts, rounds, best)
    replicates, refused = planned_replicates(spec, best, facts, for_target)
    replicates += planned_branches(spec, best, facts)
    planned = with_own_ids(replicates, [*best, *for_target], records)
    if "check" in after_search(spec) and rounds is not None and rounds.prediction is not None:
        planned += planned_check(spec, rounds.prediction, facts)
    names = [*(recipe.name for recipe in (*best, *for_target)), *(t.recipe_of for t in planned)]
    left = left_over(list(records.values()), spec, facts.metrics, names)
    notes = [*how_it_ended, *beaten_note(left)]
    yield Stage(after_search(spec), planned, _missing(planned, records), notes, refused, rounds)


def after_search(spec: StudySpec) -> tuple[Phase, ...]:
    """The phases of a study that follow its search."""
    counts = num_trials(spec)
    order: tuple[Phase, ...] = ("transfer", "confirm", "confirm_target", "branch", "check")
    return tuple(phase for phase in order if phase in counts)


def _best_recipes(
    spec: StudySpec, records: Mapping[str, TrialRecord], facts: Facts, rounds: Rounds | None
) -> list[BestRecipe]:
    """What each cell's search has come to: what the surface recommends, else the best one tried."""
    recipes = rounds.end.recipes if rounds and rounds.end else ()
    tried = [best_trial(by_cell(records, cell), spec, facts.metrics) for cell in cells(spec)]
    return _of_cells(spec, facts, recipes, tried)


def _recipes_for_target(
    spec: StudySpec,
    records: Mapping[str, TrialRecord],
    facts: Facts,
    rounds: Rounds | None,
    best: Sequence[BestRecipe],
) -> list[BestRecipe]:
    """Each cell's recipe for the target, where it is confirmed and another than that for the loss.

    A cell of which no search trial reached the target has none.
    """
    if not spec.confirms_target:
        return []
    recipes = rounds.end.for_target if rounds and rounds.end else ()
    tried = [fastest_trial(by_cell(records, cell), spec) for cell in cells(spec)]
    if rounds is not None:
        tried = [None] * len(tried)
    for_loss = {cell_name(recipe.cell): dict(recipe.choices) for recipe in best}
    return [
        recipe
        for recipe in _of_cells(spec, facts, recipes, tried)
        if dict(recipe.choices) != for_loss.get(cell_name(recipe.cell))
    ]


def _of_cells(
    spec: StudySpec,
    facts: Facts,
    recipes: Sequence[SurfaceRecipe],
    tried: Sequence[TrialRecord | None],
) -> list[BestRecipe]:
    """By cell, what a surface recommends, else the trial that was tried; nothing without either."""
    recommended = {recipe.cell: recipe for recipe in recipes}
    found: list[BestRecipe] = []
    for cell, trial in zip(cells(spec), tried, strict=True):
        if (known := recommended.get(cell_name(cell))) is not None:
            recipe = planned_point(spec, cell, 0, known.choices, facts).recipe
            assert recipe is not None
            found.append(BestRecipe(known.name, cell, known.choices, recipe))
        elif trial is not None and spec.ladder is None:
            found.append(BestRecipe.of_trial(trial))
    return found


def _search_in_rounds(
    spec: StudySpec, records: Mapping[str, TrialRecord], facts: Facts, rounds: Rounds
) -> Generator[Stage, None, tuple[Sequence[str], Rounds]]:
    """Run what was proposed, then round by round what follows from it.

    Returns why it ended, and the rounds with what the search came to.

    A trial that failed runs again, and since proposals are kept, no later round becomes another
    one by that.
    """
    planned = [trial for trials in planned_rounds(spec, rounds, facts) for trial in trials]
    if planned:
        yield Stage(("search",), planned, _missing(planned, records), rounds=rounds)
    while True:
        following = next_round(spec, rounds.size, planned, records, facts)
        notes = [following.line] if following.line else []
        if not following.proposed:
            return notes, rounds.ended(
                following.best, following.num_trials, following.best_for_target, spec.target
            )
        rounds = rounds.followed_by(following.proposed)
        new = planned_rounds(spec, rounds, facts)[-1]
        planned += new
        yield Stage(("search",), new, _missing(new, records), notes, rounds=rounds)


def _search(spec: StudySpec, records: Mapping[str, TrialRecord], facts: Facts) -> Iterator[Stage]:
    """Search every cell, and where that is asked for beyond the ends that were too near."""
    edges: dict[str, tuple[Edge, ...]] = {}
    planned = planned_search(spec, facts)
    notes: list[str] = []
    for search_round in range(spec.search.extend_undertuned + 1):
        # What was decided by a trial that failed stays: the best recipe of a cell that has
        # replicates, and whether its range is extended.
        is_decided = any(
            record.phase != "search" or record.search_round > search_round
            for record in records.values()
        )
        ends = ENDED if is_decided else _SOUND_ENDS
        yield Stage(("search",), planned, _missing(planned, records, ends), notes)
        if search_round == spec.search.extend_undertuned:
            break
        planned, notes = _extension(spec, records, facts, edges, search_round)
        if not planned:
            break


def _missing(
    planned: Sequence[PlannedTrial],
    records: Mapping[str, TrialRecord],
    ends: tuple[Status, ...] = _SOUND_ENDS,
) -> list[PlannedTrial]:
    return [
        trial
        for trial in planned
        if trial.trial_id not in records or records[trial.trial_id].status not in ends
    ]


def _extension(
    spec: StudySpec,
    records: Mapping[str, TrialRecord],
    facts: Facts,
    edges: dict[str, tuple[Edge, ...]],
    search_round: int,
) -> tuple[list[PlannedTrial], list[str]]:
    """Trials beyond the range of each cell whose best rate is at its edge; adds to `edges`.

    It follows from the records of the rounds so far alone, so that a resumed study plans the same.
    """
    planned: list[PlannedTrial] = []
    notes: list[str] = []
    for cell in cells(spec):
        name = cell_name(cell)
        before = edges.get(name, ())
        so_far = [r for r in by_cell(records, cell) if r.search_round <= search_round]
        edge = rate_edge(so_far, spec, facts.metrics)
        if edge is None or len(before) < search_round:
            continue
        edges[name] = (*before, edge)
        trials = planned_extension(spec, cell, edges[name], facts)
        notes.append(
            f"{name}: its best rate is the {edge}est tried; {len(trials)} more trials beyond it"
        )
        planned += trials
    return planned, notes


@dataclass(frozen=True)
class Group:
    """Trials of one phase and cell: how many have ended, and how many are still to run."""

    phase: Phase
    cell: str
    num_ended: int
    num_to_run: int


@dataclass(frozen=True)
class Remaining:
    """What is left of a study.

    Attributes:
        groups: In the order in which they run.
        is_decided: Whether the search is over, so that it is known whose recipes are repeated.
        may_stop: Whether a search by the surface may end before all of its trials have run.
        num_timed: The ended trials that `seconds` is from.
        seconds: Of training all that is left one after the other; None where none has ended.
    """

    groups: tuple[Group, ...]
    is_decided: bool
    may_stop: bool
    num_timed: int
    seconds: float | None

    @property
    def num_to_run(self) -> int:
        """Trials of all groups."""
        return sum(group.num_to_run for group in self.groups)

    @property
    def num_ended(self) -> int:
        """Trials of all groups that need not run again."""
        return sum(group.num_ended for group in self.groups)


def remaining(
    spec: StudySpec, records: Mapping[str, TrialRecord], facts: Facts, rounds: Rounds | None = None
) -> Remaining:
    """What is left of a study by phase and cell, and how long it takes; arguments as `stages`.

    While the search is not over, the phases that follow are counted as the study file has them,
    and what was repeated of today's best recipes as done. Rounds that are not proposed yet are
    counted as if all trials of the search were run. A trial takes as long as the ended ones of its
    cell did; in a cell without one, as those of all cells in proportion to its examples.
    """
    ended, to_run = Counter[tuple[Phase, str]](), Counter[tuple[Phase, str]]()
    work: dict[str, float] = {}
    is_decided, num_later = True, 0
    for stage in stages(spec, records, facts, rounds):
        missing = {trial.trial_id for trial in stage.missing}
        for trial in stage.planned:
            group = trial.phase, cell_name(trial.cell)
            (to_run if trial.trial_id in missing else ended)[group] += 1
            work.setdefault(cell_name(trial.cell), trial.expected_work)
        if missing and stage.phases == ("search",):
            is_decided = False
            break
    if not is_decided and rounds is not None:
        num_later = max(0, spec.search.most_trials - ended.total() - to_run.total())
        to_run["search", LATER_ROUNDS] = num_later
        work[LATER_ROUNDS] = fmean(work.values())
    if not is_decided:
        current = Counter(_groups_of_best_recipes(records, spec, facts))
        for group, count in _replicates_of_cells(spec).items():
            ended[group] = min(current[group], count)
            to_run[group] = count - ended[group]
    timed = [
        (cell_name(record.cell), record.wall_seconds)
        for record in records.values()
        if record.wall_seconds is not None and record.status in _SOUND_ENDS
    ]
    return Remaining(
        groups=tuple(
            Group(*group, ended[group], to_run[group]) for group in dict.fromkeys((*ended, *to_run))
        ),
        is_decided=is_decided,
        may_stop=num_later > 0 and spec.search.stop is not None,
        num_timed=len(timed),
        seconds=_seconds(to_run, timed, work) if timed else None,
    )


def _groups_of_best_recipes(
    records: Mapping[str, TrialRecord], spec: StudySpec, facts: Facts
) -> Iterator[tuple[Phase, str]]:
    left = left_over(list(records.values()), spec, facts.metrics)
    beaten = {trial.trial_id for trial in left}
    for trial_id, record in records.items():
        if trial_id not in beaten and record.status in _SOUND_ENDS:
            yield record.phase, cell_name(record.cell)


def _replicates_of_cells(spec: StudySpec) -> dict[tuple[Phase, str], int]:
    """Trials of each phase after the search and cell, if every one has a best recipe."""
    counts: dict[tuple[Phase, str], int] = {}
    transfer, confirm, branch = spec.transfer, spec.confirm, spec.branch
    if transfer is not None:
        for batch in spec.batch_sizes():
            if batch != transfer.base_batch_size:
                name = cell_name({"global_batch_size": batch})
                counts["transfer", name] = len(transfer.rules) * transfer.num_seeds
    if spec.ladder is not None:
        all_sizes = num_trials(spec)
        where = {"confirm": "the largest size searched", "check": "the last size"}
        return {(p, where[p]): all_sizes[p] for p in after_search(spec) if p in where}
    if confirm is not None:
        phases: tuple[Phase, ...] = ("confirm", "confirm_target")
        counts |= {
            (phase, cell_name(cell)): confirm.num_seeds
            for phase in phases[: 1 + spec.confirms_target]
            for cell in cells(spec)
        }
    if branch is not None:
        name = cell_name({"global_batch_size": branch.base_batch_size})
        count = len(branch.starts) * len(branch.multiples) * branch.num_seeds
        counts["branch", name] = count
    return counts


def _seconds(
    to_run: Mapping[tuple[Phase, str], int],
    timed: Sequence[tuple[str, float]],
    work: Mapping[str, float],
) -> float:
    per_work = sum(seconds for _, seconds in timed) / sum(work.get(cell, 1.0) for cell, _ in timed)
    total = 0.0
    for (_, cell), count in to_run.items():
        own = [seconds for name, seconds in timed if name == cell]
        total += count * (fmean(own) if own else per_work * work.get(cell, 1.0))
    return total
