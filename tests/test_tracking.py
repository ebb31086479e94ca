"""Against real temporary MLflow stores: what is logged is loaded, exactly and once."""

import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling.records import Measurement, Recipe, TrialRecord
from scaling.spec import StudySpec
from scaling.tracking import (
    StudyTracker,
    TrackingError,
    cell_label,
    load_study,
    resolve_tracking_uri,
    spec_to_yaml,
    trial_name,
)

ENVIRONMENT = {"torch": "2.13.0", "num_cpus": 2, "commit": None, "hosts": ["a", "b"]}


@pytest.fixture(scope="module")
def spec() -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "lr_vs_batch",
            "question": "How must the peak learning rate move with the batch?",
            "workload": {"task": "noisy_quadratic"},
            "scientific": {"global_batch_size": [16, 64]},
            "nuisance": {
                "peak_lr": {"log_uniform": [1e-4, 3e-2]},
                "clip_norm": {"choice": [None, 1.0]},
            },
            "fixed": {"schedule": "constant", "weight_average_half_life_examples": None},
            "budget": {"examples": 40000, "min_steps": 150},
            "evaluation": {"every_steps": 10},
            "target": {"at_most": 0.7},
            "search": {"trials_per_cell": 3},
        }
    )


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's schema and nothing in it, whose making takes seconds."""
    path = tmp_path_factory.mktemp("schema") / "mlflow.db"
    client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def uri(tmp_path: Path, schema: Path) -> str:
    shutil.copy(schema, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def recipe(**changes: Any) -> Recipe:
    values: dict[str, Any] = {
        "seed": 3,
        "global_batch_size": 64,
        "micro_batch_size": 32,
        "grad_accum_steps": 1,
        "world_size": 2,
        "num_steps": 625,
        "budget_seconds": None,
        "peak_lr": 0.0012 / 3,
        "base_lr": None,
        "base_batch_size": None,
        "lr_scaling_rule": "none",
        "warmup_steps": 31,
        "warmup_ratio": 0.05,
        "schedule": "constant",
        "min_lr_ratio": 0.0,
        "optimizer": "adamw",
        "weight_decay": 0.01,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "momentum": 0.0,
        "clip_norm": None,
        "weight_average_half_life_examples": 2000.0,
        "strategy": "ddp",
        "precision": "fp32",
    }
    return Recipe(**(values | changes))


def measurement(step: int) -> Measurement:
    """Irrational numbers, so that a lost bit shows; the loss falls below 0.7 at step 21."""
    return Measurement(
        step=step,
        examples=64 * step,
        tokens=64 * step * 7,
        seconds=step / 87.3,
        lr=1e-3 * math.sqrt(step + 1),
        step_loss=None if step == 0 else 3.1 * math.exp(-step / 14.1),
        grad_norm=math.pi / (step + 1),
        train_loss=3.0 * math.exp(-step / 14.1) + 1e-17,
        validation_loss=3.1 * math.exp(-step / 14.1),
        validation_loss_stderr=1 / 3e5,
        test_loss=3.2 * math.exp(-step / 14.1),
        metrics={"accuracy": 1 / (step + 3), "word accuracy/exact": 1e-300},
    )


def trial(trial_id: str = "search-b64-0", num_measurements: int = 5, **changes: Any) -> TrialRecord:
    values: dict[str, Any] = {
        "trial_id": trial_id,
        "phase": "search",
        "cell": {"global_batch_size": 64},
        "choices": {"peak_lr": 0.0012 / 3, "clip_norm": None, "warmup_ratio": 0.05},
        "recipe": recipe(),
        "status": "done",
        "measurements": tuple(measurement(10 * i) for i in range(num_measurements)),
        "wall_seconds": 7.1 / 3,
    }
    return TrialRecord(**(values | changes))


def track(tracker: StudyTracker, records: list[TrialRecord], *, up_to_step: int = 10**9) -> None:
    """Tell a trial as a study does: started, measured one by one, ended if it got so far."""
    for record in records:
        tracker.trial_started(replace(record, status="running", measurements=(), error=None))
        for point in record.measurements:
            if point.step <= up_to_step:
                tracker.trial_measured(record.trial_id, [point])
        if not record.measurements or record.measurements[-1].step <= up_to_step:
            tracker.trial_ended(record)


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def runs(uri: str, study: str = "lr_vs_batch") -> list[Any]:
    experiment = client(uri).get_experiment_by_name(study)
    return client(uri).search_runs(
        [experiment.experiment_id], order_by=["attributes.start_time ASC"]
    )


# --- round trip -----------------------------------------------------------------------------------


def test_records_come_back_exactly(spec: StudySpec, uri: str, tmp_path: Path) -> None:
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
    tracker = StudyTracker(spec, ENVIRONMENT, uri, study_id="s1")
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


def test_trial_of_3000_measurements_comes_back_exactly(spec: StudySpec, uri: str) -> None:
    whole = [measurement(10 * i) for i in range(3000)]
    lean = tuple(
        Measurement(m.step, m.examples, m.tokens, m.seconds, validation_loss=m.validation_loss)
        for m in whole
    )
    record = trial(measurements=(*lean[:-1], whole[-1]))
    tracker = StudyTracker(spec, {}, uri, study_id="s1")
    tracker.trial_started(record)
    tracker.trial_measured(record.trial_id, record.measurements[:1234])
    tracker.trial_ended(record)
    tracker.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials

    assert loaded.to_json() == record.to_json()


def test_a_running_trial_is_loaded_as_far_as_it_got(spec: StudySpec, uri: str) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1")
    track(tracker, [trial()], up_to_step=20)
    tracker.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials

    assert loaded.status == "running"
    assert loaded.measurements == trial().measurements[:3]


def test_an_error_longer_than_a_tag_is_cut_and_the_record_stays_readable(
    spec: StudySpec, uri: str
) -> None:
    record = trial("a", 1, status="failed", error="é" * 20_000)
    tracker = StudyTracker(spec, {}, uri, study_id="s1")
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


def test_runs_read_well_in_the_ui(spec: StudySpec, uri: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    (report / "figures").mkdir(parents=True)
    (report / "report.html").write_text("<html>")
    (report / "figures" / "lr.svg").write_text("<svg>")
    tracker = StudyTracker(spec, ENVIRONMENT, uri, study_id="s1")
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
    assert child.data.params["optimizer"] == "adamw"
    assert len(child.data.params) == 25

    assert failed.info.status == "FAILED"
    assert failed.data.tags["status"] == "failed"


def test_losses_are_logged_by_step_and_by_examples(spec: StudySpec, uri: str) -> None:
    record = trial()
    tracker = StudyTracker(spec, {}, uri, study_id="s1")
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


def test_summary_metrics(spec: StudySpec, uri: str) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1")
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
    spec: StudySpec, uri: str
) -> None:
    records = [trial("a"), trial("b"), trial("c")]
    first = StudyTracker(spec, {"start": 1}, uri, study_id="s1")
    track(first, records[:1])
    track(first, records[1:2], up_to_step=20)
    first.study_ended("Interrupted.", None, "interrupted")
    first.close()
    assert [run.info.status for run in runs(uri)] == ["KILLED", "FINISHED", "KILLED"]

    second = StudyTracker(spec, {"start": 1, "resumed": 2}, uri, study_id="s1")
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


def test_a_step_measured_again_is_kept_as_it_was(spec: StudySpec, uri: str) -> None:
    first = StudyTracker(spec, {}, uri, study_id="s1")
    track(first, [trial()], up_to_step=20)
    first.close()

    second = StudyTracker(spec, {}, uri, study_id="s1")
    slower = tuple(replace(m, seconds=m.seconds + 1) for m in trial().measurements)
    track(second, [trial(measurements=slower)])
    second.close()

    (loaded,) = load_study("lr_vs_batch", uri).trials
    assert loaded.measurements == trial().measurements[:3] + slower[3:]


def test_a_killed_driver_leaves_a_study_that_resumes(spec: StudySpec, uri: str) -> None:
    """SIGKILL right after the last report of the process: whatever was lost is written again."""
    program = (
        "import os, sys, time, yaml\n"
        "from scaling.spec import StudySpec\n"
        "from scaling.records import TrialRecord\n"
        "from scaling.tracking import StudyTracker\n"
        "spec = StudySpec.model_validate(yaml.safe_load(sys.argv[1]))\n"
        "record = TrialRecord.from_json(sys.argv[2])\n"
        "tracker = StudyTracker(spec, {}, sys.argv[3], study_id='s1')\n"
        "tracker.trial_started(record)\n"
        "for point in record.measurements:\n"
        "    tracker.trial_measured(record.trial_id, [point]); time.sleep(0.03)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    record = trial(num_measurements=40)
    arguments = [spec_to_yaml(spec), record.to_json(), uri]
    killed = subprocess.run([sys.executable, "-c", program, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL

    tracker = StudyTracker(spec, {}, uri, study_id="s1")
    track(tracker, [record])
    tracker.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [record]
    _, child = runs(uri)
    history = client(uri).get_metric_history(child.info.run_id, "examples")
    assert [m.step for m in history] == [m.step for m in record.measurements]


def test_the_latest_start_of_a_study_is_loaded(spec: StudySpec, uri: str) -> None:
    for study_id, record in (("s1", trial("a")), ("s2", trial("a", 3))):
        tracker = StudyTracker(spec, {"id": study_id}, uri, study_id=study_id)
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


def test_no_such_study_names_those_that_exist(spec: StudySpec, uri: str) -> None:
    StudyTracker(spec, {}, uri, study_id="s1").close()
    with pytest.raises(LookupError, match=r"no study 'other' in MLflow at .*it has lr_vs_batch"):
        load_study("other", uri)


def test_a_database_that_does_not_exist_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="there is no MLflow database at"):
        load_study("any", f"sqlite:///{tmp_path}/none.db")
    assert not (tmp_path / "none.db").exists()


def test_a_store_that_cannot_be_opened_refuses_the_start(spec: StudySpec, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match="cannot open MLflow at"):
        StudyTracker(spec, {}, f"sqlite:///{tmp_path}/file/mlflow.db", study_id="s1")


def test_a_server_that_is_not_there_refuses_the_start(
    spec: StudySpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    with pytest.raises(TrackingError, match=r"cannot open MLflow at http://127\.0\.0\.1:9: "):
        StudyTracker(spec, {}, "http://127.0.0.1:9", study_id="s1")


def test_a_deleted_experiment_is_said(spec: StudySpec, uri: str) -> None:
    StudyTracker(spec, {}, uri, study_id="s1").close()
    experiment = client(uri).get_experiment_by_name("lr_vs_batch")
    client(uri).delete_experiment(experiment.experiment_id)
    with pytest.raises(TrackingError, match="mlflow experiments restore -x"):
        StudyTracker(spec, {}, uri, study_id="s2")


def test_a_failed_write_is_said_at_close(
    spec: StudySpec, uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", retry_seconds=[0.01])
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE metrics RENAME TO gone")
    track(tracker, [trial()])

    with pytest.raises(TrackingError, match=r"writes to MLflow at sqlite.* failed; the first: .*"):
        tracker.close()

    assert "again in 0.01 s" in caplog.text


def test_a_write_is_tried_again(spec: StudySpec, uri: str, tmp_path: Path) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", retry_seconds=[0.1] * 100)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE metrics RENAME TO gone")
    track(tracker, [trial()])
    time.sleep(1.5)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE gone RENAME TO metrics")
    tracker.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial()]


def test_what_failed_at_first_is_written_at_the_trial_end(
    spec: StudySpec, uri: str, tmp_path: Path
) -> None:
    """A trial whose start and measurements were lost is whole once the store is back."""
    tracker = StudyTracker(spec, {}, uri, study_id="s1", retry_seconds=[])
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE runs RENAME TO gone")
    track(tracker, [trial("a")], up_to_step=20)
    time.sleep(1.5)
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("ALTER TABLE gone RENAME TO runs")
    tracker.trial_ended(trial("a"))
    with pytest.raises(TrackingError, match="failed; the first"):
        tracker.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a")]


def test_a_trial_may_run_again_after_its_end(spec: StudySpec, uri: str) -> None:
    failed = trial("a", 2, status="failed", error="a worker died")
    tracker = StudyTracker(spec, {}, uri, study_id="s1")
    track(tracker, [failed])
    track(tracker, [trial("a")])
    tracker.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a")]
    assert [run.info.status for run in runs(uri)[1:]] == ["FINISHED"]


def test_reserved_metric_names_are_refused(spec: StudySpec, uri: str) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1")
    tracker.trial_started(trial("a", 0, status="running"))
    taken = replace(measurement(1), metrics={"steps_to_target": 1.0})
    with pytest.raises(ValueError, match="'steps_to_target' is reserved"):
        tracker.trial_measured("a", [taken])
    with pytest.raises(ValueError, match="'b' was measured while it was not running"):
        tracker.trial_measured("b", [measurement(1)])
    tracker.close()


def test_calls_do_not_wait_for_mlflow(spec: StudySpec, uri: str, tmp_path: Path) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1", retry_seconds=[0.2] * 100)
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


def test_default_store_is_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert resolve_tracking_uri() == "http://server:5000"
    assert resolve_tracking_uri("sqlite:///x/m.db") == f"sqlite:///{tmp_path}/x/m.db"
    assert resolve_tracking_uri("sqlite:////abs/m.db") == "sqlite:////abs/m.db"


def test_a_new_store_lies_in_one_place_whatever_the_working_directory(
    spec: StudySpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    StudyTracker(spec, {}, f"sqlite:///{tmp_path}/mlflow.db", study_id="s1").close()
    assert capfd.readouterr() == ("", "")
    assert list(elsewhere.iterdir()) == []
    assert (tmp_path / "mlartifacts").is_dir()


def test_import_does_not_load_mlflow() -> None:
    program = "import sys, scaling.tracking; assert 'mlflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_mlflow_is_quiet(spec: StudySpec, uri: str, capfd: pytest.CaptureFixture[str]) -> None:
    tracker = StudyTracker(spec, {}, uri, study_id="s1")
    track(tracker, [trial()])
    tracker.close()
    load_study("lr_vs_batch", uri)
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | quiet,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/health")
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _wait_for(address: str, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except urllib.error.URLError:
            time.sleep(0.3)
    raise TimeoutError(address)


@pytest.mark.slow
def test_round_trip_and_resume_over_http(spec: StudySpec, server: str, tmp_path: Path) -> None:
    records = [trial("a", 30), trial("b"), trial("c", 0, status="failed", error="boom")]
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text("# Report")
    for up_to_step in (20, 10**9):
        tracker = StudyTracker(spec, ENVIRONMENT, server, study_id="s1")
        track(tracker, records, up_to_step=up_to_step)
        tracker.study_ended("Answer.", tmp_path / "report", "done")
        tracker.close()

    study = load_study("lr_vs_batch", server)

    assert list(study.trials) == records
    assert study.spec == spec
    assert study.trial_urls["a"].startswith(f"{server}/#/experiments/")
    assert len(runs(server)) == 4
