"""What is pure and takes long, computed once in a run of the tests: the same gives the same.

The processes of a run share what they have computed, through files in a folder of that run.
"""

import functools
import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_FOLDER = "TESTS_RESULT_CACHE"
"""Environment variable: the folder; a process without it has a cache of its own alone."""


def share_in(folder: str) -> None:
    """Let this process, and those that it starts, share their results in a folder."""
    os.environ[_FOLDER] = folder


def key_of(*parts: Any) -> str | None:
    """Equal for equal arguments; None where one is of a class that a test has made up."""
    try:
        return hashlib.sha256(pickle.dumps(parts)).hexdigest()
    except (pickle.PicklingError, AttributeError):
        return None


def cached(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
    """A function that returns what it returned for the same arguments, in any process of a run.

    Arguments and results can be pickled, and nothing changes a result.
    """
    known: dict[str, _Result] = {}

    @functools.wraps(function)
    def once(*args: _Given.args, **options: _Given.kwargs) -> _Result:
        key = key_of(function.__module__, function.__qualname__, args, options)
        if key is None:
            return function(*args, **options)
        if key not in known:
            known[key] = _found_or_made(key, functools.partial(function, *args, **options))
        return known[key]

    return once


def _found_or_made(key: str, make: Callable[[], Any]) -> Any:
    folder = os.environ.get(_FOLDER)
    if folder is None:
        return make()
    path = Path(folder, key)
    if path.exists():
        return pickle.loads(path.read_bytes())  # of this run's own processes
    made = make()
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(pickle.dumps(made))
    Path(file.name).replace(path)  # whole, or not there
    return made
