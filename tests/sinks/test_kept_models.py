"""Models that a study kept are in MLflow, whether its storage is a folder or a URL."""

import time
import uuid
from pathlib import Path

import fsspec
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import list_artifacts

from scaling.sinks import StudyEnd
from scaling.sinks.mlflow.sink import MlflowSink
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
    sink.study_ended(StudyEnd("done"))

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


@pytest.mark.parametrize("place", ["folder", "memory"])
def test_models_that_take_long_are_waited_for_while_files_arrive_and_are_sent_once(
    state: Path, spec: StudySpec, uri: str, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    where = str(state)
    if place == "memory":
        where = f"memory://{uuid.uuid4().hex}/study"
        spec = spec.model_copy(update={"storage": where})
    for number in range(12):
        file = f"{where}/models/confirm-b16-0/part-{number:02d}.pt"
        with fsspec.open(file, "wb", auto_mkdir=True) as written:
            written.write(bytes(number + 1))  # type: ignore[union-attr]
    sent: list[str] = []
    log_artifact = MlflowClient.log_artifact

    def slow(
        self: MlflowClient, run_id: str, local_path: str, artifact_path: str | None = None
    ) -> None:
        if (artifact_path or "").startswith("models/"):
            time.sleep(0.25)
            sent.append(Path(local_path).name)
        log_artifact(self, run_id, local_path, artifact_path)

    monkeypatch.setattr(MlflowClient, "log_artifact", slow)
    monkeypatch.setattr(MlflowSink.close, "__defaults__", (2.0,))  # of 3 in all
    for _ in range(2):
        sink = open_sink(spec, uri, state)
        track(sink, [trial()])
        sink.study_ended(StudyEnd("done"))
    assert sent == [f"part-{number:02d}.pt" for number in range(12)]


def test_a_study_that_kept_none_at_a_url_ends_well(state: Path, spec: StudySpec, uri: str) -> None:
    spec = spec.model_copy(update={"storage": f"memory://{uuid.uuid4().hex}/study"})
    sink = open_sink(spec, uri, state)
    track(sink, [trial()])
    sink.study_ended(StudyEnd("done"))
    assert client(uri).get_run(sink_run(uri)).info.status == "FINISHED"


def sink_run(uri: str) -> str:
    """The parent run of the one study in a store."""
    [parent] = [run for run in runs(uri) if "mlflow.parentRunId" not in run.data.tags]
    return parent.info.run_id
