"""Several processes that open one new store at the same moment."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scaling.sinks import StudyEnd, TrackingError
from scaling.sinks.mlflow.load import load_study
from scaling.spec.study import StudySpec
from tests.sinks.servers import MlflowServer, running_postgres
from tests.sinks.told import client, open_sink

NUM_STUDIES = 5

# Waits for the word to go, so that all have imported what they need.
STUDY = """
import sys
from pathlib import Path
import mlflow, sqlalchemy, alembic.command
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from scaling.spec.study import StudySpec
from scaling.sinks import StudyStart
from scaling.sinks.mlflow.sink import MlflowSink
spec = StudySpec.model_validate_json(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
sink = MlflowSink(StudyStart(spec, sys.argv[3], Path(sys.argv[4])), sys.argv[2])
sink.study_ended(StudyEnd("done", "An answer."))
"""
REPORT = """
import sys
import mlflow, sqlalchemy, alembic.command
from scaling.report.__main__ import main
print("ready", flush=True)
sys.stdin.readline()
sys.exit(main(["lr_vs_batch", "--tracking-uri", sys.argv[1], "--output", sys.argv[2]]))
"""


def process(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def go(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    """Let all of them begin at once; status and standard error of each."""
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == "ready\n", each.communicate()
    for each in processes:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    errors = [each.communicate(timeout=300)[1] for each in processes]
    return [(each.returncode, error) for each, error in zip(processes, errors, strict=True)]


def studies(spec: StudySpec, uri: str, folder: Path) -> list[subprocess.Popen[str]]:
    found: list[subprocess.Popen[str]] = []
    for number in range(NUM_STUDIES):
        spool = folder / f"spool{number}"
        spool.mkdir()
        text = spec.model_dump_json(exclude_unset=True)
        found.append(process(STUDY, text, uri, f"study{number}", str(spool)))
    return found


def assert_all_recorded(spec: StudySpec, uri: str) -> None:
    for number in range(NUM_STUDIES):
        assert load_study(spec.name, uri, study_id=f"study{number}").spec == spec
    store = client(uri)
    [experiment] = [e for e in store.search_experiments() if e.name == spec.name]
    assert len(store.search_runs([experiment.experiment_id])) == NUM_STUDIES


@pytest.mark.slow
def test_studies_and_a_report_on_a_new_database(spec: StudySpec, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    report = process(REPORT, uri, str(tmp_path / "report"))
    ended = go([*studies(spec, uri, tmp_path), report])
    assert [status for status, _ in ended[:-1]] == [0] * NUM_STUDIES, ended
    status, error = ended[-1]  # it may have come before the study
    assert status == 0 or error.startswith("error: no study 'lr_vs_batch'"), error
    assert_all_recorded(spec, uri)
    hidden = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not hidden


@pytest.mark.slow
def test_studies_while_a_server_makes_the_database(
    spec: StudySpec, tmp_path: Path, free_port: int
) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    waiting = studies(spec, uri, tmp_path)

    def go_when_it_is_there() -> list[tuple[int, str]]:
        while not (tmp_path / "mlflow.db").exists():
            time.sleep(0.01)
        return go(waiting)

    # As `mlflow ui`: it makes the tables in place.
    with ThreadPoolExecutor(1) as meanwhile:
        ended = meanwhile.submit(go_when_it_is_there)
        with MlflowServer(tmp_path, uri, free_port) as server:
            assert [status for status, _ in ended.result()] == [0] * NUM_STUDIES, ended.result()
            assert_all_recorded(spec, server.url)


@pytest.mark.slow
def test_studies_on_a_new_postgres(spec: StudySpec, tmp_path: Path) -> None:
    with running_postgres() as (_, uri):
        ended = go(studies(spec, uri, tmp_path))
        assert [status for status, _ in ended] == [0] * NUM_STUDIES, ended
        assert_all_recorded(spec, uri)


def test_what_is_no_database_is_said_at_once(spec: StudySpec, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database, however long it is looked at")
    with pytest.raises(TrackingError, match=r"damaged \(file is not a database\); move it"):
        open_sink(spec, f"sqlite:///{tmp_path}/mlflow.db", tmp_path)


def test_a_study_that_is_refused_leaves_no_run(
    spec: StudySpec, uri: str, state: Path, tmp_path: Path
) -> None:
    sink = open_sink(spec, uri, state, study_id="refused")
    sink.study_ended(StudyEnd("refused"))
    store = client(uri)
    [experiment] = [e for e in store.search_experiments() if e.name == spec.name]
    assert not store.search_runs([experiment.experiment_id])
