"""How far can the batch of a Transformer grow, and what does it cost?"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scaling.tasks.own.contract import CustomTask

__all__ = ["CustomTask"]

_PLACES: Final = {"CustomTask": "scaling.tasks.own.contract"}
"""Where each name is; imported when it is asked for, so that `import scaling` loads nothing."""


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
