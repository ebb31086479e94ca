"""Where MLflow is, how it is reached, and what its errors mean."""

import fcntl
import logging
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from scaling.files.shown_error import first_line
from scaling.files.shown_url import shown_url, without_credentials
from scaling.sinks.base import TrackingError
from scaling.sinks.mlflow.relocation import ARTIFACTS, relocate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")
_LOG = logging.getLogger(__name__)

_REFUSALS = (
    "ALREADY_EXISTS", "BAD_REQUEST", "INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST", "NOT_FOUND",
    "RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST",
)  # fmt: skip
# MLflow calls every database error but OperationalError a bad request; these are connections.
_CONNECTION_ERRORS = re.compile("InterfaceError|OperationalError|QueuePool|PendingRollbackError")
_OPENING_PAUSES_SECONDS = (0.5, 1.0)
# Another process makes the same tables at the same time.
_RACES = re.compile("already exists|[Dd]uplicate|UniqueViolation|IntegrityError|database is locked")
_RACE_SECONDS = 60.0
_RACE_PAUSE_SECONDS = 1.0
_SETTLED_SECONDS = 10.0


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
    if not uri.startswith(prefix):
        return None
    return Path(os.path.expanduser(uri.removeprefix(prefix))).absolute()  # noqa: PTH111  # ~nobody


DAMAGE_WORDS = re.compile("malformed|not a database")


def damaged(database: Path, error: Exception) -> str:
    """That a database cannot be read as one, and the way on."""
    return (
        f"MLflow's database {database} is damaged ({one_line(error)}); move it away: a study's "
        "folder has everything, and --resume writes it into a new one"
    )


@dataclass(frozen=True)
class DatabaseFile:
    """The file of a sqlite store as it was opened."""

    path: Path
    inode: int

    @classmethod
    def of(cls, uri: str) -> "DatabaseFile | None":
        """None for a store of another kind."""
        path = sqlite_path(uri)
        return None if path is None else cls(path, path.stat().st_ino)

    def problem(self, error: Exception | None) -> str | None:
        """Why writing to it is in vain from here on, after an error or without one."""
        try:
            is_same = self.path.stat().st_ino == self.inode
        except OSError:
            return f"MLflow's database {self.path} is gone"
        if not is_same:
            return f"MLflow's database {self.path} was replaced by another file"
        if error is not None and DAMAGE_WORDS.search(str(error)):
            # SQLAlchemy's text has the whole statement after it.
            return damaged(self.path, error)
        return None

    def count_entries(self) -> None:
        """Let SQLite know how its tables are filled, by which it chooses an index.

        Without, it finds a run's metrics among those of all runs of the database.
        """
        with suppress(sqlite3.Error), closing(sqlite3.connect(self.path, timeout=10)) as store:
            store.execute("ANALYZE")


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
    database = sqlite_path(uri)
    if database is None:
        return MlflowClient(uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    with _locked(database.parent):
        if not database.exists():
            _create(database)
        _wait_until_settled(database)
        relocate(database)
        return MlflowClient(uri)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else who asks for it has this folder's lock meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have no locks for folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _create(database: Path) -> None:
    """Make a sqlite database with MLflow's tables, whole or not at all.

    MLflow makes them by some fifty migrations in place, in which two processes disturb each other.
    Here they are made in a file of another name, which `mlflow ui` does not see, and where another
    process has made the database meanwhile, its stays.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(prefix=f".{database.name}.", dir=database.parent) as folder:
        made = Path(folder, "made.db")
        artifacts = (database.parent / ARTIFACTS).as_uri()
        SqlAlchemyStore(f"sqlite:///{made}", artifacts).engine.dispose()
        try:
            database.hardlink_to(made)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            if not database.exists():
                made.rename(database)
    # MLflow keeps what it opened: here a file that was deleted, where this process had one.
    SqlAlchemyStore(f"sqlite:///{database}", artifacts).engine.dispose()


def _wait_until_settled(database: Path) -> None:
    """Wait while another process, `mlflow ui` for one, makes a database's tables in place.

    What stays as it is, was made by another version of MLflow, or by nobody: MLflow says so, or
    makes them.

    Raises:
        TrackingError: If the file cannot be read, or is no database.
    """
    import mlflow
    from alembic.script import ScriptDirectory

    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations"
    newest = ScriptDirectory(str(migrations)).get_current_head()
    found, since = _revision(database), time.monotonic()
    end = since + _RACE_SECONDS
    while found[0] != newest and time.monotonic() < min(end, since + _SETTLED_SECONDS):
        time.sleep(_RACE_PAUSE_SECONDS)
        now = _revision(database)
        if now != found:
            found, since = now, time.monotonic()


def _revision(database: Path) -> tuple[str | None, int]:
    """MLflow's revision of a database's tables, and a number that changes with each change."""
    try:
        # Not read-only: what a killed process had begun to write has to be taken back first.
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
            (version,) = connection.execute("PRAGMA schema_version").fetchone()
            names = connection.execute("SELECT name FROM sqlite_master").fetchall()
            if ("alembic_version",) not in names:
                return None, version
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return (row[0] if row else None), version
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return None, -1
        raise TrackingError(f"cannot open MLflow's database {database}: {error}") from error
    except sqlite3.Error as error:
        raise TrackingError(damaged(database, error)) from error


def store_errors() -> tuple[type[Exception], ...]:
    """What is raised when a store cannot be reached, read or written."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return (MlflowException, SQLAlchemyError, OSError, RefusedWriteError)


@contextmanager
def artifact_errors() -> Iterator[None]:
    """Raise as an OSError what else a store of artifacts raises, which MLflow passes on as it is.

    The client reaches it directly where the server does not, with errors of boto3, say.
    """
    try:
        yield
    except store_errors():
        raise
    except Exception as error:  # each store has kinds of its own
        raise OSError(first_line(error)) from error


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
    """The result of a call that may be repeated.

    On a server two failures are forgiven; a race with another process that makes the same tables
    is, on every store, until it is over.
    """
    pauses = list(_OPENING_PAUSES_SECONDS if is_server(uri) else ())
    end = time.monotonic() + _RACE_SECONDS
    while True:
        try:
            return call()
        except store_errors() as error:
            if _RACES.search(str(error)) and time.monotonic() < end:
                time.sleep(_RACE_PAUSE_SECONDS)
            elif pauses and not is_refusal(error):
                time.sleep(pauses.pop(0))
            else:
                raise


def one_line(error: Exception) -> str:
    """An error's text, without line breaks and credentials and at most 500 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return without_credentials(text)[:500]


def open_experiment(client: "MlflowClient", uri: str, name: str) -> str:
    """The id of the experiment of a name, which is made, or restored, where it must be."""
    from mlflow.exceptions import MlflowException

    kind = {"mlflow.experimentKind": "custom_model_development"}
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # Beside a sqlite database, whatever the working directory; a server chooses its own.
        database = sqlite_path(uri)
        location = None if database is None else (database.parent / ARTIFACTS / name).as_uri()
        try:
            return client.create_experiment(name, artifact_location=location, tags=kind)
        except MlflowException as error:
            experiment = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or experiment is None:
                raise
            # Another study of this name has made it just now.
    if experiment.lifecycle_stage != "active":
        client.restore_experiment(experiment.experiment_id)
        _LOG.warning("the MLflow experiment %r had been deleted, and is restored", name)
    for key, value in kind.items():
        if experiment.tags.get(key) != value:
            client.set_experiment_tag(experiment.experiment_id, key, value)
    return experiment.experiment_id


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
