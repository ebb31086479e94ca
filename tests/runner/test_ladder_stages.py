"""A ladder's study: its search, the confirmed recipe of its largest size, and the check."""

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from scaling.records.measurement import Measurement
from scaling.records.outcome import left_over
from scaling.records.trial import TrialRecord
from scaling.runner.remaining import remaining, stages
from scaling.space.ladder import flops_of, size_cells
from scaling.space.layout import Facts
from scaling.space.rounds import Rounds
from scaling.space.trials import PlannedTrial
from tests.spec.test_ladder import ladder

SCALES = [
    {"num_parameters": 1e3 * 4**n, "num_parameters_without_embeddings": 9e2 * 4**n, "num_tokens": d}
    for n, d in enumerate((1e4, 4e4, 1.6e5))
]
FACTS = Facts(
    None, None,
    sizes=tuple(Facts(None, None, scale=scale) for scale in SCALES),
    predicted=({"num_parameters": 1e6, "num_tokens": 1e7},),
)  # fmt: skip
SPEC = ladder(
    confirm={"num_seeds": 2},
    search={"num_trials": 14, "stop": None},
    scientific={"global_batch_size": [4, 16, 64]},
)


def ended(trial: PlannedTrial) -> TrialRecord:
    assert trial.recipe is not None
    hparams = trial.recipe.hyperparameters
    octaves = math.log2(hparams.peak_lr / (1e-2 * math.sqrt(hparams.global_batch_size / 16)))
    loss = (2 - 0.1 * SPEC.size_of(trial.cell)) * (1 + 0.01 * octaves**2)
    measured = (Measurement(5, 80, None, 1.0, validation_loss=loss),)
    record = replace(trial.record(), status="done", measurements=measured)
    return TrialRecord.from_json(record.to_json())


def run(at_most: int = 1000) -> tuple[dict[str, TrialRecord], Rounds]:
    records: dict[str, TrialRecord] = {}
    rounds = Rounds(4)
    for stage in stages(SPEC, records, FACTS, rounds):
        rounds = stage.rounds or rounds
        for trial in stage.missing:
            if len(records) == at_most:
                return records, rounds
            records[trial.trial_id] = ended(trial)
    return records, rounds


@pytest.fixture(scope="module")
def done() -> tuple[dict[str, TrialRecord], Rounds]:
    return run()


def test_the_last_size_is_kept_out_and_then_checked_at_its_prediction(done: Any) -> None:
    records, rounds = done
    by_phase = Counter((r.phase, SPEC.size_of(r.cell)) for r in records.values())
    assert by_phase["search", 0] + by_phase["search", 1] == 14
    assert by_phase["confirm", 1] == 2
    assert by_phase["check", 2] == 10
    assert sum(by_phase.values()) == 26
    predicted = rounds.prediction
    checked = {
        (r.cell["global_batch_size"], r.choices["peak_lr"])
        for r in records.values()
        if r.phase == "check"
    }
    batch, rate = predicted.global_batch_size, predicted.peak_lr
    around = {(batch, rate), (batch, 2 * rate), (batch, rate / 2), (2 * batch, rate)}
    assert around < checked
    assert len(checked) == 5
    assert all(r.scale == SCALES[SPEC.size_of(r.cell)] for r in records.values())


@pytest.mark.parametrize(
    "at_most",
    [9, 15, *(pytest.param(n, marks=[pytest.mark.slow, pytest.mark.ci]) for n in (1, 17))],
)
def test_a_study_that_was_cut_off_goes_on_to_the_same_trials(done: Any, at_most: int) -> None:
    whole, _ = done
    records, rounds = run(at_most)
    for stage in stages(SPEC, records, FACTS, rounds):
        records |= {trial.trial_id: ended(trial) for trial in stage.missing}
    assert records == whole


def test_an_extended_search_is_checked_anew_and_the_check_before_is_left_out(done: Any) -> None:
    records, rounds = dict(done[0]), done[1]
    more = SPEC.model_copy(update={"search": SPEC.search.model_copy(update={"num_trials": 18})})
    notes: list[str] = []
    for stage in stages(more, records, FACTS, rounds):
        rounds = stage.rounds or rounds
        notes += stage.notes
        records |= {trial.trial_id: ended(trial) for trial in stage.missing}
    before = {trial_id for trial_id in done[0] if trial_id.startswith("check")}
    after = {trial_id for trial_id in records if trial_id.startswith("check")} - before
    assert rounds.prediction != done[1].prediction
    assert len(before) == len(after) == 10
    left = {trial.trial_id for trial in left_over(list(records.values()), more, {})}
    assert left & (before | after) == before
    assert any("later search trials have beaten" in note for note in notes)
    assert not {t.trial_id for t in left_over(list(done[0].values()), SPEC, {})}


def test_what_is_left_counts_every_phase(done: Any) -> None:
    records, rounds = done
    left = remaining(SPEC, records, FACTS, rounds)
    assert left.num_to_run == 0
    assert left.num_ended == 26


@pytest.mark.parametrize("size", [0, 1])
def test_a_study_whose_trials_of_one_size_all_fail_comes_to_an_end(size: int) -> None:
    records: dict[str, TrialRecord] = {}
    rounds = Rounds(4)
    for stage in stages(SPEC, records, FACTS, rounds):
        rounds = stage.rounds or rounds
        for trial in stage.missing:
            record = ended(trial)
            failed = SPEC.size_of(trial.cell) == size
            records[trial.trial_id] = replace(record, status="failed") if failed else record
    searched = Counter(SPEC.size_of(r.cell) for r in records.values() if r.phase == "search")
    assert searched.total() == 14
    assert searched[1 - size] > 0


def test_a_loss_at_or_below_zero_ends_the_search() -> None:
    """A ladder compares losses by their ratios; the report says that it says nothing of these."""

    def shifted(trial: PlannedTrial) -> TrialRecord:
        record = ended(trial)
        lower = [
            replace(m, validation_loss=(m.validation_loss or 0) - 1.95) for m in record.measurements
        ]
        return replace(record, measurements=tuple(lower))

    records: dict[str, TrialRecord] = {}
    notes: list[str] = []
    for stage in stages(SPEC, records, FACTS, Rounds(4)):
        notes += stage.notes
        records |= {trial.trial_id: shifted(trial) for trial in stage.missing}
    assert {record.phase for record in records.values()} == {"search"}
    assert any("a loss is at or below zero" in note for note in notes)


def test_a_study_whose_trials_all_fail_comes_to_an_end() -> None:
    records: dict[str, TrialRecord] = {}
    rounds = Rounds(4)
    for stage in stages(SPEC, records, FACTS, rounds):
        rounds = stage.rounds or rounds
        records |= {t.trial_id: replace(ended(t), status="failed") for t in stage.missing}
    assert len(records) == 14
    assert rounds.prediction is None


def test_while_the_search_goes_on_what_follows_is_counted_by_what_it_trains() -> None:
    records, rounds = run(at_most=9)
    left = remaining(SPEC, records, FACTS, rounds)
    later = {(g.phase, g.cell): g.num_to_run for g in left.groups if g.phase != "search"}
    assert later == {("confirm", "the largest size searched"): 2, ("check", "the last size"): 10}
    assert left.num_to_run == 26 - 9


def test_a_batch_that_leaves_a_run_too_few_steps_is_no_cell() -> None:
    """1000 examples are 16 steps of 64."""
    batches = [[cell["global_batch_size"] for cell in size] for size in size_cells(SPEC, FACTS)]
    assert batches == [[4, 16], [4, 16, 64], [8]]


def test_operations_are_counted_once() -> None:
    assert flops_of(SCALES[0]) == 6 * 1e3 * 1e4
    assert flops_of({"N": 2.0, "D": 3.0}) == 36
