"""What MLflow costs a study whose trials end faster than it takes them."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scaling.sinks.base import UnsentError
from scaling.sinks.events import TrialEvent
from scaling.sinks.mlflow.load import load_study
from scaling.sinks.mlflow.runs import StudyRuns
from scaling.spec.study import StudySpec
from tests.sinks.told import assert_each_once, interleaved, open_sink, runs, track, trial

CALLS = (
    "create_run", "log_batch", "log_inputs", "set_terminated", "search_runs", "update_run",
    "get_metric_history",
)  # fmt: skip


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each method of MLflow's client was called; each does what it does."""
    from mlflow import MlflowClient

    found: Counter[str] = Counter()
    for name in CALLS:
        method = getattr(MlflowClient, name)

        def call(*arguments: Any, _name: str = name, _method: Any = method, **named: Any) -> Any:
            found[_name] += 1
            return _method(*arguments, **named)

        monkeypatch.setattr(MlflowClient, name, call)
    return found


def test_a_trial_that_is_over_when_it_is_sent_takes_four_calls(
    spec: StudySpec, uri: str, state: Path, counted: Counter[str]
) -> None:
    records = [trial(f"t{number}") for number in range(6)]
    sink = open_sink(spec, uri, state, {"data_sha256": "ab" * 32})
    counted.clear()
    interleaved(sink, records)
    sink.close()

    assert counted == {"create_run": 6, "log_batch": 6, "log_inputs": 6, "set_terminated": 6}
    assert list(load_study("lr_vs_batch", uri).trials) == records
    assert_each_once(uri, records)
    histories = runs(uri)[1].data
    assert histories.params["peak_lr"] == str(0.0012 / 3)
    assert histories.tags["status"] == "done"


def test_what_mlflow_has_is_not_sent_again(
    spec: StudySpec, uri: str, state: Path, counted: Counter[str]
) -> None:
    records = [trial(f"t{number}") for number in range(6)]
    sink = open_sink(spec, uri, state)
    track(sink, records)
    sink.close()
    sink = open_sink(spec, uri, state)
    counted.clear()
    changed = replace(records[0], wall_seconds=1.0)
    for record in [changed, *records[1:]]:
        sink.trial_ended(record)
    assert (state / "mlflow_spool.jsonl").read_text().count("\n") <= 1
    sink.close()

    assert counted["create_run"] == 0
    assert counted["log_batch"] <= 3
    assert list(load_study("lr_vs_batch", uri).trials) == [changed, *records[1:]]


@pytest.mark.slow
def test_a_slow_store_is_waited_for_while_it_takes_something(
    spec: StudySpec,
    uri: str,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write = StudyRuns.write

    def slow(self: StudyRuns, told: Sequence[TrialEvent]) -> None:
        time.sleep(0.6)
        write(self, told)

    monkeypatch.setattr(StudyRuns, "write", slow)
    monkeypatch.setattr("scaling.sinks.mlflow.writer._REPORT_EVERY_SECONDS", 1.0)
    records = [trial(f"t{number}") for number in range(12)]
    sink = open_sink(spec, uri, state)
    track(sink, records)
    sink.close(idle_seconds=5.0)  # less than all of them take

    assert list(load_study("lr_vs_batch", uri).trials) == sorted(
        records, key=lambda record: record.trial_id
    )
    assert any("waiting for MLflow at" in message for message in caplog.messages)


@pytest.mark.slow
def test_a_store_that_takes_nothing_is_given_up(
    spec: StudySpec, uri: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StudyRuns, "write", lambda *_: time.sleep(4))
    sink = open_sink(spec, uri, state)
    track(sink, [trial("a")])
    with pytest.raises(UnsentError, match=r"took nothing for 1 s; 7 events wait"):
        sink.close(idle_seconds=1.0)
    time.sleep(4)
