"""Whether a store could record a study, seen without writing to it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from scaling.files.access import why_not_writable
from scaling.files.shown_url import shown_url
from scaling.sinks.base import TrackingError
from scaling.sinks.mlflow.store import (
    DAMAGE_WORDS,
    damaged,
    is_server,
    one_line,
    open_client,
    resolve_tracking_uri,
    sqlite_path,
    store_errors,
    tried_again,
)

_NAMED = ("databricks", "databricks-uc", "uc")
"""Stores that MLflow knows by a word."""


def require_reachable_store() -> None:
    """Check that MLflow's store answers, or where it is a file, that it can be written.

    Nothing is made or changed: neither the file nor its tables. What a killed process had begun
    to write, SQLite takes back as at any opening.

    Raises:
        TrackingError: If it cannot be used.
    """
    uri = resolve_tracking_uri()
    database = sqlite_path(uri)
    try:
        if database is not None:
            _require_database(database)
        elif is_server(uri):
            tried_again(uri, lambda: open_client(uri).search_experiments(max_results=1))
        elif uri in _NAMED or ("://" in uri and not uri.startswith("file:")):
            _require_connection(uri)
        else:
            _require_folder(uri)
    except (*store_errors(), ImportError, ValueError) as error:
        raise TrackingError(f"cannot open MLflow at {shown_url(uri)}: {one_line(error)}") from error


def _require_database(database: Path) -> None:
    where = f"MLflow's database {database}"
    if reason := why_not_writable(database.parent):
        raise TrackingError(f"cannot write {where}: {reason}")
    if not database.exists():
        return
    if not database.is_file():
        raise TrackingError(f"cannot open {where}: is not a file")
    if not os.access(database, os.W_OK):
        raise TrackingError(f"cannot write {where}: Permission denied")
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=rw", uri=True)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        if DAMAGE_WORDS.search(str(error)):
            raise TrackingError(damaged(database, error)) from error
        if "locked" not in str(error):
            raise TrackingError(f"cannot open {where}: {error}") from error


def _require_folder(uri: str) -> None:
    """A folder of files, for which MLflow also takes an address without its `http://`."""
    from mlflow import environment_variables

    if reason := why_not_writable(Path(uri.removeprefix("file://").removeprefix("file:"))):
        raise TrackingError(f"cannot write MLflow's folder {shown_url(uri)}: {reason}")
    is_allowed = getattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)
    if is_allowed is not None and not is_allowed.get():  # older versions have no such variable
        raise TrackingError(
            f"MLflow refuses the store {shown_url(uri)}, a folder; set MLFLOW_TRACKING_URI to "
            "sqlite:///mlflow.db or to a server's http:// address, or MLFLOW_ALLOW_FILE_STORE to "
            "true"
        )


def _require_connection(uri: str) -> None:
    """A database server answers; a store of another kind is opened by MLflow."""
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError

    try:
        engine = sqlalchemy.create_engine(uri)
    except ArgumentError:  # no database: whether MLflow knows it, it says itself
        open_client(uri)
        return
    with closing(engine.connect()):
        pass
    engine.dispose()
