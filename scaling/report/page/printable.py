"""Text from elsewhere, made fit for a page, a picture and a terminal."""

import re
from typing import Any

_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line break
    "\u2028\u2029"  # breaks that only some programs see
    "\u202a-\u202e\u2066-\u2069"  # turn the order of the text around them
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"  # no characters: XML has none of them
)


def printable(text: str) -> str:
    """The text with what cannot be shown written as its code: `a[U+0007]b`.

    A picture's text is XML, which has no way to hold most control characters; whatever draws it
    may end the process. Texts that differ still differ afterwards.
    """
    return _UNFIT.sub(lambda found: f"[U+{ord(found.group()):04X}]", text)


def all_printable(value: Any) -> Any:
    """A figure's plain data with every text in it made printable.

    Vega writes titles into expressions as they are, where a backslash would begin a code.
    """
    if isinstance(value, str):
        return printable(value).replace("\\", "\u29f5")
    if isinstance(value, dict):
        return {name: all_printable(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [all_printable(inner) for inner in value]
    return value
