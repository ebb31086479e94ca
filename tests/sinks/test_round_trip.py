"""Against real temporary MLflow stores: what is logged is loaded, exactly, and reads well."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from mlflow.utils.validation import _validate_param

from scaling.files.own import write_report_files
from scaling.records.measurement import Measurement
from scaling.records.trial import TrialRecord
from scaling.sinks import StudyEnd
from scaling.sinks.mlflow.load import load_study
from scaling.sinks.mlflow.study_file import spec_to_yaml
from scaling.sinks.mlflow.trial_run import cell_label, params, tags, trial_name
from scaling.spec.study import StudySpec
from scaling.spec.yaml_text import parse_yaml
from tests.sinks.servers import MlflowServer
from tests.sinks.told import client, measurement, open_sink, recipe, runs, track, trial

ENVIRONMENT = {"torch": "2.13.0", "num_cpus": 2, "commit": None, "hosts": ["a", "b"]}


# --- round trip -----------------------------------------------------------------------------------


def test_records_come_back_exactly(state: Path, spec: StudySpec, uri: str, tmp_path: Path) -> None:
    records = [
        trial("a"),
        trial(
            "b", 0, status="failed", error="ValueError: ünknown 'token'\nat 3", wall_seconds=None
        ),
        trial("c", 2, status="diverged", cell={}, choices={}),
        trial(
            "d", status="stopped", cell={"optimizer": "sgd", "clip_norm": None, "beta2": 0.1 + 0.2}
        ),
        trial("e", phase="transfer", rule="power(0.7)", recipe=recipe(num_steps=None)),
        trial("f", phase="confirm", choices={"peak_lr": 5e-324, "x": "null"}, recipe_of="a"),
    ]
    sink = open_sink(spec, uri, state, ENVIRONMENT)
    track(sink, records)
    sink.close()

    study = load_study("lr_vs_batch", uri)

    assert list(study.trials) == records
    assert [t.to_json() for t in study.trials] == [r.to_json() for r in records]
    assert study.environment == ENVIRONMENT
    assert study.spec == spec
    assert study.spec.model_dump(exclude_unset=True) == spec.model_dump(exclude_unset=True)
    assert list(study.trial_urls) == list("abcdef")
    assert study.trial_urls["a"].startswith("#/experiments/")


def test_a_record_with_many_long_causes_fits_a_tag() -> None:
    cause = "RuntimeError: " + "worker lost " * 90
    incidents = [{"kind": "restarted", "attempt": n, "cause": cause} for n in range(30)]
    long = replace(trial("a"), incidents=tuple(incidents), status="failed", error=cause)
    tag = tags(long)["record"]
    assert len(tag) <= 8000
    kept = TrialRecord.from_json(tag)
    assert kept.error == cause
    assert [incident["attempt"] for incident in kept.incidents] == list(range(30))
    assert all(cause.startswith(incident["cause"]) for incident in kept.incidents)
    few = replace(long, incidents=tuple(incidents[:3]))
    assert TrialRecord.from_json(tags(few)["record"]).incidents == few.incidents
    unknown = replace(long, incidents=({"kind": "restarted", "cause": None}, *incidents))
    assert TrialRecord.from_json(tags(unknown)["record"]).incidents[0]["cause"] is None


def test_of_very_many_incidents_the_first_and_the_last_fit_a_tag() -> None:
    incidents = [
        incident
        for n in range(200)
        for incident in (
            {"kind": "restarted", "attempt": n, "cause": "a machine of its workers is taken back"},
            {"kind": "resumed", "step": 100 * n},
        )
    ]
    long = replace(trial("a"), incidents=tuple(incidents), status="failed", error="RuntimeError")
    tag = tags(long)["record"]
    assert len(tag) <= 8000
    kept = TrialRecord.from_json(tag)
    assert kept.error == "RuntimeError"
    assert kept.incidents[0]["attempt"] == 0
    assert kept.incidents[-1] == incidents[-1]
    [count] = [found["count"] for found in kept.incidents if found["kind"] == "left_out"]
    assert count + len(kept.incidents) - 1 == 400


@pytest.mark.slow
def test_trial_of_3000_measurements_comes_back_exactly(
    state: Path, spec: StudySpec, uri: str
) -> None:
    whole = [measurement(10 * i) for i in range(3000)]
    lean = tuple(
        Measurement(m.step, m.examples, m.tokens, m.seconds, validation_loss=m.validation_loss)
        for m in whole
    )
    record = trial(measurements=(*lean[:-1], whole[-1]))
    sink = open_sink(spec, uri, state)
    sink.trial_started(record)
    sink.trial_measured(record.trial_id, record.measurements[:1234])
    sink.trial_ended(record)
    sink.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials

    assert loaded.to_json() == record.to_json()


def test_what_was_recorded_when_targets_were_called_tokens_is_read_as_targets(
    state: Path, spec: StudySpec, uri: str
) -> None:
    old = tuple(replace(m, targets=None, tokens_per_second=70.0) for m in trial().measurements)
    for number, environment in enumerate(
        ({"targets_per_example": 7.0}, {"targets_per_example": 7.0, "tokens_per_example": None})
    ):
        sink = open_sink(spec, uri, state, environment, study_id=f"s{number}")
        sink.trial_ended(trial(measurements=old))
        sink.close()

    (before,) = load_study("lr_vs_batch", uri, study_id="s0").trials
    (now,) = load_study("lr_vs_batch", uri, study_id="s1").trials

    assert [m.targets for m in before.measurements] == [m.tokens for m in old]
    assert {m.tokens for m in before.measurements} == {None}
    assert {m.targets_per_second for m in before.measurements} == {70.0}
    assert {m.tokens_per_second for m in before.measurements} == {None}
    assert now.measurements == old


def test_a_running_trial_is_loaded_as_far_as_it_got(state: Path, spec: StudySpec, uri: str) -> None:
    sink = open_sink(spec, uri, state)
    track(sink, [trial()], up_to_step=20)
    sink.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials

    assert loaded.status == "running"
    assert loaded.measurements == trial().measurements[:3]


def test_an_error_longer_than_a_tag_is_cut_and_the_record_stays_readable(
    state: Path, spec: StudySpec, uri: str
) -> None:
    record = trial("a", 1, status="failed", error="é" * 20_000)
    sink = open_sink(spec, uri, state)
    sink.trial_ended(record)
    sink.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials

    assert loaded.error is not None
    assert record.error is not None
    assert record.error.startswith(loaded.error)
    assert replace(loaded, error=None) == replace(record, error=None)


def test_spec_round_trips_through_yaml(spec: StudySpec) -> None:
    again = StudySpec.model_validate(yaml.safe_load(spec_to_yaml(spec)))
    assert again == spec
    assert again.model_dump(exclude_unset=True) == spec.model_dump(exclude_unset=True)


# --- what people see in MLflow --------------------------------------------------------------------


def test_runs_read_well_in_the_ui(state: Path, spec: StudySpec, uri: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    write_report_files(report, {"report.html": "<html>", "figures/lr.svg": "<svg>"})
    (report / "figures" / "own.svg").write_text("the user's")
    sink = open_sink(spec, uri, state, ENVIRONMENT)
    track(sink, [trial("a"), trial("b", 1, status="failed", error="boom")])
    sink.study_ended(StudyEnd("done", "It moves with the square root.", report))

    parent, child, failed = runs(uri)

    assert parent.info.run_name == "lr_vs_batch"
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["study"] == "lr_vs_batch"
    assert parent.data.tags["study_id"] == "s1"
    note = parent.data.tags["mlflow.note.content"]
    assert spec.question in note
    assert "It moves with the square root." in note
    run_id = parent.info.run_id
    assert {f.path for f in client(uri).list_artifacts(run_id)} == {
        "study.yaml",
        "environment.json",
        "report",
    }
    assert {f.path for f in client(uri).list_artifacts(run_id, "report/figures")} == {
        "report/figures/lr.svg"
    }

    assert child.info.run_name == "search B=64 lr=4.0e-4"
    assert child.info.status == "FINISHED"
    expected = {
        "mlflow.parentRunId": run_id,
        "study": "lr_vs_batch",
        "cell": "global_batch_size=64",
        "status": "done",
        "trial_id": "a",
        "phase": "search",
    }
    assert expected.items() <= child.data.tags.items()
    assert child.data.params["peak_lr"] == repr(0.0012 / 3)
    assert child.data.params["schedule"] == "constant"
    named = {"global_batch_size", "peak_lr", "warmup_ratio", "schedule"}
    named |= {"weight_average_half_life_examples"}
    unusual = {"batch_ramp_at_examples", "warmup_steps", "weight_decay"}
    assert child.data.params.keys() == named | unusual | {"seed"}
    assert "null" not in child.data.params.values()
    beside = {"world_size": "2", "precision": "fp32", "lr_scaling_rule": "none"}
    assert (beside | {"num_steps": "625"}).items() <= child.data.tags.items()

    assert failed.info.status == "FAILED"
    assert failed.data.tags["status"] == "failed"


def test_losses_are_logged_by_step_and_by_examples(state: Path, spec: StudySpec, uri: str) -> None:
    record = trial()
    sink = open_sink(spec, uri, state)
    track(sink, [record])
    sink.close()
    run_id = runs(uri)[1].info.run_id

    for name in ("train_loss", "validation_loss", "test_loss"):
        by_step = client(uri).get_metric_history(run_id, name)
        by_examples = client(uri).get_metric_history(run_id, f"by_examples/{name}")
        losses = [getattr(m, name) for m in record.measurements]
        assert [(m.step, m.value) for m in by_step] == [
            (m.step, loss) for m, loss in zip(record.measurements, losses, strict=True)
        ]
        assert [(m.step, m.value) for m in by_examples] == [
            (m.examples, loss) for m, loss in zip(record.measurements, losses, strict=True)
        ]


def test_summary_metrics(state: Path, spec: StudySpec, uri: str) -> None:
    sink = open_sink(spec, uri, state)
    searched, confirmed, censored = trial("a"), trial("b", phase="confirm"), trial("c", 2)
    track(sink, [searched, confirmed, censored])
    sink.close()
    _, a, b, c = runs(uri)
    final = searched.measurements[-1]
    assert final.train_loss is not None
    assert final.validation_loss is not None
    assert final.test_loss is not None

    assert a.data.metrics["best_validation_loss"] == final.validation_loss
    assert a.data.metrics["generalization_gap"] == final.validation_loss - final.train_loss
    assert b.data.metrics["generalization_gap"] == final.test_loss - final.train_loss
    exact_steps = 14.1 * math.log(3.1 / 0.7)
    assert a.data.metrics["steps_to_target"] == pytest.approx(exact_steps, rel=1e-12)
    assert a.data.metrics["examples_to_target"] == pytest.approx(64 * exact_steps, rel=1e-12)
    assert a.data.metrics["seconds_to_target"] == pytest.approx(exact_steps / 87.3, rel=1e-12)
    assert "steps_to_target" not in c.data.metrics


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (trial(), "search B=64 lr=4.0e-4"),
        (
            trial(phase="transfer", rule="linear", recipe=recipe(peak_lr=0.0123)),
            "transfer linear B=64 lr=1.2e-2 seed=3",
        ),
        (trial(phase="confirm", recipe=recipe(peak_lr=2.0)), "confirm B=64 lr=2.0e0 seed=3"),
        (
            trial(cell={"optimizer": "sgd", "clip_norm": None}),
            "search optimizer=sgd clip_norm=null B=64 lr=4.0e-4",
        ),
    ],
)
def test_trial_names(record: TrialRecord, name: str) -> None:
    assert trial_name(record) == name


def test_cell_labels() -> None:
    assert cell_label({}) == "all"
    assert cell_label({"global_batch_size": 64}) == "global_batch_size=64"
    assert cell_label({"beta2": 0.95, "clip_norm": None}) == "beta2=0.95, clip_norm=null"


# --- where ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_new_store_lies_in_one_place_whatever_the_working_directory(
    state: Path,
    spec: StudySpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    open_sink(spec, f"sqlite:///{tmp_path}/mlflow.db", state).close()
    assert capfd.readouterr() == ("", "")
    assert list(elsewhere.iterdir()) == []
    assert (tmp_path / "mlartifacts").is_dir()


def test_import_does_not_load_mlflow() -> None:
    program = "import sys, scaling.sinks; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_mlflow_is_quiet(
    state: Path, spec: StudySpec, uri: str, capfd: pytest.CaptureFixture[str]
) -> None:
    sink = open_sink(spec, uri, state)
    track(sink, [trial()])
    sink.close()
    load_study("lr_vs_batch", uri)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_round_trip_and_resume_over_http(
    state: Path, spec: StudySpec, server: MlflowServer, tmp_path: Path
) -> None:
    records = [trial("a", 30), trial("b"), trial("c", 0, status="failed", error="boom")]
    write_report_files(tmp_path / "report", {"report.md": "# Report"})
    for up_to_step in (20, 10**9):
        sink = open_sink(spec, server.url, state, ENVIRONMENT)
        track(sink, records, up_to_step=up_to_step)
        sink.study_ended(StudyEnd("done", "Answer.", tmp_path / "report"))

    study = load_study("lr_vs_batch", server.url)

    assert list(study.trials) == records
    assert study.spec == spec
    assert study.trial_urls["a"].startswith(f"{server.url}/#/experiments/")
    found = runs(server.url)
    assert len(found) == 4
    [parent] = [run.info.run_id for run in found if "role" in run.data.tags]
    sent = client(server.url).list_artifacts(parent, "report")
    assert "report/report.md" in {file.path for file in sent}


@pytest.mark.parametrize(
    "question",
    ["1e3", "1e-3", "1E5", ".5e3", "+1e2", "0x10", "1_000", "no", "null", "~", "3.", "2024-01-01",
     "a\x85b", "a: b", "- a", "#", "é", "a\nb", "'", '"', " a ", "", "=", "1:30", ".inf"],
)  # fmt: skip
def test_a_text_of_a_study_file_is_read_back_as_that_text(spec: StudySpec, question: str) -> None:
    asked = spec.model_copy(update={"question": question})
    found = parse_yaml(spec_to_yaml(asked), source="study.yaml")
    assert found["question"] == question


@pytest.mark.parametrize("column", ["N (params)", "params,M", "#params", "N×10", "a/../b", ".."])
def test_mlflow_takes_the_name_of_every_param(spec: StudySpec, column: str) -> None:
    where = f"workload.where.{column}"
    record = trial(cell={"global_batch_size": 64, where: 1e6}, scale={column: 1e6, where: 1e6})
    named = params(record, spec)
    assert len(named) == len(params(trial(), spec)) + len({column, where})
    for name in named:
        _validate_param(name, named[name])
