"""From a YAML file to a `StudySpec`, or to everything that is wrong with it at once.

Imports neither torch nor Ray, so that a bad file is refused in a second.
"""

# pyright: strict

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from scaling.spec.checks.study import check_study
from scaling.spec.issues import MAX_ISSUES, NO_VALUE, Issue, StudyFileError, dotted
from scaling.spec.own_training import with_study_folder
from scaling.spec.schema import SCHEMA_PATH, listed, locate, schema_text, spec_schema
from scaling.spec.structural_errors import paths_meant, structural_issues
from scaling.spec.study import StudySpec
from scaling.spec.yaml_text import MAX_DEPTH, parse_yaml

__all__ = [
    "SCHEMA_PATH",
    "Issue",
    "StudyFileError",
    "check_study",
    "read_study",
    "schema_text",
    "spec_schema",
    "study_from_mapping",
]

MAX_FILE_BYTES: Final = 256_000
"""A hundred times a usual study file, and what can still be refused in a second or two."""
_KEYS: Final = listed(list(StudySpec.model_fields))


def read_study(path: Path, overrides: Sequence[str] = ()) -> StudySpec:
    """Read a study file.

    Args:
        path: The YAML file.
        overrides: `dotted.key=value` each, applied in order before anything is checked: the
            value is YAML, sections that are missing are made, a list is indexed by number.

    Raises:
        StudyFileError: With every error that can be found at once: of the file, else of its
            fields and of what they must say together.
    """
    raw = parse_yaml(_read_text(path), source=str(path))
    if raw is None:
        raise StudyFileError([Issue(str(path), "is empty")])
    if not isinstance(raw, dict):
        raise StudyFileError([Issue(str(path), "must be a mapping of sections", raw, _KEYS)])
    study = cast("dict[str, Any]", raw)
    issues: list[Issue] = []
    for override in overrides:
        try:
            _override(study, override)
        except StudyFileError as error:
            issues.extend(error.issues)
    return _validated(with_study_folder(study, path.parent), issues)


def study_from_mapping(raw: Mapping[str, Any]) -> StudySpec:
    """The study that a mapping, as read from a file, describes.

    Raises:
        StudyFileError: As `read_study`.
    """
    return _validated(raw, [])


def _validated(raw: Mapping[str, Any], issues: list[Issue]) -> StudySpec:
    try:
        spec = StudySpec.model_validate(raw)
        broken = frozenset[str]()
    except ValidationError as error:
        errors = error.errors(include_url=False)
        issues = issues + list(islice(structural_issues(errors), MAX_ISSUES + 1))
        broken = _broken_sections(errors)
        spec = StudySpec.model_validate(_with_stand_ins(raw, broken))
    issues = issues + check_study(spec, broken=broken)
    if issues:
        raise StudyFileError(issues)
    return spec


# --- the file -----------------------------------------------------------------------------------


def _read_text(path: Path) -> str:
    try:
        if not path.exists():
            raise StudyFileError([Issue(str(path), "there is no such file")])
        if not path.is_file():
            raise StudyFileError([Issue(str(path), "is not a file")])
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise StudyFileError([Issue(str(path), f"cannot be read: {error.strerror}")]) from None
    if len(content) > MAX_FILE_BYTES:
        raise StudyFileError([Issue(str(path), f"is larger than {MAX_FILE_BYTES} bytes")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start} is 0x{content[error.start]:02x})"
        raise StudyFileError([Issue(str(path), message)]) from None
    if "\0" in text:
        message = f"is not text (byte {content.index(0)} is NUL)"
        raise StudyFileError([Issue(str(path), message)])
    return text


# --- overrides ----------------------------------------------------------------------------------


def _override(study: dict[str, Any], override: str) -> None:
    """Set one value of a study in place.

    Raises:
        StudyFileError: If it is not `dotted.key=value`, the value is not YAML, or the path
            leads through something that is not a section or a list.
    """
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys) or len(keys) > MAX_DEPTH:
        raise StudyFileError([Issue(dotted([override]), "must be dotted.key=value, as in seed=1")])
    value = parse_yaml(text, source=f"{path.strip()}={text}")
    holder: Any = study
    for depth, key in enumerate(keys[:-1]):
        child = _child(holder, keys[:depth], key)
        if child is None:
            child = dict[str, Any]()
            _set(holder, keys[:depth], key, child)
        holder = child
    _set(holder, keys[:-1], keys[-1], value)


def _child(holder: object, path: Sequence[str], key: str) -> Any:
    if isinstance(holder, dict):
        return cast("dict[str, Any]", holder).get(key)
    entries = _entries(holder, path, key)
    return entries[_index(entries, path, key)]


def _set(holder: object, path: Sequence[str], key: str, value: Any) -> None:
    if isinstance(holder, dict):
        cast("dict[str, Any]", holder)[key] = value
    else:
        entries = _entries(holder, path, key)
        entries[_index(entries, path, key)] = value


def _entries(holder: object, path: Sequence[str], key: str) -> list[Any]:
    """The list that a key of an override indexes."""
    if isinstance(holder, list):
        return cast("list[Any]", holder)
    message = f"has no {key} to set, since it is neither a section nor a list"
    raise StudyFileError([Issue(dotted(path), message, holder)])


def _index(entries: list[Any], path: Sequence[str], key: str) -> int:
    if re.fullmatch(r"[0-9]{1,9}", key) and int(key) < len(entries):
        return int(key)
    allowed = f"0 … {len(entries) - 1}" if entries else "nothing, since the list is empty"
    raise StudyFileError([Issue(dotted([*path, key]), "is not in the list", NO_VALUE, allowed)])


# --- broken sections ----------------------------------------------------------------------------

_STAND_INS: Final[Mapping[str, Any]] = {
    "name": "stand-in",
    "question": "stand-in",
    "workload": {"task": "noisy_quadratic"},
    "budget": {"steps": 1},
    "evaluation": {"every_steps": 1},
    "search": {"trials_per_cell": 1},
}
"""Values of the required sections where they are broken; no check looks at them."""


def _broken_sections(errors: Sequence[ErrorDetails]) -> frozenset[str]:
    """Sections with errors, and those that an unknown key seems to mean."""
    places = [str(error["loc"][0]) for error in errors if error["loc"]]
    unknown = [error["loc"] for error in errors if error["type"] == "extra_forbidden"][:MAX_ISSUES]
    meant = [path.partition(".")[0] for loc in unknown for path in paths_meant(locate(loc))]
    return frozenset(places + meant)


def _with_stand_ins(raw: Mapping[str, Any], broken: frozenset[str]) -> dict[str, Any]:
    """A valid study that has the sections of this one that are not broken."""
    known = StudySpec.model_fields.keys() - broken
    sound = {name: value for name, value in raw.items() if name in known}
    missing = {name: value for name, value in _STAND_INS.items() if name not in sound}
    return sound | missing
