"""Where the store is, and which of its errors are worth another try."""

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ErrorCode
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from scaling.sinks import TrackingError, resolve_tracking_uri
from scaling.sinks.mlflow.reachable import require_reachable_store
from scaling.sinks.mlflow.store import RefusedWriteError, is_refusal, open_client, store_errors
from scaling.spec.study import StudySpec
from tests.sinks.told import open_sink


def mlflow_error(code: str, message: str = "?") -> MlflowException:
    return MlflowException(message, error_code=ErrorCode.Value(code))


@pytest.mark.parametrize(
    ("error", "is_refused"),
    [
        (mlflow_error("INVALID_PARAMETER_VALUE"), True),
        (mlflow_error("RESOURCE_DOES_NOT_EXIST"), True),
        (mlflow_error("BAD_REQUEST", "(psycopg2.errors.NumericValueOutOfRange) ..."), True),
        (RestException({"error_code": "INVALID_PARAMETER_VALUE", "message": "?"}), True),
        (RefusedWriteError("?"), True),
        (mlflow_error("INTERNAL_ERROR", "API request to http://x failed with exception"), False),
        (mlflow_error("TEMPORARILY_UNAVAILABLE", "database is locked"), False),
        (mlflow_error("REQUEST_LIMIT_EXCEEDED"), False),
        (mlflow_error("PERMISSION_DENIED"), False),
        (mlflow_error("BAD_REQUEST", "(psycopg2.InterfaceError) connection already closed"), False),
        (RestException({"error_code": "502", "message": "Bad gateway"}), False),
        (PoolTimeoutError("QueuePool limit of size 5 reached"), False),
        (requests.ConnectionError("refused"), False),
        (OSError(28, "No space left on device"), False),
    ],
)
def test_refusals_speak_of_the_write_and_not_of_the_store(
    error: Exception, is_refused: bool
) -> None:
    assert isinstance(error, store_errors())
    assert is_refusal(error) == is_refused


def test_a_server_that_does_not_answer_refuses_the_start(
    spec: StudySpec, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setattr("scaling.sinks.mlflow.store._OPENING_PAUSES_SECONDS", (0.01, 0.01))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        with pytest.raises(TrackingError, match=r"cannot open MLflow at .* timed out"):
            open_sink(spec, uri, state)
        assert time.monotonic() - start < 20


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


@pytest.mark.parametrize("uri", ["databricks", "databricks://profile"])
def test_a_store_that_mlflow_knows_by_a_word(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    require_reachable_store()


def _killed_while_writing(database: Path) -> None:
    """Leave a transaction half written in the file, as a process that is killed does."""
    code = (
        "import os, sqlite3, sys\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('PRAGMA cache_size = 1')\n"
        "connection.execute('BEGIN')\n"
        "connection.execute('CREATE TABLE begun (text)')\n"
        "connection.executemany('INSERT INTO begun VALUES (?)', [('x' * 5000,)] * 500)\n"
        "os._exit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(database)], check=False)
    assert Path(f"{database}-journal").exists()


def test_a_store_whose_writer_was_killed_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = tmp_path / "mlflow.db"
    uri = f"sqlite:///{database}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    open_client(uri).search_experiments()
    _killed_while_writing(database)
    require_reachable_store()
    assert open_client(uri).search_experiments()[0].name == "Default"
    _killed_while_writing(database)
    assert open_client(uri).search_experiments()[0].name == "Default"
