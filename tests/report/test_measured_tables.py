"""What is measured is shown: the task's metrics, speed, memory, incidents."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import pytest

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.measurement import MEASURED, Measurement
from scaling.records.metrics import Metric, metrics_of, to_plain
from scaling.records.study import StudyRecord
from scaling.records.trial import TrialRecord
from scaling.report.document import write_report
from scaling.report.summary import summarize
from scaling.report.tables.measured_tables import (
    incident_words,
    incidents_table,
    measured_table,
    task_metrics_table,
)
from scaling.report.tables.trials_parquet import trials_parquet
from scaling.report.words.terms import terms
from tests.analysis.synthetic import study

DESCRIBED = {
    "accuracy": Metric("accuracy", "Share that is right.", unit="fraction", direction="maximize"),
    "perplexity": Metric(
        "perplexity", "exp of the loss.", direction="minimize", over_seeds="geometric_mean"
    ),
    "never_measured": Metric("ghost", "Nothing."),
}
ACCURACY = {100: 0.5, 101: 0.6, 102: 0.7}
INCIDENTS: list[dict[str, Any]] = [
    {"kind": "restarted", "attempt": 2, "cause": "the workers <died>"},
    {"kind": "resumed", "step": 1200},
    {"kind": "out_of_memory", "step": 7, "micro_batch_size": 4},
    {"kind": "checkpoint_failed", "cause": "No space left on device"},
    {"kind": "checkpoint_passed_over", "step": 50, "cause": "is cut off"},
    {"kind": "model_not_kept", "cause": "the bucket is away"},
    {"kind": "no_top_eigenvalue", "cause": "is not implemented"},
    {"kind": "left_out", "count": 90},
]
WORDS = (
    "restarted (attempt 2): the workers <died>",
    "resumed from the checkpoint at step 1,200",
    "memory ran out at step 7; went on with a micro-batch of 4",
    "a checkpoint could not be written: No space left on device",
    "the checkpoint at step 50 was passed over: is cut off",
    "the model could not be kept: the bucket is away",
    "the largest eigenvalue of the Hessian could not be measured: is not implemented",
    "90 incidents that MLflow's record of it has no room for",
)


def measured(trial: TrialRecord) -> TrialRecord:
    """With what a task and a GPU measure; only confirm knows accuracies."""
    accuracy = ACCURACY.get(trial.recipe.seed, 0.1)
    return replace(
        trial,
        measurements=tuple(
            replace(
                m, tokens_per_second=2000.0, model_flop_utilization=0.382, flops_per_example=2e9,
                peak_memory_bytes=float(trial.recipe.seed) * 2**30,
                metrics={"accuracy": accuracy, "perplexity": 8.0},
            )
            for m in trial.measurements
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def record() -> StudyRecord:
    plain = study()
    first, second, *others = map(measured, plain.trials)
    happened = replace(first, incidents=tuple(INCIDENTS))
    failed = replace(second, status="failed", error="ValueError: the loss | is odd")
    environment = {**plain.environment, "metrics": to_plain(DESCRIBED)}
    return replace(plain, trials=(happened, failed, *others), environment=environment)


@pytest.fixture(scope="module")
def findings(record: StudyRecord) -> Findings:
    return analyse(sweep_of(record))


def column(table: Any, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


def test_metrics_of_the_task_are_pooled_over_confirm_seeds(findings: Findings) -> None:
    table = task_metrics_table(findings)
    assert table is not None
    assert table.columns == ("cell", "accuracy (%)", "perplexity")
    assert column(table, "cell") == ["16", "64", "256", "1,024"]
    assert column(table, "accuracy (%)") == ["60\n[43.1, 76.9]"] * 4
    assert (
        column(table, "perplexity") == ["8.00"] * 4
    )  # seeds that agree say nothing of the next one
    assert table.remarks == ("Higher is better: accuracy.", "Lower is better: perplexity.")


def test_summary_has_what_was_measured_with_its_interval(findings: Findings) -> None:
    summary = summarize(findings)
    json.dumps(summary, allow_nan=False)
    assert summary["metrics"]["accuracy"] == {
        "label": "accuracy", "unit": "fraction", "direction": "maximize",
    }  # fmt: skip
    assert summary["metrics"].keys() == {"accuracy", "perplexity"}
    for cell in summary["cells"]:
        assert cell["metrics"]["accuracy"]["value"] == pytest.approx(0.6)
        low, high = cell["metrics"]["accuracy"]["interval"]
        assert low < 0.6 < high
        assert cell["measured"]["tokens_per_second"]["value"] == pytest.approx(2000.0)
        assert cell["measured"]["model_flop_utilization"]["value"] == pytest.approx(0.382)
        assert cell["measured"]["peak_memory_bytes"] == {
            "value": 102 * 2**30,
            "interval": None,
            "why": {"interval": "it is the largest of all seeds, not their mean"},
        }
        assert "examples_per_second" not in cell["measured"]
        assert all(one["value"] is not None for one in cell["measured"].values())
        assert cell["measured"]["validation_loss"]["value"] == cell["validation_loss"]


def test_speed_and_memory_are_in_units_one_can_read(findings: Findings) -> None:
    table = measured_table(findings, "hardware")
    assert table is not None
    assert "examples per second" not in table.columns  # not measured
    assert column(table, "tokens per second")[0].startswith("2,000")
    assert column(table, "model FLOP utilization (%)")[0].startswith("38.2")
    assert column(table, "work per example (GFLOP)") == ["2.00"] * 4
    assert column(table, "peak memory (GiB)") == ["102"] * 4


def test_incidents_are_told_with_their_trial(record: StudyRecord, findings: Findings) -> None:
    first, second, *_ = record.trials
    table = incidents_table(findings, record.trial_urls)
    assert table is not None
    failed = "failed: ValueError: the loss | is odd"
    assert column(table, "what happened") == [*WORDS, failed]
    assert column(table, "trial") == [first.trial_id] * 8 + [second.trial_id]
    assert column(table, "ended as")[-1] == "failed"
    assert table.links[0] == record.trial_urls[first.trial_id]
    assert table.note.startswith("9 incidents in 2 trials.")
    told = summarize(findings)["incidents"]
    assert told[0] == {"trial_id": first.trial_id, **INCIDENTS[0]}
    assert told[-1]["kind"] == "failed"


def test_an_incident_of_another_version_is_shown_as_it_is() -> None:
    assert incident_words({"kind": "moved", "to": "b"}) == '{"kind": "moved", "to": "b"}'


def test_the_report_holds_all_of_it(record: StudyRecord, tmp_path: Path) -> None:
    write_report(record, tmp_path)
    text, page = ((tmp_path / f"report.{kind}").read_text() for kind in ("md", "html"))
    for title in ("Task metrics", "Speed and memory", "Optimization", "Incidents"):
        assert f"### {title}" in text
        assert f">{title}</h3>" in page
    assert "memory ran out at step 7" in text
    assert "the workers &lt;died&gt;" in page
    assert "- **accuracy**: Share that is right; higher is better." in text
    assert "| 16 | 60 [43.1, 76.9] | 8.00 |" in text
    assert "never_measured" not in text + page
    rows = pq.read_table(tmp_path / "trials.parquet").to_pylist()
    assert json.loads(rows[0]["incidents"]) == INCIDENTS
    assert rows[0]["accuracy"] == 0.1
    assert rows[1]["accuracy"] is None  # failed
    assert rows[2]["tokens_per_second"] == pytest.approx(2000.0)


def test_a_study_that_measured_none_of_it_has_no_such_table() -> None:
    findings = analyse(sweep_of(study()))
    assert task_metrics_table(findings) is None
    assert incidents_table(findings, {}) is None
    assert summarize(findings)["incidents"] == []
    assert all(cell["metrics"] == {} for cell in summarize(findings)["cells"])


def test_a_metric_that_was_not_described_has_its_name_and_no_direction() -> None:
    plain = study()
    findings = analyse(sweep_of(replace(plain, trials=tuple(map(measured, plain.trials)))))
    table = task_metrics_table(findings)
    assert table is not None
    assert table.columns == ("cell", "accuracy", "perplexity")
    assert table.remarks == ()
    assert summarize(findings)["metrics"]["accuracy"]["direction"] is None


@pytest.mark.parametrize("table", ["hardware", "optimization"])
def test_a_field_that_is_added_is_shown_and_explained(
    table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    luck = Metric("luck", "How lucky it was.", direction="maximize", table=table)
    added = [("luck", Annotated[float | None, luck], dataclasses.field(default=None))]
    longer = dataclasses.make_dataclass("Longer", added, bases=(Measurement,), frozen=True)
    monkeypatch.setitem(MEASURED, "luck", metrics_of(longer)["luck"])
    monkeypatch.setattr("scaling.report.words.measurements.ALL", {**MEASURED, "luck": luck})
    plain = study()
    trials = tuple(
        replace(
            trial,
            measurements=tuple(longer(**vars(m), luck=7.0) for m in trial.measurements),
        )
        for trial in plain.trials
    )
    sweep = sweep_of(replace(plain, trials=trials))
    findings = analyse(sweep)

    shown = measured_table(findings, table)

    assert shown is not None
    assert column(shown, "luck") == ["7.00\n[7.00, 7.00]"] * 4
    assert ("luck", "How lucky it was; higher is better.") in terms(findings)
    cells = summarize(findings)["cells"]
    assert all(cell["measured"]["luck"]["value"] == 7.0 for cell in cells)
    assert b"luck" in trials_parquet(sweep.rows)
