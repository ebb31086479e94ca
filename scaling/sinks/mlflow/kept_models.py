"""The models that a study kept, sent to MLflow from wherever its storage is."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.files.names import MODELS
from scaling.files.shown_error import first_line
from scaling.files.shown_url import shown_url
from scaling.sinks.mlflow.store import RefusedWriteError, artifact_errors

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def send_models(
    client: "MlflowClient", run_id: str, folder: Path, url: str | None, goes_on: Callable[[], None]
) -> None:
    """Write the kept models, if there are any, to a run's artifacts, file by file.

    A file that is there with its size is not sent again: a trial keeps its model once.

    Args:
        client: Of the store.
        run_id: The study's.
        folder: Of the study's state on this machine.
        url: Of its storage, where the workers have put them; None where that is the folder. The
            files come here one at a time, so that the disk needs room for one.
        goes_on: Called after each file that was sent.

    Raises:
        RefusedWriteError: If the URL cannot be read.
    """
    if url is None:
        files = sorted(path for path in (folder / MODELS).rglob("*") if path.is_file())
        for parent in dict.fromkeys(file.parent for file in files):
            sizes = {file.name: file.stat().st_size for file in files if file.parent == parent}
            place = parent.relative_to(folder).as_posix()
            for name in _missing(client, run_id, place, sizes, goes_on):
                with artifact_errors():
                    client.log_artifact(run_id, str(parent / name), place)
        return
    import fsspec

    fs: Any
    fs, root = fsspec.core.url_to_fs(f"{url}/{MODELS}")
    for model in _read(url, fs.ls, root, detail=False, otherwise=()):
        found = _read(url, fs.find, model, detail=True, otherwise={})
        files = {file.rpartition("/")[2]: file for file in found}
        sizes = {name: found[file]["size"] for name, file in files.items()}
        place = f"{MODELS}/{model.rstrip('/').rpartition('/')[2]}"
        for name in _missing(client, run_id, place, sizes, goes_on):
            with tempfile.TemporaryDirectory() as copied:
                _read(url, fs.get_file, files[name], str(Path(copied) / name))
                with artifact_errors():
                    client.log_artifact(run_id, str(Path(copied) / name), place)


def _missing(
    client: "MlflowClient",
    run_id: str,
    place: str,
    sizes: Mapping[str, int],
    goes_on: Callable[[], None],
) -> Iterator[str]:
    """The files of a folder that the run does not have with their sizes, each to be sent now."""
    with artifact_errors():
        there = {found.path: found.file_size for found in client.list_artifacts(run_id, place)}
    for name, size in sizes.items():
        if there.get(f"{place}/{name}") != size:
            yield name
            goes_on()


def _read(
    url: str, call: Callable[..., Any], *given: Any, otherwise: Any = None, **how: Any
) -> Any:
    """What a call of a file system gives, or `otherwise` where there is no such folder."""
    try:
        return call(*given, **how)
    except Exception as error:  # each file system has errors of its own
        if otherwise is not None and isinstance(error, FileNotFoundError):
            return otherwise
        raise RefusedWriteError(
            f"the models cannot be read at {shown_url(url)}: {first_line(error)}"
        ) from error
