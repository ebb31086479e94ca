"""Models that a study kept are in MLflow, whether its storage is a folder or a URL."""

import uuid
from pathlib import Path

import fsspec
import pytest
from mlflow.artifacts import list_artifacts

from scaling.spec.study import StudySpec
from tests.sinks.told import client, open_sink, runs, track, trial

TRIALS = ("confirm-b16-0", "confirm-b64-0")


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_kept_models_reach_mlflow(
    state: Path, spec: StudySpec, uri: str, tmp_path: Path, place: str
) -> None:
    where = str(state)
    if place == "memory":
        where = f"memory://{uuid.uuid4().hex}/study"
        spec = spec.model_copy(update={"storage": where})
    for name in TRIALS:
        for file in ("config.json", "weights.pt"):
            with fsspec.open(f"{where}/models/{name}/{file}", "wb", auto_mkdir=True) as written:
                written.write(f"{name} {file}".encode())  # type: ignore[union-attr]
    sink = open_sink(spec, uri, state)
    track(sink, [trial()])
    sink.study_ended("done")

    listed = [
        file.path
        for name in TRIALS
        for file in list_artifacts(
            run_id=sink_run(uri), artifact_path=f"models/{name}", tracking_uri=uri
        )
    ]
    assert listed == [f"models/{n}/{f}" for n in TRIALS for f in ("config.json", "weights.pt")]
    got = client(uri).download_artifacts(
        sink_run(uri), f"models/{TRIALS[1]}/weights.pt", str(tmp_path)
    )
    assert Path(got).read_text(encoding="utf-8") == f"{TRIALS[1]} weights.pt"


def test_a_study_that_kept_none_at_a_url_ends_well(state: Path, spec: StudySpec, uri: str) -> None:
    spec = spec.model_copy(update={"storage": f"memory://{uuid.uuid4().hex}/study"})
    sink = open_sink(spec, uri, state)
    track(sink, [trial()])
    sink.study_ended("done")
    assert client(uri).get_run(sink_run(uri)).info.status == "FINISHED"


def sink_run(uri: str) -> str:
    """The parent run of the one study in a store."""
    [parent] = [run for run in runs(uri) if "mlflow.parentRunId" not in run.data.tags]
    return parent.info.run_id
