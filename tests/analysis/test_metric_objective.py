"""A study that is tuned for a metric: planted so that its best rates are not those of the loss."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.metrics import Metric, to_plain
from scaling.records.objective import oriented
from scaling.records.outcome import crossing, objective_value
from scaling.records.study import StudyRecord
from scaling.records.trial import TrialRecord
from scaling.report.charts.figures import figures
from scaling.report.summary import summarize
from scaling.report.words.headline import first_screen
from scaling.report.words.remarks import flags
from scaling.spec.evaluation import Target
from scaling.spec.phases import Limits
from tests.analysis.synthetic import BATCHES, Truth, study

ACCURACY = {"accuracy": Metric("accuracy", "?", unit="fraction", direction="maximize")}
TRUTH = Truth()
FURTHER = 10.0
"""The rates that are best for the accuracy, over those that are best for the loss."""
TARGET = {"metric": "accuracy", "at_least": 0.8}


def best_accuracy(batch: int) -> float:
    """With the best rate; the batch of 256 has the highest."""
    return 0.9 - 0.02 * abs(math.log2(batch / 256))


def with_accuracy(record: TrialRecord) -> TrialRecord:
    """A planted trial whose accuracy rises in a straight line of steps, to what its rate gives."""
    hparams = record.recipe.hyperparameters
    batch, rate = hparams.global_batch_size, hparams.peak_lr
    assert rate is not None
    distance = math.log(rate / (FURTHER * TRUTH.optimum(batch)))
    loss = record.measurements[-1].validation_loss
    assert loss is not None
    noise = 0.1 * (loss - TRUTH.loss(batch, rate))
    final = best_accuracy(batch) - 0.01 * distance**2 + noise
    last = record.measurements[-1].step
    measured = tuple(
        replace(m, metrics={"accuracy": 0.5 + (final - 0.5) * m.step / last})
        for m in record.measurements
    )
    return replace(record, measurements=measured)


def planted(objective: str = "accuracy", **changes: Any) -> StudyRecord:
    """The planted study with an accuracy along its runs."""
    search = {"trials_per_cell": 12, "objective": objective}
    known = study(TRUTH, search=search, target=TARGET, **changes)
    environment = {**known.environment, "metrics": to_plain(ACCURACY)}
    trials = tuple(map(with_accuracy, known.trials))
    return replace(known, trials=trials, environment=environment)


def without(known: StudyRecord, *phases: str) -> StudyRecord:
    kept = tuple(trial for trial in known.trials if trial.phase not in phases)
    sections = dict.fromkeys(phases)
    return replace(known, spec=known.spec.model_copy(update=sections), trials=kept)


def test_best_rates_follow_the_accuracy_and_losses_stay_as_they_are() -> None:
    known = without(planted(), "transfer", "confirm")
    by_loss = without(planted("validation_loss"), "transfer", "confirm")
    found, other = (summarize(analyse(sweep_of(record))) for record in (known, by_loss))
    for batch, cell, same in zip(BATCHES, found["cells"], other["cells"], strict=True):
        assert math.log(cell["best_peak_lr"] / (FURTHER * TRUTH.optimum(batch))) == pytest.approx(
            0, abs=0.7
        )
        assert cell["best_peak_lr"] > 3 * same["best_peak_lr"]
        best = max(
            trial.measurements[-1].metrics["accuracy"]
            for trial in known.trials
            if trial.cell["global_batch_size"] == batch and trial.status == "done"
        )
        assert cell["metrics"]["accuracy"]["value"] == pytest.approx(best)
        assert cell["validation_loss"] > same["validation_loss"]


def test_the_recommendation_follows_the_accuracy_where_there_is_no_target() -> None:
    known = planted()
    sections = {"target": None, "transfer": None}
    untargeted = replace(known, spec=known.spec.model_copy(update=sections))
    summary = summarize(analyse(sweep_of(untargeted)))
    assert summary["recommendation"]["global_batch_size"] == 256
    assert "highest accuracy" in summary["recommendation"]["reason"]
    assert "nats" not in summary["recommendation"]["reason"]


def test_steps_to_target_are_counted_on_the_accuracy() -> None:
    known = planted().trials
    record = max(known, key=lambda trial: trial.measurements[-1].metrics["accuracy"])
    final = record.measurements[-1]
    reached = crossing(record.measurements, Target(metric="accuracy", at_least=0.8))
    assert reached is not None
    share = (0.8 - 0.5) / (final.metrics["accuracy"] - 0.5)
    assert reached.steps == pytest.approx(share * final.step)
    assert crossing(record.measurements, Target(metric="accuracy", at_least=0.99)) is None


def test_a_missed_target_of_a_metric_is_worse_than_any_that_was_reached() -> None:
    known = planted("steps_to_target")
    ended = [trial for trial in known.trials if trial.status == "done"]
    target = known.spec.target
    assert target is not None
    values = {t.trial_id: objective_value(t, known.spec, known.metrics) or 0.0 for t in ended}
    reached = [t for t in ended if crossing(t.measurements, target) is not None]
    missed = [t for t in ended if crossing(t.measurements, target) is None]
    assert max(values[t.trial_id] for t in reached) < min(values[t.trial_id] for t in missed)
    by_accuracy = sorted(missed, key=lambda t: -t.measurements[-1].metrics["accuracy"])
    assert sorted(missed, key=lambda t: values[t.trial_id]) == by_accuracy


def test_a_record_that_lost_the_direction_is_not_guessed_at() -> None:
    known = planted()
    with pytest.raises(LookupError, match="accuracy should be high or low"):
        sweep_of(replace(known, environment={}))


def test_orienting_twice_gives_the_value_back() -> None:
    assert oriented(oriented(0.3, "maximize"), "maximize") == 0.3
    assert oriented(0.3, "maximize") < oriented(0.2, "maximize")
    assert oriented(0.3, "minimize") == 0.3


def test_within_limits_the_highest_accuracy_decides() -> None:
    known = planted()
    limits = Limits(deadline_seconds=1e6)
    sections = {"target": None, "transfer": None, "recommendation": limits}
    summary = summarize(
        analyse(sweep_of(replace(known, spec=known.spec.model_copy(update=sections))))
    )
    assert summary["recommendation"]["global_batch_size"] == 256
    assert "The highest accuracy within" in summary["recommendation"]["reason"]
    assert "nats" not in summary["recommendation"]["reason"]


def test_what_a_rule_costs_is_counted_in_the_accuracy() -> None:
    findings = analyse(sweep_of(planted()))
    summary = summarize(findings)
    # The transferred rates lie around the loss's best ones: sqrt has those, as the confirm runs.
    regret = {r["global_batch_size"]: r for r in summary["lr_scaling"]["regret"]["sqrt"]}
    assert regret[256]["regret"] == pytest.approx(0, abs=0.01)
    none = {r["global_batch_size"]: r for r in summary["lr_scaling"]["regret"]["none"]}
    nearer, best = math.log(TRUTH.optimum(64) / TRUTH.optimum(1024)), math.log(FURTHER)
    expected = 0.01 * ((best - nearer) ** 2 - best**2)  # at 1024 its rate is a quarter of the best
    assert none[1024]["regret"] == pytest.approx(expected, abs=0.01)
    said = [line.text for line in first_screen(findings) if line.topic == "rate"]
    assert said
    assert not any("nats" in sentence for sentence in said)


def test_trials_without_the_metric_are_named_in_one_line() -> None:
    known = planted()
    first, *others = known.trials
    lost = replace(first, measurements=tuple(replace(m, metrics={}) for m in first.measurements))
    findings = analyse(sweep_of(replace(known, trials=(lost, *others))))
    [line] = [line for line in flags(findings) if "without accuracy" in line]
    assert line.startswith("1 trial of ")
    assert first.trial_id in line


def test_figures_show_the_accuracy_with_the_worse_edge_at_the_bottom() -> None:
    known = planted()
    drawn = {figure.name: figure for figure in figures(analyse(sweep_of(known)), {}, None)}
    assert drawn["loss_vs_batch"].title.startswith("Accuracy")
    for name in ("loss_vs_lr", "learning_curves", "parallel_coordinates"):
        spec = drawn[name].spec
        assert spec is not None, drawn[name].absent
        assert "nats" not in json.dumps(spec)
