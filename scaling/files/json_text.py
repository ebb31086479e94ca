"""JSON that another process wrote: bounded in size, and wrong in one line."""

# pyright: strict

import json
from collections.abc import Iterable
from typing import Any, Final, cast

MAX_BYTES: Final = 64_000_000
"""Ten times the records of a study of ten thousand trials."""
MAX_DEPTH: Final = 32


def parse_mapping(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read a JSON document that is a mapping.

    Raises:
        ValueError: In one line, if it is larger than `max_bytes`, no JSON, not UTF-8, nested too
            deeply to be read, or no mapping.
    """
    value = _parsed(text, max_bytes)
    if not isinstance(value, dict):
        raise ValueError("is not a mapping")
    return cast("dict[str, Any]", value)


def is_shallow(value: object, max_depth: int = MAX_DEPTH) -> bool:
    """Whether mappings and lists are nested at most so deeply."""
    level = [value]
    for _ in range(max_depth + 1):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return True
    return False


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list) else ()


def _parsed(text: str | bytes, max_bytes: int) -> Any:
    if len(text) > max_bytes:
        raise ValueError(f"is larger than {max_bytes:,} bytes")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"is not JSON: {place}: {error.msg}") from None
    except ValueError:  # a number of thousands of digits
        raise ValueError("holds a number that is too long") from None
