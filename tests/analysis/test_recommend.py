"""What is recommended within limits, on studies with planted steps and seconds a step.

At 16, 64, 256, 1024 examples a step takes 0.01 (1 + B / 256) seconds on one worker and the target
40 + 4000 / B steps: 3.08, 1.28, 1.11, 2.20 seconds.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import yaml

from scaling.analysis.findings import Findings, analyse, within
from scaling.analysis.next_run.goodput import Option, pareto_front
from scaling.analysis.next_run.recommendation import (
    BestWithinLimits,
    NothingToRecommend,
    Recommendation,
)
from scaling.analysis.trial_rows import sweep_of
from scaling.records.measurement import Measurement
from scaling.records.study import StudyRecord
from scaling.records.trial import TrialRecord
from scaling.report.words.reasons import reason_words
from scaling.report.words.recipe_yaml import recommended_yaml
from scaling.spec.checks.study import check_study
from scaling.spec.phases import Limits
from scaling.spec.study import StudySpec
from tests.analysis.synthetic import Truth, spec, study
from tests.recipes import changed

QUIET = Truth(noise=1e-4)


@cache
def quiet() -> Findings:
    return findings_of(study(QUIET))


def findings_of(record: StudyRecord) -> Findings:
    return analyse(sweep_of(record))


def recommended(findings: Findings | None = None, **limits: Any) -> Recommendation:
    return within(findings or quiet(), Limits.model_validate(limits)).recommendation


def chosen(found: Recommendation) -> tuple[int | None, int | None]:
    assert found.option is not None
    return found.global_batch_size, found.option.num_workers


def test_without_limits_the_soonest_on_the_workers_measured() -> None:
    found = recommended()
    assert chosen(found) == (256, 1)
    assert found.option is not None
    assert found.option.idle_seconds.value == pytest.approx(1.11, rel=0.02)
    assert found.meets_limits is None


def test_on_more_workers_a_step_takes_what_it_took_with_as_many_examples_a_worker() -> None:
    found = recommended(num_workers=4)
    by_batch = {o.cell.global_batch_size: o for o in found.candidates}
    # 64 / 4, 256 / 4 and 1024 / 4 examples a worker were measured, 16 / 4 were not.
    assert sorted(by_batch) == [64, 256, 1024]
    assert all(option.carried_over for option in by_batch.values())
    expected = {64: 102.5 * 0.010625, 256: 55.625 * 0.0125, 1024: 43.9 * 0.02}
    for batch, seconds in expected.items():
        assert by_batch[batch].idle_seconds.value == pytest.approx(seconds, rel=0.03)
    assert chosen(found) == (256, 4)
    assert "a lower bound" in reason_words(found.reason)


@pytest.mark.parametrize(("deadline", "best"), [(10.0, (256, 1)), (1.2, (256, 1)), (0.8, (256, 4))])
def test_a_deadline_is_met_with_the_fewest_worker_seconds(
    deadline: float, best: tuple[int, int]
) -> None:
    found = recommended(deadline_seconds=deadline)
    assert chosen(found) == best
    assert found.meets_limits is True
    assert found.option is not None
    assert found.option.seconds.value is not None
    assert found.option.seconds.value <= deadline


@pytest.mark.parametrize(("ceiling", "best"), [(1.2, (256, 1)), (3.0, (256, 4))])
def test_a_ceiling_is_kept_and_the_soonest_taken(ceiling: float, best: tuple[int, int]) -> None:
    found = recommended(cost_ceiling=ceiling, price_per_worker_hour=3600.0)
    assert chosen(found) == best
    assert found.option is not None
    assert found.option.cost.value is not None
    assert found.option.cost.value <= ceiling
    workers = found.option.num_workers or 1
    assert found.option.cost.value == pytest.approx((found.option.seconds.value or 0) * workers)


def test_what_nothing_can_meet_is_said_with_the_nearest() -> None:
    found = recommended(deadline_seconds=0.01, num_workers=1)
    assert found.meets_limits is False
    assert chosen(found) == (256, 1)
    said = reason_words(found.reason)
    assert said.startswith("No measured recipe is expected to meet 0.0100 seconds")


def _option_of(findings: Findings, batch: int | None, deadline: float) -> Option:
    found = recommended(findings, num_workers=1, deadline_seconds=deadline)
    return next(o for o in found.candidates if o.cell.global_batch_size == batch)


def test_the_chance_is_that_of_one_more_run_and_not_of_the_mean() -> None:
    findings = findings_of(study(Truth(noise=0.01), num_seeds=5))
    middle = recommended(findings).option
    assert middle is not None
    ends, steps = middle.seconds.value, middle.steps.value
    assert ends is not None
    assert steps is not None
    assert middle.mean_steps.value is not None
    mean = ends * middle.mean_steps.value / steps
    # The steps are enough for nine runs of ten or more, as they are whole.
    for deadline, low, high in ((mean, 0.44, 0.56), (ends, 0.89, 0.99)):
        option = _option_of(findings, middle.cell.global_batch_size, deadline)
        assert option.chance is not None
        assert low < option.chance < high
    later = recommended(findings, num_workers=1, deadline_seconds=1.5 * ends)
    assert later.option is not None
    assert later.option.chance is not None
    assert 0.5 < later.option.chance <= 1


def test_without_a_target_the_lowest_loss_that_the_limits_allow() -> None:
    record = study(QUIET)
    spec_ = record.spec.model_copy(update={"target": None})
    findings = findings_of(StudyRecord(spec_, record.trials, record.environment))
    longest = recommended(findings, deadline_seconds=100.0, num_workers=1)
    assert longest.option is not None
    assert not longest.option.cut_short
    assert longest.option.loss_name == "test_loss"
    short = recommended(findings, deadline_seconds=1.5, num_workers=1)
    # By 1.5 s only the batches of 64 and 256 have been evaluated after their first step.
    assert chosen(short) in ((64, 1), (256, 1))
    assert short.option is not None
    assert short.option.cut_short
    assert short.option.loss_name == "validation_loss"  # tests are read once, at the end
    assert short.option.loss.value == pytest.approx(1.0, abs=0.02)
    assert short.option.seconds.value is not None
    assert short.option.seconds.value <= 1.5


def test_a_run_that_decays_is_not_cut_short() -> None:
    record = study(QUIET)
    decaying = tuple(replace(t, recipe=changed(t.recipe, schedule="cosine")) for t in record.trials)
    spec_ = record.spec.model_copy(update={"target": None})
    findings = findings_of(StudyRecord(spec_, decaying))
    assert recommended(findings, deadline_seconds=1.5, num_workers=1).meets_limits is False


def test_workers_that_no_batch_was_measured_with_are_not_guessed() -> None:
    found = recommended(num_workers=3)
    assert found.option is None
    assert found.reason == NothingToRecommend("workers", 3)


def test_the_front_is_what_no_other_beats_in_both() -> None:
    front = pareto_front(recommended().candidates)
    # Seconds 3.08, 1.28, 1.11, 2.20 and examples 4,640, 6,560, 14,240, 44,960.
    assert [o.cell.global_batch_size for o in front] == [256, 64, 16]


def pasted(found: Recommendation) -> StudySpec:
    """The study file with the recommended sections in place of its own."""
    recipe = recommended_yaml(found)
    assert recipe is not None
    whole = spec().model_dump(mode="json", exclude_unset=True) | yaml.safe_load(recipe)
    for name in ("scientific", "nuisance", "transfer", "confirm"):
        whole.pop(name, None)
    return StudySpec.model_validate(whole)


def test_the_recipe_can_be_pasted_into_a_study_file() -> None:
    found = recommended(num_workers=4)
    made = pasted(found)
    assert not check_study(made)
    assert made.fixed.global_batch_size == 256
    assert made.resources.num_workers == 4
    assert found.trial is not None
    assert made.fixed.peak_lr == found.trial.peak_lr
    assert made.fixed.warmup_steps == 10
    assert made.fixed.clip_norm == 1.0
    assert found.option is not None
    assert (made.budget.steps or 0) >= (found.option.steps.value or 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        {"optimizer": "lion", "beta2": 0.99},
        {"optimizer": "lars", "momentum": 0.9},
        {"optimizer": "adafactor"},
        {"schedule": "linear", "min_lr_ratio": 0.1},
        {"clip_norm": None, "clip_percentile": 90.0, "clip_history_steps": 100},
        {"batch_ramp_at_examples": (4000,), "batch_ramp_factor": 4},
        {"weight_average_half_life_examples": 2000.0, "label_smoothing": 0.1},
    ],
    ids=lambda changes: str(next(iter(changes.values()))),
)
def test_every_hyperparameter_of_the_recipe_comes_through(changes: dict[str, Any]) -> None:
    trial = recommended().trial
    assert trial is not None
    assert trial.recipe is not None
    other = replace(trial, recipe=changed(trial.recipe, **changes))
    made = pasted(replace(recommended(), trial=other))
    for name, value in changes.items():
        got = getattr(made.fixed, name)
        assert got == value, name
    # A rate that decays over the budget cannot be asked when it reached a target.
    allowed = {"fixed.schedule"} if "schedule" in changes else set()
    assert {issue.path for issue in check_study(made)} <= allowed


def test_a_price_is_needed_for_a_ceiling() -> None:
    with pytest.raises(ValueError, match="price_per_worker_hour"):
        Limits(cost_ceiling=1.0)


def without_target(changed_: Callable[[TrialRecord], TrialRecord], **changes: Any) -> Findings:
    record = study(QUIET)
    spec_ = record.spec.model_copy(update={"target": None, **changes})
    return findings_of(StudyRecord(spec_, tuple(map(changed_, record.trials))))


def with_losses(trial: TrialRecord, change: Callable[[Measurement], Measurement]) -> TrialRecord:
    return replace(trial, measurements=tuple(map(change, trial.measurements)))


def test_confirm_trials_that_all_failed_leave_the_search_s_recipe() -> None:
    record = study(QUIET)
    trials = [replace(t, status="failed") if t.phase == "confirm" else t for t in record.trials]
    without_transfer = tuple(t for t in trials if t.phase != "transfer")
    found = findings_of(StudyRecord(record.spec, without_transfer)).recommendation
    assert found.trial is not None
    assert found.trial.phase == "search"


@pytest.mark.parametrize("limits", [{}, {"deadline_seconds": 100.0, "num_workers": 1}])
def test_a_recipe_of_which_seeds_diverge_is_not_recommended_by_the_others(limits: Any) -> None:
    def change(trial: TrialRecord) -> TrialRecord:
        if trial.phase != "confirm" or trial.cell["global_batch_size"] != 256:
            return trial
        if trial.trial_id != "confirm-256-0":
            return replace(trial, status="diverged", measurements=trial.measurements[:1])
        return with_losses(
            trial, lambda m: replace(m, validation_loss=0.1 if m.step else 3.0, test_loss=0.1)
        )

    assert chosen(recommended(without_target(change), **limits))[0] != 256


def test_a_run_that_is_cut_short_is_compared_by_the_loss_that_it_has() -> None:
    """Test losses, which runs to the end alone have, are higher by 0.6."""

    def change(trial: TrialRecord) -> TrialRecord:
        return with_losses(
            trial, lambda m: replace(m, test_loss=m.validation_loss and m.validation_loss + 0.6)
        )

    found = recommended(without_target(change), deadline_seconds=2.3)
    assert any(option.cut_short for option in found.candidates)
    assert found.option is not None
    assert not found.option.cut_short
    assert found.option.loss_name == "validation_loss"
    assert found.option.loss.value == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shift", [0.0, -3.0])
def test_losses_below_zero_tie_no_sooner(shift: float) -> None:
    def change(trial: TrialRecord) -> TrialRecord:
        lower = 0.3 if trial.cell["global_batch_size"] == 256 else 0.0

        def moved(m: Measurement) -> Measurement:
            losses = (m.validation_loss or 0.0, m.test_loss or 0.0)
            validation, test = (loss + shift - lower for loss in losses)
            return replace(m, validation_loss=validation, test_loss=test)

        return with_losses(trial, moved)

    found = recommended(without_target(change), deadline_seconds=100.0, num_workers=1)
    assert isinstance(found.reason, BestWithinLimits)
    assert chosen(found)[0] == 256
    assert found.reason.tied == ()
