"""What is wrong with a study file: where, what stands there, and what is allowed."""

# pyright: strict

import difflib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scaling.files.shown_url import without_credentials

NO_VALUE: Final = object()
"""The value of an issue about something that is not there."""
MAX_ISSUES: Final = 100
_MAX_SHOWN: Final = 100


@dataclass(frozen=True)
class Issue:
    """One thing wrong with a study file.

    Attributes:
        path: Dotted path of the field, as in `workload.data.num_train`; the file's name for
            what concerns the whole file, empty where there is no file.
        message: What is wrong with it.
        value: What stands there; `NO_VALUE` where nothing does, or the message says it.
        allowed: What may stand there; empty where the message says it.
        code: What kind of mistake it is, in one word that does not change with the message:
            pydantic's type of error (`missing`), or the check that found it (`warmup`); empty
            for what concerns the whole file or an override.
    """

    path: str
    message: str
    value: Any = NO_VALUE
    allowed: str = ""
    code: str = ""

    def __str__(self) -> str:
        """One line, `PATH: MESSAGE (got VALUE; allowed: …)`."""
        path = without_credentials(f"{self.path}: ") if self.path else ""
        return path + self.without_path

    @property
    def without_path(self) -> str:
        """The line without its path."""
        notes: list[str] = []
        if self.value is not NO_VALUE:
            notes.append(f"got {shown(self.value)}")
        if self.allowed:
            notes.append(f"allowed: {self.allowed}")
        note = f" ({'; '.join(notes)})" if notes else ""
        return without_credentials(f"{self.message}{note}")


class StudyFileError(ValueError):
    """A study file that cannot be run; its text is one line an issue.

    Attributes:
        issues: Everything that was found, in the order of the schema; of more than
            `MAX_ISSUES`, the first ones and one that says that there are more.
    """

    issues: tuple[Issue, ...]

    def __init__(self, issues: Iterable[Issue]) -> None:
        found = tuple(issues)
        if len(found) > MAX_ISSUES:
            found = (*found[:MAX_ISSUES], Issue("", "… and further errors"))
        self.issues = found
        super().__init__("\n".join(map(str, found)))


def dotted(parts: Sequence[str | int]) -> str:
    """A dotted path; a key that would make it ambiguous stands in quotes."""
    texts = map(str, parts)
    return ".".join(text if re.fullmatch(r"[\w-]{1,60}", text) else shown(text) for text in texts)


def shown(value: Any) -> str:
    """A value as a study file would write it, on one line, cut where it is long."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    text = json.dumps(value, ensure_ascii=False, default=str)
    # Lone surrogates are written out, so that every terminal can show it.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` with the nearest known words, empty where none is near."""
    near = nearest(word, known)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def nearest(word: str, known: Iterable[str], *, at_least: float = 0.6) -> list[str]:
    """The nearest known word, or two that are as near; empty where none is so similar."""
    near = difflib.get_close_matches(word[:_MAX_SHOWN], list(known), n=2, cutoff=at_least)
    ratios = [difflib.SequenceMatcher(None, other, word).ratio() for other in near]
    return [other for other, ratio in zip(near, ratios, strict=True) if ratio > ratios[0] - 0.1]


def last_line(text: str | None) -> str:
    """The last line of a traceback or message, at most 1,000 characters."""
    lines = (text or "").strip().splitlines()
    return lines[-1][:1000] if lines else "unknown error"
