"""The models that a study kept, sent to MLflow from wherever its storage is."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.files.names import MODELS
from scaling.files.shown_url import shown_url
from scaling.sinks.mlflow.store import RefusedWriteError
from scaling.spec.issues import first_line

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def send_models(client: "MlflowClient", run_id: str, folder: Path, url: str | None) -> None:
    """Write the kept models, if there are any, to a run's artifacts.

    Args:
        client: Of the store.
        run_id: The study's.
        folder: Of the study's state on this machine.
        url: Of its storage, where the workers have put them; None where that is the folder. They
            come here one at a time, so that the disk needs room for one.

    Raises:
        RefusedWriteError: If the URL cannot be read.
    """
    if url is None:
        if (folder / MODELS).is_dir():
            client.log_artifacts(run_id, str(folder / MODELS), MODELS)
        return
    import fsspec

    fs: Any
    fs, root = fsspec.core.url_to_fs(f"{url.rstrip('/')}/{MODELS}")
    for place in _listed(fs, root, url):
        with tempfile.TemporaryDirectory() as copied:
            try:
                for file in fs.find(place):
                    fs.get_file(file, str(Path(copied) / file.rpartition("/")[2]))
            except Exception as error:  # each file system has errors of its own
                raise _unreadable(url, error) from error
            client.log_artifacts(run_id, copied, f"{MODELS}/{place.rpartition('/')[2]}")


def _listed(fs: Any, root: str, url: str) -> list[str]:
    try:
        return [place.rstrip("/") for place in fs.ls(root, detail=False)]
    except FileNotFoundError:
        return []
    except Exception as error:
        raise _unreadable(url, error) from error


def _unreadable(url: str, error: Exception) -> RefusedWriteError:
    return RefusedWriteError(f"the models cannot be read at {shown_url(url)}: {first_line(error)}")
