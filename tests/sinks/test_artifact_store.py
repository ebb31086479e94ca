"""A store of artifacts that MLflow's client reaches itself, and that does not answer."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils

from scaling.sinks import StudyEnd, TrackingError, UnsentError
from scaling.sinks.mlflow.load import load_study
from scaling.spec.study import StudySpec
from tests.sinks.told import open_sink, runs, track, trial


@pytest.fixture
def no_s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_port: int) -> None:
    """Nobody answers for S3, and this user has no credentials for it."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://127.0.0.1:{free_port}")


def keep_in_s3(uri: str) -> None:
    """From here on the artifacts of all runs, and of runs to come, are in S3."""
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as store, store:
        store.execute("UPDATE experiments SET artifact_location = 's3://bucket/of'")
        store.execute("UPDATE runs SET artifact_uri = 's3://bucket/of/' || run_uuid")
    utils._artifact_repos_cache.clear()  # as in another process


@pytest.mark.usefixtures("no_s3")
def test_a_start_that_it_refuses_leaves_no_run(spec: StudySpec, uri: str, state: Path) -> None:
    first = open_sink(spec, uri, state, study_id="first")
    first.study_ended(StudyEnd("done", "An answer."))
    [before] = runs(uri)
    keep_in_s3(uri)
    for _ in range(2):
        with pytest.raises(TrackingError, match=r"cannot open MLflow at .*: \w"):
            open_sink(spec, uri, state, study_id="second")
        assert [run.info.run_id for run in runs(uri)] == [before.info.run_id]


@pytest.mark.usefixtures("no_s3")
def test_an_end_that_it_does_not_take_waits(
    spec: StudySpec, uri: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scaling.sinks.mlflow.sink._INTERRUPTED_SECONDS", 2.0)
    sink = open_sink(spec, uri, state)
    track(sink, [trial()])
    keep_in_s3(uri)
    with pytest.raises(UnsentError, match="does not answer"):
        sink.study_ended(StudyEnd("interrupted", "", None, {"num_cpus": 2}))
    with pytest.raises(TrackingError, match="cannot read MLflow at"):
        load_study(spec.name, uri)
