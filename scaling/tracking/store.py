"""Where MLflow is, how it is reached, and what its errors mean."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scaling.shown_url import shown_url, without_credentials

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")

_REFUSALS = frozenset(
    {
        "ALREADY_EXISTS",
        "BAD_REQUEST",
        "INVALID_PARAMETER_VALUE",
        "MALFORMED_REQUEST",
        "NOT_FOUND",
        "RESOURCE_ALREADY_EXISTS",
        "RESOURCE_DOES_NOT_EXIST",
    }
)
# MLflow calls every database error but OperationalError a bad request; these are connections.
_CONNECTION_ERRORS = re.compile("InterfaceError|OperationalError|QueuePool|PendingRollbackError")
_OPENING_PAUSES_SECONDS = (0.5, 1.0)


class TrackingError(RuntimeError):
    """MLflow could not be opened, or something could not be written to it."""


class UnsentError(TrackingError):
    """What happened is on disk, and not, or not all of it, in MLflow."""


class RefusedWriteError(Exception):
    """A write that MLflow cannot take, however often it is tried; says why."""


def resolve_tracking_uri(tracking_uri: str | None = None) -> str:
    """Where MLflow keeps its runs, valid from every working directory.

    Args:
        tracking_uri: An MLflow tracking URI; where None, `MLFLOW_TRACKING_URI`, and where that
            is unset, `sqlite:///mlflow.db` in the working directory.

    Returns:
        The URI, a sqlite path made absolute.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
    database = sqlite_path(uri)
    return uri if database is None else f"sqlite:///{database}"


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a sqlite store's file; None for every other store."""
    prefix = "sqlite:///"
    return Path(uri.removeprefix(prefix)).absolute() if uri.startswith(prefix) else None


def is_server(uri: str) -> bool:
    """Whether a store is reached over HTTP."""
    return uri.startswith(("http://", "https://"))


def run_url(uri: str, experiment_id: str, run_id: str) -> str:
    """Address of a run: whole for a server, else what follows the address of `mlflow ui`.

    It carries no credential: a browser asks for its own.
    """
    server = shown_url(uri).rstrip("/") + "/" if is_server(uri) else ""
    return f"{server}#/experiments/{experiment_id}/runs/{run_id}"


def open_client(uri: str) -> "MlflowClient":
    """A client that is quiet and gives a call up after about 10 s; creates the schema.

    MLflow's own retries are off: it would repeat a creation whose answer was lost, and so make
    a second run. Whoever writes tries again by looking first (`StudyRuns`).
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic", "sqlalchemy"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Prints a traceback for each failure that it also raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient(uri)


def store_errors() -> tuple[type[Exception], ...]:
    """What is raised when a store cannot be reached, read or written."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError, RefusedWriteError)


def is_refusal(error: Exception) -> bool:
    """Whether a store's error speaks of what was to be written, and not of the store.

    Everything else (no connection, a timeout, a locked database, HTTP 5xx, 401, 403, 429) may
    pass, and trying again may succeed.
    """
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return isinstance(error, RefusedWriteError)
    if error.error_code == "BAD_REQUEST" and _CONNECTION_ERRORS.search(str(error)):
        return False
    return error.error_code in _REFUSALS


def tried_again(uri: str, call: Callable[[], T]) -> T:
    """The result of a call that may be repeated; on a server, two failures are forgiven."""
    for pause in _OPENING_PAUSES_SECONDS if is_server(uri) else ():
        try:
            return call()
        except store_errors() as error:
            if is_refusal(error):
                raise
            time.sleep(pause)
    return call()


def one_line(error: Exception) -> str:
    """An error's text, without line breaks and credentials and at most 500 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return without_credentials(text)[:500]


def search_all(
    client: "MlflowClient", experiment_id: str, query: str, order_by: Sequence[str] = ()
) -> Iterator["Run"]:
    """Every run that a search finds, page after page."""
    token: str | None = None
    while True:
        page = client.search_runs([experiment_id], query, order_by=[*order_by], page_token=token)
        yield from page
        token = page.token
        if not token:
            return
