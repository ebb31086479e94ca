"""What others log, edit or delete in a study's store: left out and said, or one clear line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scaling.report.__main__ import main
from scaling.sinks.mlflow.load import load_study
from scaling.spec.study import StudySpec
from tests.sinks.told import client, open_sink, runs, track, trial


@pytest.fixture
def told(state: Path, spec: StudySpec, uri: str) -> dict[str, Any]:
    """A study of two trials in the store: its parent run and its trials' runs."""
    sink = open_sink(spec, uri, state, {"num_cpus": 2})
    track(sink, [trial("a"), trial("b")])
    sink.close()
    by_trial = {run.data.tags.get("trial_id", "parent"): run for run in runs(uri)}
    return {name: run.info.run_id for name, run in by_trial.items()} | {
        "experiment": runs(uri)[0].info.experiment_id
    }


def test_metrics_of_others_are_left_out_and_said(told: dict[str, Any], uri: str) -> None:
    store = client(uri)
    store.log_metric(told["a"], "system/cpu", 3.0, step=7)
    store.log_metric(told["a"], "system/cpu", 4.0, step=8)
    store.log_metric(told["a"], "broken", float("nan"), step=20)
    store.log_metric(told["b"], "seconds", float("inf"), step=20)
    store.log_metric(told["b"], "validation_loss", 0.1, step=5)
    store.log_metric(told["parent"], "mine", 1.0)
    store.log_param(told["a"], "note", "not a number")
    store.set_tag(told["b"], "mlflow.note.content", "bad\x07")
    store.create_run(told["experiment"], run_name="mine")
    store.create_run(
        told["experiment"], run_name="under it", tags={"mlflow.parentRunId": told["parent"]}
    )
    study = load_study("lr_vs_batch", uri)
    assert study.trials == (trial("a"), trial("b"))
    assert study.notes == (
        "Left out: 1 run in MLflow that the study did not make: under it.",
        "Left out: metrics of 2 trials at steps that the study did not measure: system/cpu, "
        "validation_loss.",
    )


def test_a_deleted_trial_is_gone_and_a_deleted_study_unknown(
    told: dict[str, Any], uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client(uri).delete_run(told["a"])
    assert [t.trial_id for t in load_study("lr_vs_batch", uri).trials] == ["b"]
    client(uri).delete_experiment(told["experiment"])
    assert_one_line(uri, "no study 'lr_vs_batch'", capsys)


DISTURBED: dict[str, tuple[Callable[[Any, dict[str, Any]], None], str]] = {
    "record is no JSON": (lambda s, t: s.set_tag(t["a"], "record", "{"), "tag `record`"),
    "record is a list": (lambda s, t: s.set_tag(t["a"], "record", "[1]"), "tag `record`"),
    "record lacks its recipe": (
        lambda s, t: s.set_tag(t["a"], "record", '{"trial_id": "a"}'), "phase"
    ),
    "spec is no YAML": (lambda s, t: s.log_text(t["parent"], "{a: [", "study.yaml"), "study file"),
    "spec is of nothing": (lambda s, t: s.log_text(t["parent"], "a: 1", "study.yaml"), "is not a"),
    "environment is a list": (
        lambda s, t: s.log_text(t["parent"], "[]", "environment.json"), "environment.json"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DISTURBED)
def test_what_is_not_a_studys_names_the_run(
    name: str, told: dict[str, Any], uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    disturb, words = DISTURBED[name]
    disturb(client(uri), told)
    run = told["a"] if "record" in name else told["parent"]
    assert run in assert_one_line(uri, words, capsys)


def test_a_missing_artifact_is_one_line(
    told: dict[str, Any], uri: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = tmp_path.rglob("environment.json")
    found.unlink()
    assert_one_line(uri, "environment.json", capsys)


def assert_one_line(uri: str, words: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["lr_vs_batch", "--tracking-uri", uri]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert words in said
    return said


def test_limits_print_what_to_run_and_leave_the_report(
    told: dict[str, Any],
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["lr_vs_batch", "--tracking-uri", uri]) == 0
    report = tmp_path / "reports" / "lr_vs_batch"
    before = {path: path.stat().st_mtime_ns for path in sorted(report.rglob("*"))}
    asked = ["lr_vs_batch", "--tracking-uri", uri, "--num-workers", "2"]
    capsys.readouterr()
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "global_batch_size: 64" in said
    assert f"peak_lr: {0.0012 / 3}" in said
    assert "No report was written" in said
    assert {path: path.stat().st_mtime_ns for path in sorted(report.rglob("*"))} == before
    assert main([*asked, "--output", "elsewhere"]) == 0
    assert (tmp_path / "elsewhere" / "report.html").exists()
