"""The model of a run that has ended, left where others can load it."""

import tempfile
from pathlib import Path
from typing import Any

import fsspec
from torch import nn

from scaling.files.url_errors import as_os_error
from scaling.tasks.model.kept import save_weights
from scaling.tasks.task import KeptTask, Task


def keep_model(task: Task, model: nn.Module, folder: str) -> None:
    """Write a model in the form that its task gives it; called by the first worker.

    Args:
        task: What it was trained on.
        model: Whole, with the weights that were evaluated.
        folder: Local folder or URL, which need not exist; files of an earlier attempt are replaced.

    Raises:
        OSError: If it cannot be written.
    """
    fs: Any
    fs, place = fsspec.core.url_to_fs(folder)
    with tempfile.TemporaryDirectory() as made:
        if isinstance(task, KeptTask):
            task.save_model(model, Path(made))
        else:
            save_weights(model, Path(made))
        with as_os_error(folder):
            fs.makedirs(place, exist_ok=True)
            for file in Path(made).iterdir():
                fs.put_file(str(file), f"{place}/{file.name}")
