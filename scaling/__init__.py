"""How far can the batch of a Transformer grow, and what does it cost?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scaling.api import Study
    from scaling.driver.run import RefusedError, StoppedError
    from scaling.result import Result, load
    from scaling.spec.issues import StudyFileError
    from scaling.tasks.own.contract import CustomTask

__all__ = [
    "CustomTask",
    "RefusedError",
    "Result",
    "StoppedError",
    "Study",
    "StudyFileError",
    "load",
]

_PLACES: Final = {
    "CustomTask": "scaling.tasks.own.contract",
    "RefusedError": "scaling.driver.run",
    "Result": "scaling.result",
    "StoppedError": "scaling.driver.run",
    "Study": "scaling.api",
    "StudyFileError": "scaling.spec.issues",
    "load": "scaling.result",
}
"""Where each name is; imported when it is asked for, so that `import scaling` loads nothing."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
