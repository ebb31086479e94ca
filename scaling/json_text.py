"""JSON that another process wrote: bounded in size, and wrong in one line."""

# pyright: strict

import json
from typing import Any, Final, cast

MAX_BYTES: Final = 64_000_000
"""Ten times the records of a study of ten thousand trials."""


def parse_json(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> Any:
    """Read a JSON document.

    Raises:
        ValueError: In one line, if it is larger than `max_bytes`, no JSON, not UTF-8, or nested
            too deeply to be read.
    """
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


def parse_mapping(text: str | bytes, *, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Read a JSON document that is a mapping.

    Raises:
        ValueError: As `parse_json`, and if it is none.
    """
    value = parse_json(text, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise ValueError("is not a mapping")
    return cast("dict[str, Any]", value)
