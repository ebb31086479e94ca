"""A study that goes on, a store that is away or refuses: nothing is lost and nothing is double."""

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

from scaling.records.outcome import trial_result
from scaling.sinks import StudyEnd, TrackingError
from scaling.sinks.mlflow.load import load_study
from scaling.sinks.mlflow.study_file import spec_to_yaml
from scaling.spec.evaluation import Target
from scaling.spec.study import StudySpec
from tests.sinks.told import (
    assert_each_once,
    client,
    measurement,
    open_sink,
    recipe,
    runs,
    track,
    trial,
    wait_until,
)

ENVIRONMENT = {"torch": "2.13.0", "num_cpus": 2, "commit": None, "hosts": ["a", "b"]}


# --- resume ---------------------------------------------------------------------------------------


def test_a_resumed_study_continues_its_runs_and_duplicates_nothing(
    state: Path, spec: StudySpec, uri: str
) -> None:
    records = [trial("a"), trial("b"), trial("c")]
    first = open_sink(spec, uri, state, {"start": 1})
    track(first, records[:1])
    track(first, records[1:2], up_to_step=20)
    first.study_ended(StudyEnd("interrupted", "Interrupted."))
    assert [run.info.status for run in runs(uri)] == ["KILLED", "FINISHED", "KILLED"]

    second = open_sink(spec, uri, state, {"start": 1, "resumed": 2})
    track(second, records)
    second.study_ended(StudyEnd("done", "Done.", None, {"start": 1, "end": 3}))

    study = load_study("lr_vs_batch", uri)
    assert list(study.trials) == records
    assert study.environment == {"start": 1, "end": 3}
    found = runs(uri)
    assert [run.info.status for run in found] == ["FINISHED"] * 4
    history = client(uri).get_metric_history(found[2].info.run_id, "validation_loss")
    assert [m.step for m in history] == [0, 10, 20, 30, 40]


def test_a_step_measured_again_is_as_the_record_has_it(
    state: Path, spec: StudySpec, uri: str
) -> None:
    first = open_sink(spec, uri, state)
    track(first, [trial()], up_to_step=20)
    first.close()

    second = open_sink(spec, uri, state)
    slower = tuple(replace(m, seconds=m.seconds + 1) for m in trial().measurements)
    track(second, [trial(measurements=slower)])
    second.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial(measurements=slower)]
    assert_each_once(uri, [trial(measurements=slower)])


@pytest.mark.slow
def test_a_killed_driver_leaves_a_study_that_resumes(
    state: Path, spec: StudySpec, uri: str
) -> None:
    """SIGKILL right after the last report of the process: whatever was lost is written again."""
    program = (
        "import os, sys, time, yaml\n"
        "from pathlib import Path\n"
        "from scaling.spec.study import StudySpec\n"
        "from scaling.records.trial import TrialRecord\n"
        "from scaling.sinks import StudyStart\n"
        "from scaling.sinks.mlflow.sink import MlflowSink\n"
        "spec = StudySpec.model_validate(yaml.safe_load(sys.argv[1]))\n"
        "record = TrialRecord.from_json(sys.argv[2])\n"
        "sink = MlflowSink(StudyStart(spec, 's1', Path(sys.argv[4])), sys.argv[3])\n"
        "sink.trial_started(record)\n"
        "for point in record.measurements:\n"
        "    sink.trial_measured(record.trial_id, [point]); time.sleep(0.03)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    record = trial(num_measurements=40)
    arguments = [spec_to_yaml(spec), record.to_json(), uri, str(state)]
    killed = subprocess.run([sys.executable, "-c", program, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL

    sink = open_sink(spec, uri, state)
    track(sink, [record])
    sink.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [record]
    _, child = runs(uri)
    history = client(uri).get_metric_history(child.info.run_id, "examples")
    assert [m.step for m in history] == [m.step for m in record.measurements]


def test_the_latest_start_of_a_study_is_loaded(state: Path, spec: StudySpec, uri: str) -> None:
    for study_id, record in (("s1", trial("a")), ("s2", trial("a", 3))):
        sink = open_sink(spec, uri, state, {"id": study_id}, study_id=study_id)
        track(sink, [record])
        sink.close()

    study = load_study("lr_vs_batch", uri)

    assert study.environment == {"id": "s2"}
    assert list(study.trials) == [trial("a", 3)]
    assert list(load_study("lr_vs_batch", uri, study_id="s1").trials) == [trial("a")]
    with pytest.raises(LookupError, match="'lr_vs_batch' with study_id 's3'"):
        load_study("lr_vs_batch", uri, study_id="s3")
    assert len(runs(uri)) == 4


# --- errors ---------------------------------------------------------------------------------------


def test_no_such_study_names_those_that_exist(state: Path, spec: StudySpec, uri: str) -> None:
    open_sink(spec, uri, state).close()
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
        open_sink(spec, f"sqlite:///{tmp_path}/file/mlflow.db", state)


def test_a_server_that_is_not_there_refuses_the_start(
    state: Path, spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaling.sinks.mlflow.store._OPENING_PAUSES_SECONDS", (0.01, 0.01))
    with pytest.raises(TrackingError, match=r"cannot open MLflow at http://127\.0\.0\.1:9: "):
        open_sink(spec, "http://127.0.0.1:9", state)


@pytest.mark.parametrize("is_whole_experiment", [True, False])
def test_what_was_deleted_in_mlflow_comes_back(
    state: Path, spec: StudySpec, uri: str, is_whole_experiment: bool
) -> None:
    records = [trial("a"), trial("b")]
    sink = open_sink(spec, uri, state)
    track(sink, records[:1])
    sink.close()
    parent = runs(uri)[0].info
    if is_whole_experiment:
        client(uri).delete_experiment(parent.experiment_id)
    else:
        client(uri).delete_run(parent.run_id)
    sink = open_sink(spec, uri, state)
    for record in records:
        sink.trial_ended(record)
    sink.study_ended(StudyEnd("done"))
    assert list(load_study("lr_vs_batch", uri).trials) == records
    assert_each_once(uri, records)
    assert runs(uri)[0].info.run_id == parent.run_id


def test_a_trial_of_other_params_has_a_new_run(spec: StudySpec, uri: str, state: Path) -> None:
    """MLflow's params cannot change."""
    first = open_sink(spec, uri, state)
    track(first, [trial("a")], up_to_step=20)
    first.close()

    second = open_sink(spec, uri, state)
    longer = trial("a", recipe=recipe(num_steps=700))
    track(second, [longer, trial("b")])
    second.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [longer, trial("b")]
    assert_each_once(uri, [longer, trial("b")])
    assert not (state / "mlflow_rejected.jsonl").exists()


def test_a_trial_that_is_there_is_not_written_again(spec: StudySpec, uri: str, state: Path) -> None:
    records = [trial("a"), trial("b", 2, status="failed", error="boom")]
    sink = open_sink(spec, uri, state)
    track(sink, records)
    sink.study_ended(StudyEnd("done"))
    before = [(run.info.run_id, run.info.end_time) for run in runs(uri)[1:]]

    sink = open_sink(spec, uri, state)
    for record in records:
        sink.trial_ended(record)
    assert sink.trial_urls().keys() == {"a", "b"}
    sink.study_ended(StudyEnd("done"))

    assert [(run.info.run_id, run.info.end_time) for run in runs(uri)[1:]] == before


@pytest.mark.parametrize("at_most", [1.4, 0.01])
def test_a_trial_that_is_there_comes_to_what_another_target_says(
    spec: StudySpec, uri: str, state: Path, at_most: float
) -> None:
    sink = open_sink(spec, uri, state)
    track(sink, [trial("a")])
    sink.close()
    _, before = runs(uri)

    other = spec.model_copy(update={"target": Target(at_most=at_most)})
    sink = open_sink(other, uri, state)
    sink.trial_ended(trial("a"))
    sink.close()

    _, run = runs(uri)
    assert run.info.run_id == before.info.run_id
    reached = trial_result(trial("a"), other.target).steps_to_target
    expected = pytest.approx(reached or math.nan, nan_ok=True)
    assert run.data.metrics["steps_to_target"] == expected
    assert before.data.metrics["steps_to_target"] != expected
    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a")]
    assert_each_once(uri, [trial("a")])

    sink = open_sink(other, uri, state)  # and once is enough
    sink.trial_ended(trial("a"))
    sink.close()
    assert runs(uri)[1].info.end_time == run.info.end_time


def test_only_the_refused_measurement_is_missing(spec: StudySpec, uri: str, state: Path) -> None:
    bad = replace(measurement(10), metrics={"no such:name?": 1.0})
    sink = open_sink(spec, uri, state)
    sink.trial_started(trial("a", 0, status="running"))
    for point in (measurement(0), bad, measurement(20)):
        sink.trial_measured("a", [point])
    with pytest.raises(TrackingError, match=r"1 writes to MLflow at sqlite.* failed"):
        sink.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials
    assert loaded.measurements == (measurement(0), measurement(20))


def test_a_deleted_run_is_made_again(spec: StudySpec, uri: str, state: Path) -> None:
    sink = open_sink(spec, uri, state)
    track(sink, [trial("a")], up_to_step=20)
    wait_until(lambda: len(found := runs(uri)) > 1 and "validation_loss" in found[1].data.metrics)
    client(uri).delete_run(runs(uri)[1].info.run_id)
    sink.trial_measured("a", [measurement(30)])
    sink.trial_ended(trial("a"))
    sink.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a")]
    assert runs(uri)[1].data.params["peak_lr"] == str(0.0012 / 3)


def test_a_write_is_tried_until_it_succeeds(
    spec: StudySpec, uri: str, state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = open_sink(spec, uri, state, retry_seconds=(0.05, 0.1))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE runs RENAME TO gone")
    track(sink, [trial("a")])
    wait_until(lambda: bool(caplog.messages))
    time.sleep(0.3)  # and several tries more
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE gone RENAME TO runs")
    sink.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a")]
    away, back = caplog.messages
    assert "does not answer" in away
    assert "mlflow_spool.jsonl" in away
    assert "answers again after" in back


def test_what_waits_at_the_end_is_said_and_sent_by_the_next_process(
    spec: StudySpec,
    uri: str,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scaling.sinks.mlflow.sink._INTERRUPTED_SECONDS", 1.0)
    sink = open_sink(spec, uri, state, retry_seconds=(0.05, 0.1))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE metrics RENAME TO gone")
    track(sink, [trial("a")], up_to_step=30)
    waiting = (
        r"does not answer \(.*no such table.*; 6 events wait in .*mlflow_spool\.jsonl.* --resume"
    )
    with pytest.raises(TrackingError, match=waiting):
        sink.study_ended(StudyEnd("interrupted"))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE gone RENAME TO metrics")

    open_sink(spec, uri, state).close()

    (loaded,) = load_study("lr_vs_batch", uri).trials
    assert loaded == replace(trial("a", 4), status="running", wall_seconds=loaded.wall_seconds)
    # The end that the first one left is not the end of the study that was opened again.
    assert [run.info.status for run in runs(uri)] == ["RUNNING", "RUNNING"]


def test_what_another_study_left_is_set_aside(
    spec: StudySpec, uri: str, state: Path, tmp_path: Path
) -> None:
    sink = open_sink(spec, uri, state, retry_seconds=(0.05, 0.1))
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE runs RENAME TO gone")
    sink.trial_started(trial("a"))
    with pytest.raises(TrackingError, match="1 events wait"):
        sink.close(idle_seconds=1)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE gone RENAME TO runs")

    second = open_sink(spec, uri, state, study_id="s2")
    track(second, [trial("b")])
    second.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("b")]
    assert "of study s1, not of s2" in (state / "mlflow_rejected.jsonl").read_text()


def test_a_spool_that_cannot_be_opened_refuses_the_start(
    spec: StudySpec, uri: str, tmp_path: Path
) -> None:
    with pytest.raises(TrackingError, match=r"cannot open the spool .*No such file"):
        open_sink(spec, uri, tmp_path / "none")


def test_a_full_disk_is_the_callers_to_know(spec: StudySpec, uri: str, state: Path) -> None:
    sink = open_sink(spec, uri, state)
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, sink._spool._file)
    os.close(full)
    with pytest.raises(OSError, match="No space left on device"):
        sink.trial_started(trial("a"))
    sink.close()


def test_a_trial_may_run_again_after_its_end(state: Path, spec: StudySpec, uri: str) -> None:
    failed = trial("a", 2, status="failed", error="a worker died")
    sink = open_sink(spec, uri, state)
    track(sink, [failed])
    track(sink, [trial("a")])
    sink.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a")]
    assert [run.info.status for run in runs(uri)[1:]] == ["FINISHED"]


def test_reserved_metric_names_are_refused(state: Path, spec: StudySpec, uri: str) -> None:
    sink = open_sink(spec, uri, state)
    sink.trial_started(trial("a", 0, status="running"))
    taken = replace(measurement(1), metrics={"steps_to_target": 1.0})
    with pytest.raises(ValueError, match="'steps_to_target' is reserved"):
        sink.trial_measured("a", [taken])
    with pytest.raises(ValueError, match="'b' was measured while it was not running"):
        sink.trial_measured("b", [measurement(1)])
    sink.close()


def test_calls_do_not_wait_for_mlflow(
    state: Path, spec: StudySpec, uri: str, tmp_path: Path
) -> None:
    sink = open_sink(spec, uri, state, retry_seconds=(0.2, 0.2))
    lock = sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    start = time.monotonic()
    track(sink, [trial(name, 20) for name in "abcde"])
    waited_seconds = time.monotonic() - start
    lock.execute("ROLLBACK")
    lock.close()
    sink.close()

    assert waited_seconds < 0.5
    assert len(load_study("lr_vs_batch", uri).trials) == 5
