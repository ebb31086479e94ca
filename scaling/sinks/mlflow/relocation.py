"""A sqlite store that was moved or copied with its artifacts, whose old places MLflow knows."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

ARTIFACTS = "mlartifacts"
"""Folder beside a sqlite store with a folder of artifacts for each experiment."""


def relocate(database: Path) -> None:
    """Point a database that was moved at the artifacts beside it.

    MLflow keeps an absolute path for each experiment and run, so that a folder that was moved
    with its store would be read from, and written to, where it was. Only places like those that
    a study makes (`mlartifacts/NAME`) are changed, and only where NAME is beside the database, or
    is not where it was either. A database that cannot be written is left as it is.
    """
    with suppress(sqlite3.Error), closing(sqlite3.connect(database, timeout=10)) as store, store:
        known = store.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        for experiment_id, location in known:
            before = _local(location)
            if before is None or before.parent.name != ARTIFACTS:
                continue
            here = database.parent / ARTIFACTS / before.name
            is_right = before.is_dir() and (not here.is_dir() or before.samefile(here))
            if before == here or is_right:
                continue
            store.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
                (here.as_uri(), experiment_id),
            )
            start = f"{location}/"
            store.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?)"
                " WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (here.as_uri(), len(start), experiment_id, len(start), start),
            )


def _local(location: str | None) -> Path | None:
    """The folder of a file:// URI; None for every other place."""
    url = urlsplit(location or "")
    return Path(url2pathname(url.path)) if url.scheme == "file" else None
