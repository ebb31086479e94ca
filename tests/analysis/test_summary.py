"""summary.json keeps its contract whatever the study left behind."""

import json
from dataclasses import replace
from typing import Any

import pytest

from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.study import StudyRecord
from scaling.report.summary import summarize
from scaling.report.words.remarks import flags
from tests.analysis.synthetic import joint_study, spec, study

TOP = {
    "study", "question", "answer", "num_trials", "num_diverged", "num_failed", "interval_level",
    "cells", "lr_scaling", "critical_batch_size", "recommendation", "matched_gaps",
    "extended_cells",
}  # fmt: skip
CELL = {
    "global_batch_size", "num_trials", "num_seeds", "num_censored", "best_peak_lr",
    "best_peak_lr_interval", "validation_loss", "train_loss", "test_loss", "generalization_gap",
    "generalization_gap_interval", "steps_to_target", "examples_to_target", "seconds_to_target",
    "grad_noise_scale", "undertuned", "expected_regret",
}  # fmt: skip
RECOMMENDATION = {
    "global_batch_size", "peak_lr", "warmup_steps", "clip_norm", "expected_steps",
    "expected_seconds", "expected_loss_interval", "reason", "num_workers",
    "expected_steps_interval", "expected_examples", "expected_seconds_interval", "expected_cost",
    "expected_cost_interval", "expected_loss", "meets_limits", "chance_within_limits", "recipe",
    "pareto_front", "chance_of_target", "mean_steps_to_target", "mean_steps_to_target_interval",
    "mean_idle_seconds", "mean_idle_seconds_interval", "why",
}  # fmt: skip


def checked(record: StudyRecord) -> dict[str, Any]:
    """The summary, after every promise of its schema is checked."""
    summary = summarize(analyse(sweep_of(record)))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert set(summary) >= TOP
    for cell in summary["cells"]:
        assert set(cell) >= CELL
        assert isinstance(cell["undertuned"], bool)
    assert set(summary["lr_scaling"]) - {"why"} == {
        "exponent", "interval", "has_common_shape", "is_shape_checked",
        "evidence", "surge", "regret", "path", "turns", "regret_by_surface",
    }  # fmt: skip
    for entries in summary["lr_scaling"]["regret"].values():
        for entry in entries:
            assert set(entry) - {"why"} == {
                "global_batch_size",
                "regret",
                "interval",
                "diverged",
                "applicable",
            }
    critical = summary["critical_batch_size"]
    fit = {
        "value", "interval", "min_steps", "min_examples", "target", "alpha", "at_twice_min_steps",
    }  # fmt: skip
    assert set(critical) >= {"steps_examples", "noise_scale", "branched", "overhead_20"}
    assert set(critical["steps_examples"]) >= fit
    assert set(critical["branched"]) == {
        "value", "interval", "is_lower_bound", "tolerance", "at", "why",
    }  # fmt: skip
    assert critical["branched"]["value"] is None
    assert critical["branched"]["at"] == []
    assert summary["extended_cells"] == []
    assert set(summary["recommendation"]) == RECOMMENDATION
    assert set(summary["matched_gaps"]) == {
        "matched_steps", "matched_examples", "matched_train_loss",
    }  # fmt: skip
    for matched in summary["matched_gaps"].values():
        assert len(matched["cells"]) == len(summary["cells"])
    assert summary["answer"]
    assert summary["interval_level"] == 0.9
    return summary


def test_whole_study() -> None:
    record = study()
    summary = checked(record)
    assert summary["num_trials"] == len(record.trials)
    assert summary["num_diverged"] == sum(t.status == "diverged" for t in record.trials)
    assert [cell["global_batch_size"] for cell in summary["cells"]] == [16, 64, 256, 1024]
    assert all("cell" not in cell for cell in summary["cells"])
    fit = summary["critical_batch_size"]["steps_examples"]
    assert fit["value"] == pytest.approx(fit["min_examples"] / fit["min_steps"])
    assert fit["value"] == pytest.approx(100, rel=0.05)
    assert set(summary["lr_scaling"]["regret"]) == {"none", "sqrt", "linear"}
    assert summary["recommendation"]["global_batch_size"] == 256
    run = summary["recommendation"]  # ends soon after the target at 1.0, far above the last loss
    low, high = run["expected_loss_interval"]
    assert low < run["expected_loss"] < high
    assert 0.9 < run["expected_loss"] < 1.0


def test_joint_search() -> None:
    summary = checked(joint_study())
    assert [cell["cell"] for cell in summary["cells"]] == [{}]
    law = summary["lr_scaling"]
    assert (law["exponent"], law["interval"], law["evidence"], law["regret"]) == (
        None,
        None,
        [],
        {},
    )


def test_no_trials_at_all() -> None:
    summary = checked(StudyRecord(spec(), ()))
    assert summary["cells"] == []
    assert "Not enough data" in summary["answer"]
    assert summary["recommendation"]["global_batch_size"] is None


def test_nothing_but_lost_trials() -> None:
    record = study()
    lost = tuple(
        replace(t, status="diverged" if index % 2 else "failed", error=None)
        for index, t in enumerate(record.trials)
    )
    summary = checked(replace(record, trials=lost))
    assert summary["num_diverged"] + summary["num_failed"] == len(lost)
    assert all(cell["validation_loss"] is None for cell in summary["cells"])
    assert summary["recommendation"]["peak_lr"] is None


def test_trials_that_still_run_do_not_count() -> None:
    record = study()
    running = replace(record.trials[0], status="running")
    summary = checked(replace(record, trials=(running, *record.trials[1:])))
    assert summary["num_trials"] == len(record.trials) - 1


def test_target_never_reached() -> None:
    summary = checked(study(target={"at_most": 0.01}))
    for cell in summary["cells"]:
        assert cell["steps_to_target"] is None
        assert cell["num_censored"] > 0
    assert "Not enough data on steps" in summary["answer"]


def test_without_a_target_the_lowest_loss_is_recommended() -> None:
    summary = checked(study(target=None))
    best = min(summary["cells"], key=lambda cell: cell["validation_loss"])
    assert summary["recommendation"]["global_batch_size"] == best["global_batch_size"]
    assert "do not distinguish" in summary["recommendation"]["reason"]


def test_one_seed_gives_no_interval() -> None:
    summary = checked(study(num_seeds=1))
    assert all(cell["generalization_gap_interval"] is None for cell in summary["cells"])
    assert all(r["interval"] is None for r in summary["lr_scaling"]["regret"]["sqrt"])


@pytest.mark.parametrize("count", [1, 2, 3, 5, 20])
def test_a_study_that_was_cut_short(count: int) -> None:
    record = study()
    checked(replace(record, trials=record.trials[:count]))


@pytest.mark.parametrize("share", [1, 2, 10])
def test_a_model_that_is_at_the_target_before_its_first_step(share: int) -> None:
    sweep = sweep_of(study())
    there = {"steps_to_target": 0.0, "examples_to_target": 0.0, "seconds_to_target": 0.0}
    rows = tuple(
        replace(row, **there) if place % share == 0 else row for place, row in enumerate(sweep.rows)
    )
    summary = summarize(analyse(replace(sweep, rows=rows)))
    assert json.loads(json.dumps(summary, allow_nan=False))["answer"]


def test_a_rule_that_diverged_as_it_was_run_is_said_so() -> None:
    findings = analyse(sweep_of(study()))
    lost = [r for r in findings.regrets if r.diverged]
    assert {r.rule for r in lost} == {"linear"}
    assert any(curve.rule == "linear" for curve in findings.rule_curves)
    places = " and ".join(f"{regret.global_batch_size:,}" for regret in lost)
    base = findings.sweep.base_batch_size
    assert f"The recipe carried from {base} by the rule linear diverged at {places}." in (
        flags(findings)
    )
