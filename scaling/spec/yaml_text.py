"""The YAML that a study file is written in: mappings, lists and plain scalars, nothing else.

Read from the parser's events rather than by a loader, so that a hostile file costs no more than
its own size: anchors and aliases (which can multiply), tags (which can name types) and deep
nesting are refused where they stand, and a key that is given twice is an error. Scalars follow
YAML 1.2's core schema: `3e-4` is a number, `no` and `2024-01-01` are text. `1_000` is a number.
"""

# pyright: strict

import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import yaml
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)

from scaling.spec.issues import Issue, StudyFileError, dotted

MAX_DEPTH: Final = 32
_MAX_DIGITS: Final = 300

_NULL = re.compile(r"~|null|Null|NULL|")
_BOOL = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_INT = re.compile(r"[-+]?(0|[1-9](_?[0-9])*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9](_?[0-9])*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(?:(inf|Inf|INF)|nan|NaN|NAN)")

_Path = tuple[str | int, ...]


def parse_yaml(text: str, *, source: str) -> Any:
    """Read one YAML document.

    Args:
        text: The document.
        source: What to call it where an error has no dotted path.

    Returns:
        None, bool, int, float, str, and lists and dicts (by str) of them; None for no document.

    Raises:
        StudyFileError: With line and column, if the text is not YAML, uses a feature that study
            files do without, or gives a key twice.
    """
    module: Any = yaml
    loader: Any = getattr(module, "CSafeLoader", yaml.SafeLoader)
    try:
        reader = _Reader(module.parse(text, Loader=loader), source)
        value = reader.document()
    except yaml.MarkedYAMLError as error:
        raise StudyFileError([Issue(source, _syntax(error))]) from None
    except yaml.YAMLError as error:
        reason = str(error).strip().splitlines()[0]
        raise StudyFileError([Issue(source, f"is not readable YAML: {reason}")]) from None
    if reader.issues:
        raise StudyFileError(reader.issues)
    return value


def _syntax(error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    return f"{where}is not YAML: {error.problem or error.context}"


class _Reader:
    """Builds values from a stream of events, and collects the keys given twice."""

    def __init__(self, events: Iterator[Event], source: str) -> None:
        self._events = events
        self._source = source
        self.issues: list[Issue] = []

    def document(self) -> Any:
        """The only document of the stream; None for an empty one."""
        next(self._events)
        if isinstance(next(self._events), StreamEndEvent):
            return None
        value = self._value(next(self._events), ())
        next(self._events)
        further = next(self._events)
        if isinstance(further, DocumentStartEvent):
            self._refuse(further, (), "a study file holds one document, without a second ---")
        return value

    def _value(self, event: Event, path: _Path) -> Any:
        self._check(event, path)
        if isinstance(event, ScalarEvent):
            return _scalar(event)
        if isinstance(event, MappingStartEvent):
            return self._mapping(path)
        return self._list(path)

    def _list(self, path: _Path) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            values.append(self._value(event, (*path, len(values))))
        return values

    def _mapping(self, path: _Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, path)
            value = self._value(next(self._events), (*path, key))
            if key in values:
                issue = Issue(dotted((*path, key)), f"{_line(event)}is given twice")
                self.issues.append(issue)
            values[key] = value
        return values

    def _key(self, event: Event, path: _Path) -> str:
        self._check(event, path)
        key = _scalar(event) if isinstance(event, ScalarEvent) else None
        if not isinstance(key, str):
            self._refuse(event, path, "keys must be text; put a number or a keyword in quotes")
        return key

    def _check(self, event: Event, path: _Path) -> None:
        """Refuse what study files do without."""
        if isinstance(event, AliasEvent) or (isinstance(event, NodeEvent) and event.anchor):
            self._refuse(
                event, path, "anchors (&) and aliases (*) are not allowed; repeat the value"
            )
        if getattr(event, "tag", None):
            self._refuse(event, path, "tags (!) are not allowed")
        if len(path) > MAX_DEPTH:
            self._refuse(event, path[:3], f"is nested deeper than {MAX_DEPTH} levels")

    def _refuse(self, event: Event, path: _Path, message: str) -> NoReturn:
        raise StudyFileError([Issue(dotted(path) or self._source, _line(event) + message)])


def _line(event: Event) -> str:
    mark: Any = event.start_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: "


def _scalar(event: ScalarEvent) -> bool | int | float | str | None:
    text = event.value
    if not event.implicit[0]:
        return text
    if _NULL.fullmatch(text):
        return None
    if match := _BOOL.fullmatch(text):
        return match[1] is not None
    if _INT.fullmatch(text) and len(text) <= _MAX_DIGITS:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if match := _SPECIAL.fullmatch(text):
        return float(f"{match[1]}{'inf' if match[2] else 'nan'}")
    return text
