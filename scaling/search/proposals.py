"""What a search by the surface tries next, from the trials of its rounds so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from threadpoolctl import threadpool_limits

from scaling.records.metrics import Metric
from scaling.records.objective import loss_unit
from scaling.records.outcome import is_censored, objective_value, value_to_target
from scaling.records.scale import scale_names
from scaling.records.trial import TrialRecord
from scaling.search.ladder import LadderBelief, LadderSearch, Size, SizedOutcome
from scaling.search.surface import SurfaceSearch
from scaling.space.cells import cell_name, cells
from scaling.space.ladder import flops_of, size_cells
from scaling.space.layout import Facts
from scaling.space.rounds import PREDICTED, ProposedTrial
from scaling.space.trials import PlannedTrial
from scaling.spec.evaluation import LOSS
from scaling.spec.phases import TO_TARGET
from scaling.spec.sections import Choice, Distribution
from scaling.spec.study import StudySpec
from scaling.surface.loss_surface import CellBest, Outcome
from scaling.surface.space import BATCH, Axis, Space

_MOST_SHARES = 100_000
"""Twice the examples of a worker in a step of a checked prediction, at most."""


@dataclass(frozen=True)
class NextRound:
    """What follows the rounds so far.

    Attributes:
        proposed: The trials of the next round; none where the search is over.
        line: How far the search is, for people; empty before the first trial has ended.
        num_trials: The trials so far that have not failed.
        best: The nuisance values that the surface recommends now, by the cell's name. A cell of
            which no trial has a loss (or reached the target) has none.
        best_for_target: The same by the surface of steps to the target, where that is asked for.
    """

    proposed: tuple[ProposedTrial, ...]
    line: str = ""
    num_trials: int = 0
    best: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    best_for_target: Mapping[str, Mapping[str, Any]] | None = None


def surface_search(spec: StudySpec, round_size: int, num_failed: int = 0) -> SurfaceSearch:
    """The search that a study file describes.

    Args:
        spec: The study.
        round_size: Trials of a round after the first.
        num_failed: Trials that raised an error. The surface knows nothing of them, but they were
            run and count towards num_trials; so a study whose trials all fail comes to an end.
    """
    search = spec.search
    axes = tuple(_axis(name, drawn) for name, drawn in spec.nuisance.distributions().items())
    return SurfaceSearch(
        Space(cells(spec), axes),
        num_trials=search.most_trials - num_failed,
        round_size=round_size,
        seed=spec.seed,
        stop=search.stop,
        prior_peak_lr=search.prior_peak_lr,
    )


def next_round(
    spec: StudySpec,
    round_size: int,
    planned: Sequence[PlannedTrial],
    records: Mapping[str, TrialRecord],
    facts: Facts,
) -> NextRound:
    """The round that follows those planned so far, all of whose trials have ended."""
    if spec.ladder is not None:
        return _next_ladder_round(spec, round_size, planned, records, facts)
    metrics = facts.metrics
    names = [cell_name(cell) for cell in cells(spec)]
    known = _known(planned, records)
    outcomes = _outcomes(known, spec, [objective_value(r, spec, metrics) for r in known])
    num_failed = len(planned) - len(outcomes)
    search = surface_search(spec, round_size, num_failed)
    # Sums on several threads depend on how many there are, and would take cores from the trials.
    with threadpool_limits(1):
        following = search.next_round(outcomes)
        best = search.best(outcomes) if outcomes else []
    proposed = tuple(ProposedTrial(names[cell], point) for cell, point in following)
    if not best:
        return NextRound(proposed)
    by_cell = ", ".join(f"{name} {_regret(b)}" for name, b in zip(names, best, strict=True))
    how_far = _how_far(spec, metrics, search, best, len(outcomes), is_over=not proposed)
    failed = f", {num_failed} of them failed" if num_failed else ""
    line = f"{how_far}{failed}; expected regret: {by_cell}"
    points = _points(names, best, outcomes)
    for_target = None
    if not proposed and spec.confirms_target:
        for_target = _fastest(spec, search, known)
    return NextRound(proposed, line, len(outcomes), points, for_target)


def _known(
    planned: Sequence[PlannedTrial], records: Mapping[str, TrialRecord]
) -> list[TrialRecord]:
    """Those of the planned trials that have ended, and not by an error."""
    found = (records.get(trial.trial_id) for trial in planned)
    return [record for record in found if record is not None and record.status != "failed"]


def _points(
    names: Sequence[str], best: Sequence[CellBest], outcomes: Sequence[Outcome]
) -> dict[str, Mapping[str, Any]]:
    """The recipes of the cells of which a trial has a value."""
    has_value = {outcome.cell for outcome in outcomes if outcome.value is not None}
    return {name: best[cell].point for cell, name in enumerate(names) if cell in has_value}


def _fastest(
    spec: StudySpec, search: SurfaceSearch, records: Sequence[TrialRecord]
) -> dict[str, Mapping[str, Any]]:
    """The recipes that the surface of steps to the target recommends."""
    assert spec.target is not None
    values = [value_to_target(record, spec.target) for record in records]
    outcomes = _outcomes(records, spec, values, by="steps_to_target")
    names = [cell_name(cell) for cell in cells(spec)]
    with threadpool_limits(1):
        return _points(names, search.best(outcomes), outcomes)


def _outcomes(
    records: Sequence[TrialRecord], spec: StudySpec, values: Sequence[float | None],
    by: str | None = None,
) -> list[Outcome]:  # fmt: skip
    """How trials ended; without a value those that diverged or missed the target.

    To the target such a trial takes more than it ran, or, where it did not run to its end, than
    the longest one of its cell that did.
    """
    by = by or spec.search.objective
    names = [cell_name(cell) for cell in cells(spec)]
    places = [names.index(cell_name(record.cell)) for record in records]
    own: list[float | None] = [None] * len(records)
    longest: dict[int, float] = {}
    if by in TO_TARGET:
        values = [None if v is None or is_censored(v) else v for v in values]
        for number, (place, record) in enumerate(zip(places, records, strict=True)):
            if (final := record.final) is not None and record.status == "done":
                ran = final.examples if by == "examples_to_target" else final.step
                own[number], longest[place] = ran, max(longest.get(place, 0.0), ran)
    bounds = [ran or longest.get(place) for ran, place in zip(own, places, strict=True)]
    return [
        Outcome(place, r.choices, v, at_least=None if v is not None else bound)
        for place, r, v, bound in zip(places, records, values, bounds, strict=True)
    ]


def ladder_search(
    spec: StudySpec, round_size: int, facts: Facts, failed: Sequence[PlannedTrial] = ()
) -> LadderSearch:
    """The search over sizes that a study file describes.

    Args:
        spec: The study.
        round_size: Trials of a round after the first.
        facts: Of its sizes.
        failed: Trials that raised an error. Nothing is known by them, but they were run, and count
            towards num_trials and budget_flops.
    """
    assert spec.ladder is not None
    searched, search = spec.ladder.searched, spec.search
    scales = [size.scale for size in facts.sizes]
    names = scale_names(scales)
    by_size = size_cells(spec, facts)
    sizes = tuple(
        Size(
            tuple(scales[n][name] for name in names),
            tuple(sorted(cell[BATCH] for cell in by_size[n])),
            flops_of(scales[n]),
        )
        for n in searched
    )
    checked = [scales[n] for n in range(len(scales)) if n not in searched]
    asked = [*facts.predicted, *checked] or scales[-1:]
    rates = spec.nuisance.distributions()["peak_lr"].log_uniform
    assert rates is not None
    budget = search.budget_flops
    return LadderSearch(
        sizes,
        tuple(tuple(scale[name] for name in names) for scale in asked),
        rates,
        num_trials=search.most_trials - len(failed),
        round_size=round_size,
        seed=spec.seed,
        budget_flops=budget and budget - sum(flops_of(trial.scale) for trial in failed),
        stop=search.stop,
    )


def _next_ladder_round(
    spec: StudySpec,
    round_size: int,
    planned: Sequence[PlannedTrial],
    records: Mapping[str, TrialRecord],
    facts: Facts,
) -> NextRound:
    assert spec.ladder is not None
    ended = _known(planned, records)
    outcomes = [
        SizedOutcome(
            spec.size_of(record.cell), record.cell[BATCH], record.choices["peak_lr"],
            objective_value(record, spec, facts.metrics),
        )
        for record in ended
    ]  # fmt: skip
    if any(outcome.loss is not None and outcome.loss <= 0 for outcome in outcomes):
        line = "search over: a loss is at or below zero, and a ladder compares losses by ratio"
        return NextRound((), line, len(outcomes))
    known = {record.trial_id for record in ended}
    failed = [trial for trial in planned if trial.trial_id not in known]
    search = ladder_search(spec, round_size, facts, failed)
    with threadpool_limits(1):
        following = search.next_round(outcomes)
        knows_all = {o.size for o in outcomes if o.loss is not None} == set(spec.ladder.searched)
        belief = search.belief(outcomes) if knows_all else None
        points = _ladder_recipes(spec, search, belief) if belief else {}
    labels = spec.size_labels
    proposed = tuple(
        ProposedTrial(cell_name({**labels[n], BATCH: batch}), {"peak_lr": rate})
        for n, batch, rate in following
    )
    if belief is None:
        return NextRound(proposed, num_trials=len(outcomes))
    count = f"search: {len(planned)} of at most {spec.search.most_trials} trials have ended"
    is_over = f"search over after {len(planned)} trials"
    regret = 100 * belief.expected_regret_ratio
    line = f"{count if proposed else is_over}; expected regret where asked: {regret:.2g}%"
    return NextRound(proposed, line, len(outcomes), points)


def _ladder_recipes(
    spec: StudySpec, search: LadderSearch, belief: LadderBelief
) -> dict[str, Mapping[str, Any]]:
    """What the largest size searched, and the one that is checked, should use."""
    assert spec.ladder is not None
    largest = search.sizes[-1]
    batch, rate = belief.recipe(largest.scale, largest.batches)
    cell = cell_name({**spec.size_labels[spec.ladder.searched[-1]], BATCH: batch})
    points: dict[str, Mapping[str, Any]] = {cell: {"peak_lr": rate}}
    if spec.ladder.check is not None:
        num_workers = spec.resources.num_workers
        assert num_workers != "auto"
        # Half of it must be shared by the workers too. The checked size is the last one asked for.
        unit = 2 * num_workers // spec.resources.num_parts
        possible = [unit * count for count in range(1, _MOST_SHARES)]
        batch, rate = belief.recipe(search.asked[-1], possible)
        points[PREDICTED] = {BATCH: batch, "peak_lr": rate}
    return points


def _how_far(
    spec: StudySpec, metrics: Mapping[str, Metric], search: SurfaceSearch,
    best: Sequence[CellBest], num_ended: int, *, is_over: bool,
) -> str:  # fmt: skip
    num_trials = spec.search.most_trials
    spent = num_ended + num_trials - search.num_trials
    if not is_over:
        return f"search: {spent} of at most {num_trials} trials have ended"
    if spent >= num_trials:
        return f"search over: all of its {num_trials} trials have run"
    is_found = search.stop and all(b.probability >= search.stop.with_probability for b in best)
    why = limit_words(spec, metrics) if is_found else "there is no other point to try"
    return f"search over after {spent} trials: {why}"


def limit_words(spec: StudySpec, metrics: Mapping[str, Metric]) -> str:
    """When a search stops before its trials are spent; empty where it does not."""
    stop = spec.search.stop
    if stop is None:
        return ""
    if stop.regret_at_most_ratio is not None:
        limit = f"{100 * stop.regret_at_most_ratio:g}%"
    else:
        objective = spec.search.objective
        units = {LOSS: loss_unit(metrics), **{name: name.partition("_")[0] for name in TO_TARGET}}
        limit = f"{stop.regret_at_most:g} {units.get(objective, f'of {objective}')}".rstrip()
    return f"the regret of every cell is at most {limit} with probability {stop.with_probability:g}"


def _regret(best: CellBest) -> str:
    ratio = best.expected_regret_ratio
    return f"{best.expected_regret:.2g}" if ratio is None else f"{100 * ratio:.2g}%"


def _axis(name: str, drawn: Distribution[Any] | Choice[Any]) -> Axis:
    if drawn.ends is None:
        return Axis(name, choice=drawn.choice)
    low, high = drawn.ends
    return Axis(name, low=low, high=high, log=drawn.log_uniform is not None)
