"""What to run and what it comes to: nothing is said that the trials do not show."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.analysis.baseline import NothingLearnt
from scaling.analysis.findings import Findings, analyse
from scaling.analysis.next_run.recommendation import BestWithinLimits, LowestCell, _best_cell
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.analysis.trial_rows import Baseline, sweep_of
from scaling.records.study import StudyRecord
from scaling.records.trial import TrialRecord
from scaling.report.document import _recommendation_words
from scaling.report.words.headline import Topic, first_screen
from scaling.report.words.reasons import not_learnt_words, nothing_learnt_words, reason_words
from scaling.spec.phases import Limits
from tests.analysis.synthetic import study
from tests.analysis.test_metric_objective import planted
from tests.report.kinds import findings_of, joint_by_the_surface, table


def said(findings: Findings, topic: Topic = "run") -> str:
    return " ".join(line.text for line in first_screen(findings) if line.topic == topic)


def of(record: StudyRecord) -> Findings:
    return analyse(sweep_of(record))


def changed(record: StudyRecord, change: Callable[[TrialRecord], TrialRecord]) -> StudyRecord:
    return replace(record, trials=tuple(map(change, record.trials)))


def test_how_a_tie_within_limits_is_decided() -> None:
    found = findings_of("deadline")
    reason = found.recommendation.reason
    assert isinstance(reason, BestWithinLimits)
    others = tuple(cell for cell in found.cells if cell is not reason.chosen.cell)[:1]
    tied = replace(found.recommendation, reason=replace(reason, tied=others))
    words = said(replace(found, recommendation=tied))
    assert "; among ties, the fewest workers and then the smallest batch are chosen." in words
    same = tuple(replace(c, global_batch_size=reason.chosen.cell.global_batch_size) for c in others)
    tied = replace(found.recommendation, reason=replace(reason, tied=same))
    words = said(replace(found, recommendation=tied))
    assert "; among ties, the fewest workers and then the best one are chosen." in words


def test_of_cells_of_one_batch_the_best_is_chosen() -> None:
    found = findings_of("two clip norms")
    assert "from global_batch_size 256, clip_norm 1.0; the best one is chosen." in said(found)
    assert "smallest batch" not in " ".join(reason_words(found.recommendation.reason))


def test_a_joint_search_recommends_only_what_is_recommended() -> None:
    lost = joint_by_the_surface("diverged")
    assert lost.recommendation.option is None
    assert said(lost, "batch") == (
        "The joint search's best recipe has a batch of 64; 2 of 2 new seeds diverged."
    )
    failed = said(joint_by_the_surface("failed"), "batch")
    assert failed == "The best of 30 trials in the joint search has a batch of 1,024."
    assert "recommends a batch of 64; over 2 new seeds its" in said(joint_by_the_surface(), "batch")


def test_a_mean_over_the_seeds_that_are_left_is_not_the_lowest_loss() -> None:
    """At 16 two seeds are left of three, with a loss below all others."""

    def lost(record: TrialRecord) -> TrialRecord:
        if record.cell["global_batch_size"] != 16 or record.phase != "confirm":
            return record
        if record.trial_id == "confirm-16-0":
            return replace(record, status="diverged")
        measured = [replace(m, validation_loss=0.1) for m in record.measurements]
        return replace(record, measurements=tuple(measured))

    found = of(changed(study(target=None), lost))
    assert found.cells[0].validation_loss.value == pytest.approx(0.1)
    words = said(found, "batch") + said(found, "cost")
    assert "0.100" not in words
    assert "at a batch of 16" not in words
    assert "64 to 1,024" in said(found, "cost")

    def all_lost(record: TrialRecord) -> TrialRecord:
        first = record.phase == "confirm" and record.trial_id.endswith("-0")
        return replace(record, status="diverged") if first else record

    none = of(changed(study(target=None), all_lost))
    assert "in each cell a seed of the best recipe diverged" in said(none, "batch")


BASELINE = Baseline("class frequencies", 5.0, accuracy=0.95)


def test_what_is_tuned_for_an_accuracy_is_judged_by_it() -> None:
    """The losses beat the guess, the accuracies do not."""
    sweep = replace(sweep_of(planted(transfer=None)), baseline=BASELINE)
    found = analyse(replace(sweep, has_target=False, target=None))
    reason = found.recommendation.reason
    assert isinstance(reason, NothingLearnt)
    words = "No trial's accuracy is above that of the likeliest guess (0.950), so no batch is"
    assert nothing_learnt_words(reason) == f"{words} recommended."
    assert words in said(found)
    assert "nats" not in said(found)
    lucky = replace(reason, nearest="single_trial", best_accuracy=0.96)
    assert nothing_learnt_words(lucky) == (
        "Over seeds no recipe beats the likeliest guess (0.950), so no batch is recommended; the "
        "highest accuracy of a single trial is 0.960."
    )
    some = replace(sweep, baseline=replace(BASELINE, accuracy=0.82))
    text = not_learnt_words(analyse(replace(some, has_target=False, target=None)))
    assert text.startswith("Not better than the likeliest guess (0.820): global_batch_size ")


def test_a_table_s_target_is_of_the_table_s_own_loss(tmp_path: Path) -> None:
    lines = [f"{b},0.8,{1000 // b},0.9" for b in (16, 64)]
    header = "global_batch_size,word_loss,steps_to_target,target"
    found = table(tmp_path, header, lines, rename=[("word_loss", "validation_loss")])
    assert said(found, "batch").startswith("Reaching a word loss of 0.900 takes 62 steps at ")


def test_the_next_batch_is_another_one(tmp_path: Path) -> None:
    """Of 64 and 128, which tie, the smaller one is chosen; without intervals the best one."""
    lines = ["64,101,0", "64,103,1", "64,105,2", "128,100,0", "128,102,1", "128,104,2", "256,900,0"]
    found = table(tmp_path, "global_batch_size,steps_to_target,seed", lines)
    reason = found.recommendation.reason
    assert isinstance(reason, LowestCell)
    assert reason.is_known
    assert found.recommendation.global_batch_size == 64
    assert "The data do not distinguish it from a batch of 128; the smallest batch" in said(found)
    options = [option for option in found.recommendation.candidates if option.steps.value]
    values = [option.mean_steps for option in options]
    values[1] = replace(values[1], interval=None)
    unknown = _best_cell(found.sweep, "steps_to_target", options, values)
    assert not unknown.is_known
    assert "It or the next one has no interval, so whether they tie is" in reason_words(unknown)
    recommended = replace(found.recommendation, reason=unknown, option=unknown.chosen)
    next_one = said(replace(found, recommendation=recommended))
    assert "The next fewest steps to the target are 102, at a batch of 128" in next_one
    values = [option.mean_steps for option in options]
    values[2] = replace(values[2], interval=None)
    assert _best_cell(found.sweep, "steps_to_target", options, values).is_known


def test_the_recommended_run_shows_the_metric_that_it_is_tuned_for() -> None:
    sweep = sweep_of(planted(transfer=None))
    seconds = replace(sweep.tuned_for, unit="seconds", label="latency")
    found = analyse(replace(sweep, tuned_for=seconds, has_target=False, target=None))
    facts = dict(_recommendation_words(found.recommendation, seconds))
    assert facts["expected latency"].startswith("0.847 [")
    assert " seconds" in said(found)
    limited = replace(found.sweep, limits=Limits(deadline_seconds=1e6))
    assert " seconds after " in reason_words(analyse(limited).recommendation.reason)


def test_seconds_on_other_workers_than_the_study_s_say_so() -> None:
    found = findings_of("ceiling on cost")
    option = found.recommendation.option
    assert option is not None
    assert option.carried_over
    assert f"seconds on {option.num_workers} workers at best, a validation loss" in said(found)
    assert "workers" not in said(findings_of("whole study"))


def test_what_a_single_trial_was_picked_by_is_not_expected_again() -> None:
    words = said(findings_of("table of losses"))
    assert re.search(r"Its trial reached a validation loss of [\d.]+ nats; expect somewhat", words)
    assert "in one more run" not in words
    assert "Its trial" not in said(findings_of("table with seeds"))


def test_of_too_many_sentences_the_last_is_left_out() -> None:
    """What to expect ranks with later ones of the rate and the cost."""
    words = said(findings_of("one seed a branch"))
    assert " expect " in words


def test_that_the_baseline_is_not_beaten_is_said_once() -> None:
    words = said(findings_of("baseline not beaten"))
    assert words.count("batch is recommended") == 1
    assert "No recipe" not in words


def test_losses_at_the_target_and_at_the_end_are_told_apart() -> None:
    assert ": final loss 0.499 [" in said(findings_of("whole study"), "cost")
    assert "final" not in said(findings_of("no target"), "cost")
    assert "at the end of the budget" in said(findings_of("joint search"), "batch")


def test_a_runner_up_that_looks_like_the_best_is_told_from_it() -> None:
    found = findings_of("table of losses")
    reason = found.recommendation.reason
    assert isinstance(reason, LowestCell)
    close = replace(reason, values=(Estimate(1.1604), Estimate(1.1623), *reason.values[2:]))
    words = said(replace(found, recommendation=replace(found.recommendation, reason=close)))
    assert "The next lowest validation loss is 1.162 nats after 1.160, at a batch of" in words
