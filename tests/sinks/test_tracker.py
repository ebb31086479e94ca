"""Against real temporary MLflow stores: what is logged is loaded, exactly and once."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from scaling.files.own import write_report_files
from scaling.records.measurement import Measurement
from scaling.records.trial import TrialRecord
from scaling.sinks import StudyTracker, TrackingError, load_study
from scaling.sinks.mlflow.runs import spec_to_yaml
from scaling.sinks.mlflow.trial_run import cell_label, trial_name
from scaling.spec.study import StudySpec
from scaling.spec.yaml_text import parse_yaml
from tests.sinks.servers import MlflowServer
from tests.sinks.told import client, measurement, recipe, runs, track, trial

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
        trial("f", phase="confirm", choices={"peak_lr": 5e-324, "lr_scaling_rule": "null"}),
    ]
    tracker = StudyTracker(spec, ENVIRONMENT, uri, study_id="s1", spool=state)
    track(tracker, records)
    tracker.close()

    study = load_study("lr_vs_batch", uri)

    assert list(study.trials) == records
    assert [t.to_json() for t in study.trials] == [r.to_json() for r in records]
    assert study.environment == ENVIRONMENT
    assert study.spec == spec
    assert study.spec.model_dump(exclude_unset=True) == spec.model_dump(exclude_unset=True)
    assert list(study.trial_urls) == list("abcdef")
    assert study.trial_urls["a"].startswith("#/experiments/")


def test_trial_of_3000_measurements_comes_back_exactly(
    state: Path, spec: StudySpec, uri: str
) -> None:
    whole = [measurement(10 * i) for i in range(3000)]
    lean = tuple(
        Measurement(m.step, m.examples, m.tokens, m.seconds, validation_loss=m.validation_loss)
        for m in whole
    )
    record = trial(measurements=(*lean[:-1], whole[-1]))
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    tracker.trial_started(record)
    tracker.trial_measured(record.trial_id, record.measurements[:1234])
    tracker.trial_ended(record)
    tracker.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials

    assert loaded.to_json() == record.to_json()


def test_what_was_recorded_when_targets_were_called_tokens_is_read_as_targets(
    state: Path, spec: StudySpec, uri: str
) -> None:
    old = tuple(replace(m, targets=None, tokens_per_second=70.0) for m in trial().measurements)
    for number, environment in enumerate(
        ({"targets_per_example": 7.0}, {"targets_per_example": 7.0, "tokens_per_example": None})
    ):
        tracker = StudyTracker(spec, environment, uri, study_id=f"s{number}", spool=state)
        tracker.trial_ended(trial(measurements=old))
        tracker.close()

    (before,) = load_study("lr_vs_batch", uri, study_id="s0").trials
    (now,) = load_study("lr_vs_batch", uri, study_id="s1").trials

    assert [m.targets for m in before.measurements] == [m.tokens for m in old]
    assert {m.tokens for m in before.measurements} == {None}
    assert {m.targets_per_second for m in before.measurements} == {70.0}
    assert {m.tokens_per_second for m in before.measurements} == {None}
    assert now.measurements == old


def test_a_running_trial_is_loaded_as_far_as_it_got(state: Path, spec: StudySpec, uri: str) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    track(tracker, [trial()], up_to_step=20)
    tracker.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials

    assert loaded.status == "running"
    assert loaded.measurements == trial().measurements[:3]


def test_an_error_longer_than_a_tag_is_cut_and_the_record_stays_readable(
    state: Path, spec: StudySpec, uri: str
) -> None:
    record = trial("a", 1, status="failed", error="é" * 20_000)
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    tracker.trial_ended(record)
    tracker.close()

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
    tracker = StudyTracker(spec, ENVIRONMENT, uri, study_id="s1", spool=state)
    track(tracker, [trial("a"), trial("b", 1, status="failed", error="boom")])
    tracker.study_ended("It moves with the square root.", report, "done")
    tracker.close()

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
    assert child.data.params["clip_norm"] == "null"
    assert child.data.params["schedule"] == "constant"
    named = {"global_batch_size", "peak_lr", "clip_norm", "warmup_ratio", "schedule"}
    named |= {"weight_average_half_life_examples"}
    unusual = {"batch_ramp_at_examples", "num_steps", "warmup_steps", "weight_decay"}
    assert child.data.params.keys() == named | unusual | {"seed"}
    assert {"world_size": "2", "precision": "fp32", "lr_scaling_rule": "none"}.items() <= (
        child.data.tags.items()
    )

    assert failed.info.status == "FAILED"
    assert failed.data.tags["status"] == "failed"


def test_losses_are_logged_by_step_and_by_examples(state: Path, spec: StudySpec, uri: str) -> None:
    record = trial()
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    track(tracker, [record])
    tracker.close()
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
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    searched, confirmed, censored = trial("a"), trial("b", phase="confirm"), trial("c", 2)
    track(tracker, [searched, confirmed, censored])
    tracker.close()
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


# --- resume ---------------------------------------------------------------------------------------


def test_a_resumed_study_continues_its_runs_and_duplicates_nothing(
    state: Path, spec: StudySpec, uri: str
) -> None:
    records = [trial("a"), trial("b"), trial("c")]
    first = StudyTracker(spec, {"start": 1}, uri, study_id="s1", spool=state)
    track(first, records[:1])
    track(first, records[1:2], up_to_step=20)
    first.study_ended("Interrupted.", None, "interrupted")
    first.close()
    assert [run.info.status for run in runs(uri)] == ["KILLED", "FINISHED", "KILLED"]

    second = StudyTracker(spec, {"start": 1, "resumed": 2}, uri, study_id="s1", spool=state)
    track(second, records)
    second.study_ended("Done.", None, "done", environment={"start": 1, "end": 3})
    second.close()

    study = load_study("lr_vs_batch", uri)
    assert list(study.trials) == records
    assert study.environment == {"start": 1, "end": 3}
    found = runs(uri)
    assert [run.info.status for run in found] == ["FINISHED"] * 4
    history = client(uri).get_metric_history(found[2].info.run_id, "validation_loss")
    assert [m.step for m in history] == [0, 10, 20, 30, 40]


def test_a_step_measured_again_is_kept_as_it_was(state: Path, spec: StudySpec, uri: str) -> None:
    first = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    track(first, [trial()], up_to_step=20)
    first.close()

    second = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    slower = tuple(replace(m, seconds=m.seconds + 1) for m in trial().measurements)
    track(second, [trial(measurements=slower)])
    second.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials
    assert loaded.measurements == trial().measurements[:3] + slower[3:]


def test_a_killed_driver_leaves_a_study_that_resumes(
    state: Path, spec: StudySpec, uri: str
) -> None:
    """SIGKILL right after the last report of the process: whatever was lost is written again."""
    program = (
        "import os, sys, time, yaml\n"
        "from pathlib import Path\n"
        "from scaling.spec.study import StudySpec\n"
        "from scaling.records.trial import TrialRecord\n"
        "from scaling.sinks import StudyTracker\n"
        "spec = StudySpec.model_validate(yaml.safe_load(sys.argv[1]))\n"
        "record = TrialRecord.from_json(sys.argv[2])\n"
        "tracker = StudyTracker(spec, {}, sys.argv[3], study_id='s1', spool=Path(sys.argv[4]))\n"
        "tracker.trial_started(record)\n"
        "for point in record.measurements:\n"
        "    tracker.trial_measured(record.trial_id, [point]); time.sleep(0.03)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    record = trial(num_measurements=40)
    arguments = [spec_to_yaml(spec), record.to_json(), uri, str(state)]
    killed = subprocess.run([sys.executable, "-c", program, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL

    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    track(tracker, [record])
    tracker.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [record]
    _, child = runs(uri)
    history = client(uri).get_metric_history(child.info.run_id, "examples")
    assert [m.step for m in history] == [m.step for m in record.measurements]


def test_the_latest_start_of_a_study_is_loaded(state: Path, spec: StudySpec, uri: str) -> None:
    for study_id, record in (("s1", trial("a")), ("s2", trial("a", 3))):
        tracker = StudyTracker(spec, {"id": study_id}, uri, study_id=study_id, spool=state)
        track(tracker, [record])
        tracker.close()

    study = load_study("lr_vs_batch", uri)

    assert study.environment == {"id": "s2"}
    assert list(study.trials) == [trial("a", 3)]
    assert list(load_study("lr_vs_batch", uri, study_id="s1").trials) == [trial("a")]
    with pytest.raises(LookupError, match="'lr_vs_batch' with study_id 's3'"):
        load_study("lr_vs_batch", uri, study_id="s3")
    assert len(runs(uri)) == 4


# --- errors ---------------------------------------------------------------------------------------


def test_no_such_study_names_those_that_exist(state: Path, spec: StudySpec, uri: str) -> None:
    StudyTracker(spec, {}, uri, study_id="s1", spool=state).close()
    with pytest.raises(LookupError, match=r"no study 'other' in MLflow at .*it has lr_vs_batch"):
        load_study("other", uri)


def test_a_database_that_does_not_exist_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="there is no MLflow database at"):
        load_study("any", f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_store_that_cannot_be_opened_refuses_the_start(
    state: Path, spec: StudySpec, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match="cannot open MLflow at"):
        StudyTracker(spec, {}, f"sqlite:///{tmp_path}/file/mlflow.db", study_id="s1", spool=state)


def test_a_server_that_is_not_there_refuses_the_start(
    state: Path, spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrackingError, match=r"cannot open MLflow at http://127\.0\.0\.1:9: "):
        StudyTracker(spec, {}, "http://127.0.0.1:9", study_id="s1", spool=state)


def test_a_deleted_experiment_is_said(state: Path, spec: StudySpec, uri: str) -> None:
    StudyTracker(spec, {}, uri, study_id="s1", spool=state).close()
    experiment = client(uri).get_experiment_by_name("lr_vs_batch")
    client(uri).delete_experiment(experiment.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore -x"):
        StudyTracker(spec, {}, uri, study_id="s2", spool=state)


def test_a_refused_write_is_kept_and_said_at_close(spec: StudySpec, uri: str, state: Path) -> None:
    """MLflow's params cannot change; everything else of the trial is written."""
    first = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    track(first, [trial("a")], up_to_step=20)
    first.close()

    second = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    longer = trial("a", recipe=recipe(num_steps=700))
    track(second, [longer, trial("b")])
    with pytest.raises(TrackingError, match=r"1 writes to MLflow at sqlite.* failed, kept in .*:"):
        second.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [longer, trial("b")]
    (kept,) = (state / "mlflow_rejected.jsonl").read_text().splitlines()
    assert "Changing param values is not allowed" in json.loads(kept)["reason"]
    assert json.loads(json.loads(kept)["line"])["event"] == "trial_started"
    assert (state / "mlflow_spool.jsonl").read_text() == ""


def test_only_the_refused_measurement_is_missing(spec: StudySpec, uri: str, state: Path) -> None:
    bad = replace(measurement(10), metrics={"no such:name?": 1.0})
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    tracker.trial_started(trial("a", 0, status="running"))
    for point in (measurement(0), bad, measurement(20)):
        tracker.trial_measured("a", [point])
    with pytest.raises(TrackingError, match=r"1 writes to MLflow at sqlite.* failed"):
        tracker.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials
    assert loaded.measurements == (measurement(0), measurement(20))


def test_a_deleted_run_is_made_again(spec: StudySpec, uri: str, state: Path) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    track(tracker, [trial("a")], up_to_step=20)
    time.sleep(1.5)
    client(uri).delete_run(runs(uri)[1].info.run_id)
    tracker.trial_measured("a", [measurement(30)])
    tracker.trial_ended(trial("a"))
    with pytest.raises(TrackingError, match="must be in the 'active' state"):
        tracker.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a")]


def test_a_write_is_tried_until_it_succeeds(
    spec: StudySpec, uri: str, state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state, retry_seconds=(0.05, 0.1))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE runs RENAME TO gone")
    track(tracker, [trial("a")])
    time.sleep(2)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE gone RENAME TO runs")
    tracker.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a")]
    away, back = caplog.messages
    assert "is away" in away
    assert "mlflow_spool.jsonl" in away
    assert "is back after" in back


def test_what_waits_at_the_end_is_said_and_sent_by_the_next_tracker(
    spec: StudySpec, uri: str, state: Path, tmp_path: Path
) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state, retry_seconds=(0.05, 0.1))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE metrics RENAME TO gone")
    track(tracker, [trial("a")], up_to_step=30)
    tracker.study_ended("", None, "interrupted")
    waiting = r"is away \(.*no such table.*; 6 events wait in .*mlflow_spool\.jsonl.* --resume"
    with pytest.raises(TrackingError, match=waiting):
        tracker.close(timeout_seconds=1)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE gone RENAME TO metrics")

    StudyTracker(spec, {}, uri, study_id="s1", spool=state).close()

    (loaded,) = load_study("lr_vs_batch", uri).trials
    assert loaded == replace(trial("a", 4), status="running", wall_seconds=loaded.wall_seconds)
    # The end that the first one left is not the end of the study that was opened again.
    assert [run.info.status for run in runs(uri)] == ["RUNNING", "RUNNING"]


def test_what_another_study_left_is_set_aside(
    spec: StudySpec, uri: str, state: Path, tmp_path: Path
) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state, retry_seconds=(0.05, 0.1))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE runs RENAME TO gone")
    tracker.trial_started(trial("a"))
    with pytest.raises(TrackingError, match="1 events wait"):
        tracker.close(timeout_seconds=1)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE gone RENAME TO runs")

    second = StudyTracker(spec, {}, uri, study_id="s2", spool=state)
    track(second, [trial("b")])
    second.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("b")]
    assert "of study s1, not of s2" in (state / "mlflow_rejected.jsonl").read_text()


def test_a_spool_that_cannot_be_opened_refuses_the_start(
    spec: StudySpec, uri: str, tmp_path: Path
) -> None:
    with pytest.raises(TrackingError, match=r"cannot open the spool .*No such file"):
        StudyTracker(spec, {}, uri, study_id="s1", spool=tmp_path / "none")


def test_a_full_disk_is_the_callers_to_know(spec: StudySpec, uri: str, state: Path) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, tracker._spool._file)
    os.close(full)
    with pytest.raises(OSError, match="No space left on device"):
        tracker.trial_started(trial("a"))
    tracker.close()


def test_a_trial_may_run_again_after_its_end(state: Path, spec: StudySpec, uri: str) -> None:
    failed = trial("a", 2, status="failed", error="a worker died")
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    track(tracker, [failed])
    track(tracker, [trial("a")])
    tracker.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a")]
    assert [run.info.status for run in runs(uri)[1:]] == ["FINISHED"]


def test_reserved_metric_names_are_refused(state: Path, spec: StudySpec, uri: str) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    tracker.trial_started(trial("a", 0, status="running"))
    taken = replace(measurement(1), metrics={"steps_to_target": 1.0})
    with pytest.raises(ValueError, match="'steps_to_target' is reserved"):
        tracker.trial_measured("a", [taken])
    with pytest.raises(ValueError, match="'b' was measured while it was not running"):
        tracker.trial_measured("b", [measurement(1)])
    tracker.close()


def test_calls_do_not_wait_for_mlflow(
    state: Path, spec: StudySpec, uri: str, tmp_path: Path
) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state, retry_seconds=(0.2, 0.2))
    lock = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    start = time.monotonic()
    track(tracker, [trial(name, 20) for name in "abcde"])
    waited_seconds = time.monotonic() - start
    lock.execute("ROLLBACK")
    lock.close()
    tracker.close()

    assert waited_seconds < 0.5
    assert len(load_study("lr_vs_batch", uri).trials) == 5


# --- where ----------------------------------------------------------------------------------------


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
    StudyTracker(spec, {}, f"sqlite:///{tmp_path}/mlflow.db", study_id="s1", spool=state).close()
    assert capfd.readouterr() == ("", "")
    assert list(elsewhere.iterdir()) == []
    assert (tmp_path / "mlartifacts").is_dir()


def test_import_does_not_load_mlflow() -> None:
    program = "import sys, scaling.sinks; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_mlflow_is_quiet(
    state: Path, spec: StudySpec, uri: str, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", spool=state)
    track(tracker, [trial()])
    tracker.close()
    load_study("lr_vs_batch", uri)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_round_trip_and_resume_over_http(
    state: Path, spec: StudySpec, server: MlflowServer, tmp_path: Path
) -> None:
    records = [trial("a", 30), trial("b"), trial("c", 0, status="failed", error="boom")]
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text("# Report")
    for up_to_step in (20, 10**9):
        tracker = StudyTracker(spec, ENVIRONMENT, server.url, study_id="s1", spool=state)
        track(tracker, records, up_to_step=up_to_step)
        tracker.study_ended("Answer.", tmp_path / "report", "done")
        tracker.close()

    study = load_study("lr_vs_batch", server.url)

    assert list(study.trials) == records
    assert study.spec == spec
    assert study.trial_urls["a"].startswith(f"{server.url}/#/experiments/")
    assert len(runs(server.url)) == 4


@pytest.mark.parametrize(
    "question",
    ["1e3", "1e-3", "1E5", ".5e3", "+1e2", "0x10", "1_000", "no", "null", "~", "3.", "2024-01-01",
     "a\x85b", "a: b", "- a", "#", "é", "a\nb", "'", '"', " a ", "", "=", "1:30", ".inf"],
)  # fmt: skip
def test_a_text_of_a_study_file_is_read_back_as_that_text(spec: StudySpec, question: str) -> None:
    asked = spec.model_copy(update={"question": question})
    found = parse_yaml(spec_to_yaml(asked), source="study.yaml")
    assert found["question"] == question
