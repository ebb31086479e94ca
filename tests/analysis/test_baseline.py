"""Where nothing beats a guess that ignores the input, it is said and nothing is recommended."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from scaling.analysis.findings import Findings, analyse, within
from scaling.analysis.trial_rows import sweep_of
from scaling.records.study import StudyRecord
from scaling.records.trial import TrialRecord
from scaling.report.summary import summarize
from scaling.report.words.sources import sources
from scaling.spec.phases import Limits
from tests.analysis.synthetic import study

NOT_LEARNED = (
    "No trial beats always guessing the class frequencies (0.300 nats): the models learned "
    "nothing, so no batch is recommended."
)


def with_baseline(record: StudyRecord, loss: float, **others: Any) -> StudyRecord:
    measured = {
        "baseline": "class frequencies",
        "baseline_validation_loss": loss,
        "baseline_validation_loss_stderr": 0.004,
        "baseline_test_loss": loss + 0.01,
        "baseline_test_loss_stderr": 0.004,
        "baseline_accuracy": 0.6,
    }
    return replace(record, environment={**record.environment, **measured, **others})


def summary_of(record: StudyRecord) -> dict[str, Any]:
    return summarize(analyse(sweep_of(record)))


@cache
def nothing_learnt() -> Findings:
    return analyse(sweep_of(with_baseline(study(), 0.3)))


@cache
def without_baseline() -> dict[str, Any]:
    return summary_of(study())


def shifted(trial: TrialRecord, nats: float) -> TrialRecord:
    return replace(
        trial,
        measurements=tuple(
            replace(m, validation_loss=(m.validation_loss or 0.0) + nats)
            for m in trial.measurements
        ),
    )


def test_nothing_learnt_is_said_first_and_nothing_is_recommended() -> None:
    summary = summarize(nothing_learnt())
    assert summary["answer"].startswith(NOT_LEARNED)
    recommended = summary["recommendation"]
    assert recommended["reason"] == NOT_LEARNED
    for name in ("global_batch_size", "peak_lr", "warmup_steps", "expected_loss", "recipe"):
        assert recommended[name] is None
    assert [cell["beats_baseline"] for cell in summary["cells"]] == [False] * 4
    assert summary["baselines"] == {
        "guess": "class frequencies", "validation_loss": 0.3, "validation_loss_stderr": 0.004,
        "test_loss": 0.31, "test_loss_stderr": 0.004, "accuracy": 0.6, "loss_unit": "nats",
    }  # fmt: skip


@pytest.mark.parametrize("limits", [{"num_workers": 1}, {"deadline_seconds": 1e6}])
def test_limits_change_nothing_of_it(limits: dict[str, Any]) -> None:
    asked = sweep_of(study(recommendation=limits)).limits
    assert asked == Limits.model_validate(limits)
    limited = within(nothing_learnt(), asked)
    assert summarize(limited)["recommendation"]["reason"] == NOT_LEARNED


def test_what_beats_it_is_recommended_as_without_one() -> None:
    without, beaten = without_baseline(), summary_of(with_baseline(study(), 2.0))
    assert [cell["beats_baseline"] for cell in beaten["cells"]] == [True] * 4
    assert beaten["recommendation"] == without["recommendation"]
    assert beaten["answer"] == without["answer"]
    assert without["baselines"]["validation_loss"] is None
    assert [cell["beats_baseline"] for cell in without["cells"]] == [None] * 4


def test_cells_that_do_not_beat_it_are_named_and_not_recommended() -> None:
    record = with_baseline(study(target=None), 0.7)
    best = summary_of(record)["recommendation"]["global_batch_size"]
    trials = tuple(
        shifted(t, 0.4) if t.cell == {"global_batch_size": best} else t for t in record.trials
    )
    summary = summary_of(replace(record, trials=trials))
    assert f"(0.700 nats): global_batch_size {best}." in summary["answer"]
    assert summary["recommendation"]["global_batch_size"] not in (None, best)


def test_a_cell_that_is_soonest_and_learns_nothing_is_not_recommended() -> None:
    record = with_baseline(study(), 0.7)
    soonest = without_baseline()["recommendation"]["global_batch_size"]
    trials = tuple(
        replace(
            t,
            measurements=(
                *t.measurements[:-1],
                replace(t.measurements[-1], validation_loss=0.9),
            ),
        )
        if t.cell == {"global_batch_size": soonest} and t.status == "done"
        else t
        for t in record.trials
    )
    found = analyse(sweep_of(replace(record, trials=trials)))
    for limits in (Limits(), Limits(deadline_seconds=1e6)):
        recommended = summarize(within(found, limits))["recommendation"]
        assert recommended["global_batch_size"] not in (None, soonest)


def test_lower_by_less_than_the_error_is_not_better() -> None:
    record = with_baseline(study(), 0.505, baseline_validation_loss_stderr=0.02)
    reason = summary_of(record)["recommendation"]["reason"]
    assert "by more than the evaluation's error: the lowest loss is 0.4" in reason


def test_accuracy_above_the_likeliest_guess_is_not_called_nothing() -> None:
    record = with_baseline(study(), 0.3)
    trials = tuple(
        replace(
            t, measurements=tuple(replace(m, metrics={"accuracy": 0.8}) for m in t.measurements)
        )
        for t in record.trials
    )
    reason = summary_of(replace(record, trials=trials))["recommendation"]["reason"]
    assert "so no batch is recommended; the best accuracy is 0.800" in reason
    assert "the models learned nothing" not in reason


def test_a_single_lucky_trial_is_not_denied() -> None:
    record = with_baseline(study(), 0.45)
    lucky = next(t for t in record.trials if t.phase == "transfer" and t.status == "done")
    trials = tuple(shifted(t, -0.3) if t is lucky else t for t in record.trials)
    reason = summary_of(replace(record, trials=trials))["recommendation"]["reason"]
    assert reason.startswith("Over seeds no recipe beats always guessing the class frequencies")


def test_trials_without_a_loss_are_not_compared() -> None:
    record = with_baseline(study(), 0.3)
    lost = tuple(replace(t, status="diverged") for t in record.trials)
    summary = summary_of(replace(record, trials=lost))
    assert "guessing" not in summary["answer"]
    assert "Not enough data" in summary["recommendation"]["reason"]


def test_the_report_says_what_the_least_is() -> None:
    text = sources(analyse(sweep_of(with_baseline(study(), 0.693))))
    assert "has a validation loss of 0.693 nats and is right 60.0% of the time" in text
