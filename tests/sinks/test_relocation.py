"""A store that was moved or copied with its folder of artifacts."""

import shutil
from collections import OrderedDict
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service import utils

from scaling.sinks.mlflow.load import load_study
from scaling.spec.study import StudySpec
from tests.sinks.told import client, open_sink, runs, track, trial


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("way", ["moved", "copied"])
def test_a_store_that_was_moved_is_read_and_written_where_it_is(
    way: str, spec: StudySpec, schema: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, now = tmp_path / "be fore", tmp_path / "now"
    (before / "state").mkdir(parents=True)
    shutil.copy(schema, before / "mlflow.db")
    uri = f"sqlite:///{before}/mlflow.db"
    sink = open_sink(spec, uri, before / "state", {"num_cpus": 2})
    track(sink, [trial("a")])
    sink.close()
    recorded = load_study("lr_vs_batch", uri)
    if way == "moved":
        before.rename(now)
    else:
        shutil.copytree(before, now)
    # MLflow remembers places for as long as a process lives; a moved study goes on in another.
    monkeypatch.setattr(utils, "_artifact_repos_cache", OrderedDict())
    uri = f"sqlite:///{now}/mlflow.db"
    assert load_study("lr_vs_batch", uri) == recorded
    here = (now / "mlartifacts").as_uri()
    assert all(run.info.artifact_uri.startswith(f"{here}/") for run in runs(uri))
    left = files(before)
    sink = open_sink(spec, uri, now / "state", {"num_cpus": 3})
    track(sink, [trial("b")])
    sink.close()
    again = load_study("lr_vs_batch", uri)
    assert (again.environment, len(again.trials)) == ({"num_cpus": 3}, 2)
    assert files(before) == left


def test_artifacts_that_stay_elsewhere_are_left_there(
    spec: StudySpec, uri: str, tmp_path: Path
) -> None:
    elsewhere = (tmp_path / "elsewhere/artifacts/lr_vs_batch").as_uri()
    client(uri).create_experiment("lr_vs_batch", artifact_location=elsewhere)
    (tmp_path / "state").mkdir()
    sink = open_sink(spec, uri, tmp_path / "state", {"num_cpus": 2})
    sink.close()
    # The store alone is moved: its artifacts are where they were.
    (tmp_path / "now").mkdir()
    (tmp_path / "mlflow.db").rename(tmp_path / "now/mlflow.db")
    moved = f"sqlite:///{tmp_path}/now/mlflow.db"
    assert load_study("lr_vs_batch", moved).environment == {"num_cpus": 2}
    assert runs(moved)[0].info.artifact_uri.startswith(elsewhere)
