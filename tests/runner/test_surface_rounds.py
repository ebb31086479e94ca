"""A search by the surface, round by round: what is tried follows from the rounds before alone."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling.records.measurement import Measurement
from scaling.records.outcome import left_over
from scaling.records.trial import Status, TrialRecord
from scaling.runner.recorded_study import RecordedStudy
from scaling.runner.remaining import remaining, stages
from scaling.space.layout import Facts
from scaling.space.rounds import Rounds
from scaling.space.trials import PlannedTrial
from scaling.spec.evaluation import Target
from scaling.spec.phases import Confirm
from scaling.spec.study import StudySpec
from tests.space.test_space import study

FACTS = Facts(num_train=None, tokens_per_example=None)
Records = dict[str, TrialRecord]
PLACES = {f"global_batch_size={batch}": n for n, batch in enumerate((16, 64))}


def by_surface(num_trials: int = 12, batches: Sequence[int] = (16, 64), **search: Any) -> StudySpec:
    return study(
        scientific={"global_batch_size": list(batches)},
        nuisance={"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
        search={"num_trials": num_trials, "stop": None, **search},
        confirm={"num_seeds": 1},
    )


def best_rate(batch_size: int) -> float:
    return 1e-3 * math.sqrt(batch_size)


def loss(trial: PlannedTrial) -> float:
    assert trial.recipe is not None
    hparams = trial.recipe.hyperparameters
    return 1 + 0.1 * math.log(hparams.peak_lr / best_rate(hparams.global_batch_size)) ** 2


def ended(trial: PlannedTrial, status: Status = "done") -> TrialRecord:
    """The record of a trial that ended, as the ledger reads it back."""
    measured = (Measurement(5, 80, None, 1.0, validation_loss=loss(trial)),)
    record = replace(trial.record(), status=status, measurements=measured)
    return TrialRecord.from_json(record.to_json())


class Study:
    """A study's ledger and the rounds that it has kept."""

    def __init__(self, size: int = 2) -> None:
        self.records: Records = {}
        self.rounds = Rounds(size)
        self.notes: list[str] = []

    def run(
        self,
        spec: StudySpec,
        *,
        order: int = 0,
        at_most: int = 1000,
        failing: Sequence[str] = (),
        diverging: Sequence[int] = (),
    ) -> "Study":
        """Run what is missing in some order, or the first so many trials of it.

        Trials in `failing` and those of batch sizes in `diverging` come to nothing.
        """
        for stage in self.stages(spec):
            missing = list(stage.missing)
            random.Random(order).shuffle(missing)
            for trial in missing:
                if at_most == 0:
                    return self
                at_most -= 1
                status = "failed" if trial.trial_id in failing else "done"
                if trial.cell["global_batch_size"] in diverging:
                    status = "diverged"
                self.records[trial.trial_id] = ended(trial, status)
        return self

    def stages(self, spec: StudySpec) -> Any:
        for stage in stages(spec, self.records, FACTS, self.rounds):
            self.notes += stage.notes
            self.rounds = stage.rounds or self.rounds
            yield stage

    @property
    def trials(self) -> list[TrialRecord]:
        """Of the search, by id."""
        return [r for _, r in sorted(self.records.items()) if r.phase == "search"]


@pytest.fixture(scope="module")
def done() -> Study:
    """A study that was run in one go."""
    return Study().run(by_surface())


def test_every_trial_is_in_a_round_and_every_cell_has_one(done: Study) -> None:
    assert len(done.trials) == 12
    assert [len(proposed) for proposed in done.rounds.proposed] == [8, 2, 2]  # a design first
    assert Counter(trial.surface_round for trial in done.trials) == {0: 8, 1: 2, 2: 2}
    assert {trial.cell["global_batch_size"] for trial in done.trials} == {16, 64}
    assert {record.search_round for record in done.trials} == {0}
    assert {f"confirm-global_batch_size={batch}-seed1" for batch in (16, 64)} <= set(done.records)


@pytest.mark.parametrize(
    "order", [1, *(pytest.param(n, marks=[pytest.mark.slow, pytest.mark.ci]) for n in (2, 3))]
)
def test_the_order_in_which_trials_end_changes_nothing(done: Study, order: int) -> None:
    assert Study().run(by_surface(), order=order).records == done.records


@pytest.mark.parametrize(
    "at_most",
    [8, 9, 13, *(pytest.param(n, marks=[pytest.mark.slow, pytest.mark.ci]) for n in (1, 12))],
)
def test_a_study_that_was_cut_off_goes_on_to_the_same_trials(done: Study, at_most: int) -> None:
    spec = by_surface()
    cut = Study().run(spec, order=1, at_most=at_most)
    assert len(cut.records) == at_most
    assert cut.run(spec, order=2).records == done.records


def test_what_was_proposed_stays_whatever_the_surface_would_propose_now() -> None:
    """As another version of it would, or another machine's arithmetic."""
    spec = by_surface()
    cut = Study().run(spec, at_most=9)
    before = cut.rounds.proposed
    others = {name: replace(r, measurements=()) for name, r in cut.records.items()}
    planned = next(stages(spec, others, FACTS, cut.rounds)).planned
    assert [t.choices for t in planned] == [p.choices for round_ in before for p in round_]


def test_a_trial_that_failed_runs_again_and_later_rounds_stay() -> None:
    spec = by_surface()
    name = "search-global_batch_size=16-000"
    cut = Study().run(spec, at_most=9, failing=[name])
    before = cut.rounds
    assert cut.records[name].status == "failed"
    assert len(before.proposed) == 2
    cut.run(spec)
    assert cut.rounds.proposed[:2] == before.proposed
    assert cut.records[name].status == "done"
    assert len(cut.trials) == 12  # a failed trial counts as one of num_trials


def test_a_trial_that_failed_runs_again_after_the_search_too() -> None:
    spec = by_surface()
    name = "search-global_batch_size=16-000"
    cut = Study().run(spec, failing=[name])
    proposed = cut.rounds.proposed
    known = {n: record for n, record in cut.records.items() if n != name}
    cut.run(spec)
    assert cut.records[name].status == "done"
    assert cut.rounds.proposed == proposed
    assert {n: cut.records[n] for n in known} == known


def test_a_search_whose_trials_all_fail_ends() -> None:
    spec = by_surface()
    ids = [f"search-global_batch_size={b}-{n:03d}" for b in (16, 64) for n in range(50)]
    done = Study().run(spec, failing=ids)
    assert len(done.trials) == 12
    assert {trial.status for trial in done.trials} == {"failed"}


def test_more_trials_keep_the_first_rounds() -> None:
    small = Study().run(by_surface(10))
    known, before = dict(small.records), small.rounds.proposed
    large = small.run(by_surface(14))
    assert large.rounds.proposed[: len(before)] == before
    assert len(large.trials) == 14
    assert {name: large.records[name] for name in known} == known


def test_a_cell_that_is_put_between_others_leaves_the_rounds_as_they_are() -> None:
    small = Study().run(by_surface(10))
    known = {trial.trial_id: trial for trial in small.trials}
    large = small.run(by_surface(14, batches=(16, 32, 64)))
    assert {name: large.records[name] for name in known} == known
    assert any(trial.cell["global_batch_size"] == 32 for trial in large.trials)


def test_a_search_ends_early_by_its_limit_and_says_so() -> None:
    spec = by_surface(40, stop={"regret_at_most_ratio": 0.2})
    done = Study().run(spec)
    assert 2 <= len(done.trials) < 40
    assert done.notes[-1].startswith(f"search over after {len(done.trials)} trials: the regret of")
    # A stricter limit goes on from there, with the same rounds.
    before = done.rounds.proposed
    done.run(by_surface(len(done.trials) + 4))
    assert done.rounds.proposed[: len(before)] == before
    assert len(done.rounds.proposed) == len(before) + 2
    assert any(line.startswith("search over: all of its") for line in done.notes)


def test_what_is_left_is_a_bound_until_the_search_is_over() -> None:
    spec = by_surface(stop={"regret_at_most_ratio": 1e-9})
    cut = Study().run(spec, at_most=9)
    left = remaining(spec, cut.records, FACTS, cut.rounds)
    assert (left.num_ended, left.num_to_run, left.may_stop) == (9, 12 - 9 + 2, True)
    assert not left.is_decided
    done = cut.run(spec)
    left = remaining(spec, done.records, FACTS, done.rounds)
    assert (left.num_to_run, left.may_stop, left.is_decided) == (0, False, True)


def test_how_far_a_search_is_is_one_line_a_round(done: Study) -> None:
    assert [line.partition(";")[0] for line in done.notes] == [
        "search: 8 of at most 12 trials have ended",
        "search: 10 of at most 12 trials have ended",
        "search over: all of its 12 trials have run",
    ]
    assert all("global_batch_size=16 " in line for line in done.notes)


def test_the_surface_of_steps_has_a_recipe_for_the_target_which_is_kept() -> None:
    """The loss is lowest at the best rate, the target is reached soonest at four times that."""

    def to_target(trial: PlannedTrial) -> TrialRecord:
        assert trial.recipe is not None
        hparams = trial.recipe.hyperparameters
        away = math.log(hparams.peak_lr / (4 * best_rate(hparams.global_batch_size)))
        step = round(200 * math.exp(0.1 * away**2))
        ends = [(0, 3.0), (step, 1.5), (2000, loss(trial))]
        measured = tuple(
            Measurement(s, s * 16, None, 1.0, validation_loss=value) for s, value in ends
        )
        record = replace(trial.record(), status="done", measurements=measured)
        return TrialRecord.from_json(record.to_json())

    spec = by_surface(16).model_copy(
        update={
            "target": Target(at_most=1.5),
            "confirm": Confirm(num_seeds=1, recipe_for_target=True),
        }
    )
    found = Study()
    for stage in found.stages(spec):
        for trial in stage.missing:
            found.records[trial.trial_id] = to_target(trial)
    assert found.rounds.end is not None
    assert [r.cell for r in found.rounds.end.for_target] == [
        r.cell for r in found.rounds.end.recipes
    ]
    for batch in (16, 64):
        rates = {
            phase: found.records[f"{phase}-global_batch_size={batch}-seed1"].recipe.hyperparameters
            for phase in ("confirm", "confirm_target")
        }
        assert rates["confirm"].peak_lr == pytest.approx(best_rate(batch), rel=0.5)
        assert rates["confirm_target"].peak_lr == pytest.approx(4 * best_rate(batch), rel=0.5)
    again = RecordedStudy.with_rounds(RecordedStudy(Path(), {"cell_places": PLACES}), found.rounds)
    assert again.rounds() == found.rounds
    ids = set(found.records)
    for stage in found.stages(spec):
        assert not stage.missing
    assert set(found.records) == ids
    assert left_over(list(found.records.values()), spec, {}) == []


def test_a_recipe_for_a_target_stays_until_the_target_moves() -> None:
    cell = "global_batch_size=16"
    points = [{cell: {"peak_lr": rate}} for rate in (0.1, 0.2, 0.3)]
    strict, loose = Target(at_most=0.5), Target(at_most=1.5)

    def after(rounds: Rounds) -> list[tuple[str, float]]:
        assert rounds.end is not None
        return [(recipe.name, recipe.choices["peak_lr"]) for recipe in rounds.end.for_target]

    first = Rounds(4).ended(points[0], 12, points[0], loose)
    assert after(first) == [(f"target-{cell}-012", 0.1)]
    assert first.ended(points[1], 12, points[1], loose) == first
    assert first.ended(points[1], 12) == first
    assert after(first.ended(points[0], 12, points[0], strict)) == after(first)
    second = first.ended(points[0], 12, points[1], strict)
    assert after(second) == [(f"target-{cell}-012.1", 0.2)]
    nowhere = second.ended(points[0], 12, {}, Target(at_most=0.1))
    third = nowhere.ended(points[0], 12, points[2], loose)
    assert after(third) == [(f"target-{cell}-012.2", 0.3)]
    assert after(third.ended(points[0], 13, points[0], strict)) == [(f"target-{cell}-013", 0.1)]
    again = RecordedStudy.with_rounds(RecordedStudy(Path(), {"cell_places": PLACES}), third)
    assert again.rounds() == third


def test_the_latest_recipe_for_the_target_is_confirmed_and_those_before_are_left_out() -> None:
    """The looser target is reached soonest at a lower rate than the stricter one."""

    def to_targets(trial: PlannedTrial) -> TrialRecord:
        assert trial.recipe is not None
        octaves = math.log(trial.recipe.hyperparameters.peak_lr / 0.01)
        steps = [round(200 * math.exp(0.1 * away**2)) for away in (octaves + 1, octaves - 1)]
        soon, late = steps[0], 1000 + steps[1]
        ends = [(0, 3.0), (soon, 1.5), (late, 1.2), (4000, loss(trial))]
        measured = tuple(Measurement(s, s * 16, None, 1.0, validation_loss=v) for s, v in ends)
        record = replace(trial.record(), status="done", measurements=measured)
        return TrialRecord.from_json(record.to_json())

    found, ran = Study(), list[list[str]]()
    for at_most in (1.5, 1.2, 1.5):
        target, confirm = Target(at_most=at_most), Confirm(num_seeds=1, recipe_for_target=True)
        spec = by_surface(16).model_copy(update={"target": target, "confirm": confirm})
        before = set(found.records)
        for stage in found.stages(spec):
            for trial in stage.missing:
                found.records[trial.trial_id] = to_targets(trial)
        ran.append([name for name in found.records if name not in before])
        left = {trial.trial_id for trial in left_over(list(found.records.values()), spec, {})}
        assert left == {name for name in before if name.startswith("confirm_target")}
    seeds = [f"confirm_target-{cell}-seed1" for cell in PLACES]
    assert ran[1:] == [[f"{name}-of-016.{moved}" for name in seeds] for moved in (1, 2)]


def to_the_target(trial: PlannedTrial) -> TrialRecord:
    """A quarter of the steps at the larger batch size; above a rate of 0.02 lost at step 2."""
    assert trial.recipe is not None
    hparams = trial.recipe.hyperparameters
    budget = 1600 / hparams.global_batch_size
    steps = 0.3 * budget * math.exp(0.3 * math.log(hparams.peak_lr / 0.008) ** 2)
    is_lost = hparams.peak_lr > 0.02
    step, reached = (2, False) if is_lost else (round(min(steps, budget)), steps < budget)
    measured = tuple(
        Measurement(n, n * hparams.global_batch_size, None, n, validation_loss=value)
        for n, value in ((0, 3.0), (step, 1.0 if reached else 1.5))
    )
    record = replace(trial.record(), status="diverged" if is_lost else "done")
    return TrialRecord.from_json(replace(record, measurements=measured).to_json())


def test_trials_that_diverge_early_are_not_near_the_target() -> None:
    """A search by steps to the target keeps away from the rates at which they did."""
    spec = study(
        scientific={"global_batch_size": [4, 16]},
        nuisance={"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
        target={"at_most": 1.2},
        search={"num_trials": 24, "stop": None, "objective": "steps_to_target"},
        confirm=None,
    )
    found = Study(4)
    for stage in found.stages(spec):
        for trial in stage.missing:
            found.records[trial.trial_id] = to_the_target(trial)
    later = [record.choices["peak_lr"] for record in found.trials if record.surface_round]
    assert len(later) >= 12
    assert sum(rate > 0.02 for rate in later) <= 2
