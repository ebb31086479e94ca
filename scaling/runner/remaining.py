"""What a study has still to run, from its study file and the trials that have ended."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from scaling.analysis.learning_rate.beyond_range import rate_edge
from scaling.records.ledger import by_cell
from scaling.records.outcome import best_trial
from scaling.records.trial import ENDED, Phase, Status, TrialRecord
from scaling.space.branches import planned_branches
from scaling.space.cells import cell_name, cells
from scaling.space.extension import Edge, planned_extension
from scaling.space.recipe import Facts
from scaling.space.trials import PlannedTrial, planned_replicates, planned_search, with_own_ids
from scaling.spec.study import StudySpec

AFTER_SEARCH: tuple[Phase, ...] = ("transfer", "confirm", "branch")
_SOUND_ENDS: tuple[Status, ...] = ("done", "stopped", "diverged")


@dataclass(frozen=True)
class Stage:
    """Trials that run together.

    Attributes:
        phases: Of the trials.
        planned: All of them.
        missing: Those that have not ended, or failed and run again.
        notes: Why a search goes on beyond the range of the study file, a line a cell.
        rules_refused: What a rule could not carry: (rule, global_batch_size, why).
    """

    phases: tuple[Phase, ...]
    planned: Sequence[PlannedTrial]
    missing: Sequence[PlannedTrial]
    notes: Sequence[str] = ()
    rules_refused: Sequence[tuple[str, int, str]] = ()


def stages(spec: StudySpec, records: Mapping[str, TrialRecord], facts: Facts) -> Iterator[Stage]:
    """The stages of a study in their order: the search, its extensions, and what follows.

    Each follows from the records when it is asked for, so whoever runs trials runs those of a
    stage before asking for the next one. A resumed study plans the same.
    """
    yield from _search(spec, records, facts)
    phases: tuple[Phase, ...] = tuple(
        phase for phase in AFTER_SEARCH if getattr(spec, phase) is not None
    )
    found = (best_trial(by_cell(records, cell), spec) for cell in cells(spec))
    best = [record for record in found if record is not None]
    replicates, refused = planned_replicates(spec, best, facts)
    replicates += planned_branches(spec, best, facts)
    planned = with_own_ids(replicates, best, records)
    yield Stage(phases, planned, _missing(planned, records), rules_refused=refused)


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
            return
        planned, notes = _extension(spec, records, facts, edges, search_round)
        if not planned:
            return


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
        edge = rate_edge(so_far, spec)
        if edge is None or len(before) < search_round:
            continue
        edges[name] = (*before, edge)
        trials = planned_extension(spec, cell, edges[name], facts)
        notes.append(
            f"{name}: its best rate is the {edge}est tried; {len(trials)} more trials beyond it"
        )
        planned += trials
    return planned, notes
