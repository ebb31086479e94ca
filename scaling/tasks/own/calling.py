"""Calling code of the user's own: what it raises is said in one line, its traceback kept."""

import inspect
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scaling.spec.issues import did_you_mean
from scaling.tasks.errors import DataError

_PACKAGE = f"{Path(__file__).parents[2]}{os.sep}"


@contextmanager
def own_code(path: str, what: str) -> Iterator[None]:
    """Say whatever the user's code raises here as one line about a field of the study file.

    Args:
        path: Dotted path of the field that names the code.
        what: What was called, as in `my_task:build`.

    Raises:
        DataError: For any exception, which is its cause. It has the traceback's last line, the
            line of code that it is from, and the file in which the whole traceback is kept.
    """
    try:
        yield
    except DataError:
        raise
    except (Exception, SystemExit) as error:
        found = traceback.TracebackException.from_exception(error)
        frames = [frame for frame in found.stack if not _is_ours(frame.filename)]
        found.stack = traceback.StackSummary.from_list(frames)
        last = list(found.format_exception_only())[-1].strip().splitlines()[0]
        raise DataError(
            path, f"{what} raised {last}{_place(error, frames)}; traceback in {_kept(found)}"
        ) from error


def arguments(
    called: Callable[..., Any], options: Mapping[str, Any], path: str, name: str
) -> dict[str, Any]:
    """Options of a study file as the arguments of a function or class, checked by its signature.

    Args:
        called: What is to be called.
        options: By name; lists are lists again.
        path: Dotted path of the options.
        name: What is called, for messages.

    Raises:
        DataError: If one is unknown, or one that has no default is missing.
    """
    try:
        parameters = inspect.signature(called).parameters.values()
    except (TypeError, ValueError):  # of a class in C, which has none
        return {key: _listed(value) for key, value in options.items()}
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [one.name for one in parameters if one.kind in by_name]
    allowed = ", ".join(known) or "none"
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
        for key in options:
            if key not in known:
                message = f"{name} has no such option{did_you_mean(key, known)}"
                raise DataError(f"{path}.{key}", f"{message} (allowed: {allowed})")
    for one in parameters:
        is_needed = one.default is inspect.Parameter.empty and one.kind in by_name
        if is_needed and one.name not in options:
            raise DataError(f"{path}.{one.name}", f"is required by {name}, which has no default")
    return {key: _listed(value) for key, value in options.items()}


def _listed(value: Any) -> Any:
    """A value as YAML has it: a frozen list is a list again."""
    if isinstance(value, Mapping):
        return {name: _listed(item) for name, item in value.items()}
    return list(map(_listed, value)) if isinstance(value, tuple) else value


def _is_ours(file: str) -> bool:
    return file.startswith((_PACKAGE, "<frozen importlib"))


def _place(error: BaseException, frames: list[traceback.FrameSummary]) -> str:
    """The last line of code that is not of an installed package."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f" ({Path(error.filename).name}, line {error.lineno})"
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _kept(found: traceback.TracebackException) -> str:
    """A new file of this user's alone with the traceback."""
    with tempfile.NamedTemporaryFile(
        "w", prefix="scaling-", suffix=".log", delete=False, encoding="utf-8"
    ) as log:
        log.writelines(found.format())
    return log.name
