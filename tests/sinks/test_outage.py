"""Processes that are killed and servers that go away: at the end nothing is missing or double."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from scaling.records.trial import TrialRecord
from scaling.sinks import StudyEnd, TrackingError
from scaling.sinks.mlflow.load import load_study
from scaling.sinks.mlflow.sink import MlflowSink
from scaling.sinks.mlflow.study_file import spec_to_yaml
from scaling.spec.study import StudySpec
from tests.sinks.servers import MlflowServer
from tests.sinks.told import assert_each_once, client, interleaved, open_sink, runs, track, trial

TELL_AND_DIE = """
import os, sqlite3, sys, time, yaml
from pathlib import Path
from scaling.spec.study import StudySpec
from scaling.records.trial import TrialRecord
from scaling.sinks import StudyStart, TrackingError
from scaling.sinks.mlflow.sink import MlflowSink

spec = StudySpec.model_validate(yaml.safe_load(sys.argv[1]))
record, uri, spool = TrialRecord.from_json(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
sink = MlflowSink(StudyStart(spec, "s1", spool), uri)
sink.trial_started(record)
sink.trial_measured(record.trial_id, record.measurements[:5])
time.sleep(2)  # these are sent
lock = sqlite3.connect(uri.removeprefix("sqlite:///"), isolation_level=None)
lock.execute("BEGIN EXCLUSIVE")  # and from here on nothing is
for point in record.measurements[5:]:
    sink.trial_measured(record.trial_id, [point])
try:
    sink.study_ended(StudyEnd("interrupted"))
except TrackingError:
    pass
os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing(spec: StudySpec, uri: str, state: Path) -> None:
    record = trial("a", 40)
    arguments = [spec_to_yaml(spec), record.to_json(), uri, str(state)]
    killed = subprocess.run([sys.executable, "-c", TELL_AND_DIE, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    sent = load_study("lr_vs_batch", uri).trials[0].measurements
    assert 0 < len(sent) < 40
    with (state / "mlflow_spool.jsonl").open("a") as spool:
        spool.write('{"study_id": "s1", "at_ms": 17000')

    open_sink(spec, uri, state).close()

    (loaded,) = load_study("lr_vs_batch", uri).trials
    assert loaded.measurements == record.measurements
    assert_each_once(uri, [record])
    assert [run.info.status for run in runs(uri)] == ["RUNNING", "RUNNING"]
    assert (state / "mlflow_spool.jsonl").read_text() == ""


def test_a_line_that_says_nothing_is_kept_and_said(spec: StudySpec, uri: str, state: Path) -> None:
    (state / "mlflow_spool.jsonl").write_text("\x00\x00\n")
    sink = open_sink(spec, uri, state)
    track(sink, [trial("a")])
    with pytest.raises(TrackingError, match=r"1 writes .* failed, kept in .*: not an event"):
        sink.close()
    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a")]


def longest_call_seconds(sink: MlflowSink, records: list[TrialRecord]) -> float:
    """Tell interleaved trials up to their ends, over some seconds."""
    longest = 0.0
    for index in range(len(records[0].measurements)):
        for record in records:
            start = time.monotonic()
            sink.trial_measured(record.trial_id, [record.measurements[index]])
            longest = max(longest, time.monotonic() - start)
        time.sleep(0.1)
    for record in records:
        start = time.monotonic()
        sink.trial_ended(record)
        longest = max(longest, time.monotonic() - start)
    return longest


def wait_until_back(caplog: pytest.LogCaptureFixture) -> None:
    """Until the writer has said that the server answers again."""
    deadline = time.monotonic() + 60
    while not any("answers again" in message for message in caplog.messages):
        assert time.monotonic() < deadline, caplog.messages
        time.sleep(0.1)


@pytest.mark.slow
def test_a_server_that_is_killed_and_one_that_hangs_cost_nothing(
    spec: StudySpec, server: MlflowServer, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    killed_under = [trial(f"k{i}", 30) for i in range(6)]
    hung_under = [trial(f"h{i}", 30) for i in range(6)]
    sink = open_sink(spec, server.url, state)

    for record in killed_under:
        sink.trial_started(replace(record, status="running", measurements=()))
    time.sleep(1)  # in the middle of the first writes
    server.kill()
    assert longest_call_seconds(sink, killed_under) < 1
    assert (state / "mlflow_spool.jsonl").stat().st_size > 0
    server.start()
    wait_until_back(caplog)  # else the two outages are one to the writer

    for record in hung_under:
        sink.trial_started(replace(record, status="running", measurements=()))
    time.sleep(1)
    server.hang()
    assert longest_call_seconds(sink, hung_under) < 1
    time.sleep(12)  # long enough that calls are given up which the server will still answer
    server.go_on()
    sink.study_ended(StudyEnd("done", "It moves."))

    records = [*hung_under, *killed_under]  # by trial_id
    study = load_study("lr_vs_batch", server.url)
    assert list(study.trials) == records
    assert_each_once(server.url, records)
    assert {run.info.status for run in runs(server.url)} == {"FINISHED"}
    assert (state / "mlflow_spool.jsonl").read_text() == ""
    messages = [m for m in caplog.messages if "does not answer" in m or "answers again" in m]
    assert 4 <= len(messages) <= 6  # two outages; a start may fail once more


def test_a_run_that_a_slow_server_made_twice_stays_once(
    spec: StudySpec, uri: str, state: Path
) -> None:
    """The answer to a creation was given up, and the creation was done all the same."""
    sink = open_sink(spec, uri, state)
    track(sink, [trial("a"), trial("b")], up_to_step=20)
    time.sleep(1.5)
    for run in runs(uri)[1:]:
        client(uri).create_run(run.info.experiment_id, run.info.start_time, run.data.tags)
    sink.trial_ended(trial("a"))  # found out when a trial ends,
    sink.close()
    sink = open_sink(spec, uri, state)
    track(sink, [trial("b")])  # and when it is continued
    sink.close()

    assert list(load_study("lr_vs_batch", uri).trials) == [trial("a"), trial("b")]
    assert_each_once(uri, [trial("a"), trial("b")])


@pytest.mark.slow
def test_many_trials_at_once_on_postgresql(
    spec: StudySpec, postgres_server: MlflowServer, state: Path
) -> None:
    records = [trial(f"t{i:02}", 10) for i in range(40)]
    uri = postgres_server.url
    sink = open_sink(spec, uri, state, {"started": "now"})
    interleaved(sink, records)
    sink.study_ended(StudyEnd("done", "It moves.", None, {"started": "now", "ended": "then"}))

    study = load_study("lr_vs_batch", uri)
    assert list(study.trials) == records
    assert study.environment == {"started": "now", "ended": "then"}
    assert_each_once(uri, records)
    assert {run.info.status for run in runs(uri)} == {"FINISHED"}
