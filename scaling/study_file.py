"""From a YAML file to a `StudySpec`, or to everything that is wrong with it at once.

Imports neither torch nor Ray, so that a bad file is refused in a second.
"""

# pyright: strict

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from scaling.issues import MAX_ISSUES, NO_VALUE, Issue, StudyFileError, did_you_mean, dotted
from scaling.spec import MAX_BATCH_SIZE, MAX_COUNT, StudySpec
from scaling.study_checks import check_study
from scaling.yaml_text import MAX_DEPTH, parse_yaml

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
SCHEMA_PATH: Final = Path(__file__).with_name("spec.schema.json")

_Schema = dict[str, Any]


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
        raise StudyFileError([Issue(str(path), "must be a mapping of sections", raw, _keys())])
    study = cast("dict[str, Any]", raw)
    issues: list[Issue] = []
    for override in overrides:
        try:
            _override(study, override)
        except StudyFileError as error:
            issues.extend(error.issues)
    return _validated(study, issues)


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
        issues = issues + list(_structural_issues(errors[: MAX_ISSUES + 1]))
        broken = _broken_sections(raw, errors)
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


def _broken_sections(raw: Mapping[str, Any], errors: Sequence[ErrorDetails]) -> frozenset[str]:
    """Sections with errors, and those that a misspelt name seems to mean."""
    places = [str(error["loc"][0]) for error in errors if error["loc"]]
    unknown = [name for name in map(str, raw) if name not in StudySpec.model_fields][:MAX_ISSUES]
    meant = [
        name
        for name in StudySpec.model_fields
        if name not in raw and any(name in did_you_mean(other, [name]) for other in unknown)
    ]
    return frozenset(places + meant)


def _with_stand_ins(raw: Mapping[str, Any], broken: frozenset[str]) -> dict[str, Any]:
    """A valid study that has the sections of this one that are not broken."""
    known = StudySpec.model_fields.keys() - broken
    sound = {name: value for name, value in raw.items() if name in known}
    missing = {name: value for name, value in _STAND_INS.items() if name not in sound}
    return sound | missing


# --- what pydantic found ------------------------------------------------------------------------

_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "is not Unicode text",
    "string_pattern_mismatch": "has the wrong form",
    "string_too_short": "must not be empty",
    "too_short": "has too few entries",
    "too_long": "has too many entries",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "literal_error": "is not a known value",
    "none_required": "must be null",
}
_BOUND_WORDS: Final[Mapping[str, str]] = {
    "greater_than": "above",
    "greater_than_equal": "at least",
    "less_than": "below",
    "less_than_equal": "at most",
}
_BRANCH_ERRORS: Final = {"bool_type", "int_type", "float_type", "string_type", "none_required"}


@dataclass(frozen=True)
class _Located:
    """Where in the schema an error is.

    Attributes:
        path: Keys and indices as in the file, without the names of union members.
        node: What the schema allows there; empty for an unknown key.
        siblings: The keys that the mapping around it may have.
        is_branch: True where the error is about one of several types that were tried.
    """

    path: tuple[str | int, ...]
    node: _Schema
    siblings: tuple[str, ...]
    is_branch: bool


def _structural_issues(errors: Sequence[ErrorDetails]) -> Iterator[Issue]:
    """One issue an error; of the types tried for one value, one issue for all."""
    tried: set[tuple[str | int, ...]] = set()
    for error in errors:
        if _is_echo(error):
            continue
        place = _locate(error["loc"])
        if place.is_branch and error["type"] in _BRANCH_ERRORS:
            if place.path not in tried:
                yield _issue(place, "is of the wrong type", error["input"])
            tried.add(place.path)
        else:
            yield _structural_issue(error, place)


def _is_echo(error: ErrorDetails) -> bool:
    """True for a list that is too short only since pydantic left out its wrong entries."""
    least = error.get("ctx", {}).get("min_length")
    return error["type"] == "too_short" and least is not None and len(error["input"]) >= least


def _structural_issue(error: ErrorDetails, place: _Located) -> Issue:
    kind, value = error["type"], error["input"]
    context = error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            near = did_you_mean(str(place.path[-1]), place.siblings)
            known = "" if near else ", ".join(place.siblings)
            return Issue(dotted(place.path), f"unknown key{near}", NO_VALUE, known)
        case "union_tag_not_found" | "union_tag_invalid":
            return _tag_issue(place, value)
        case "missing":
            return _issue(place, _MESSAGES[kind], NO_VALUE)
        case "literal_error" if isinstance(value, str) and "enum" in place.node:
            near = did_you_mean(value, map(str, place.node["enum"]))
            return _issue(place, f"{_MESSAGES[kind]}{near}", value)
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal":
            [bound] = context.values()
            number = bound if isinstance(bound, int) else f"{bound:g}"
            return _issue(place, f"must be {_BOUND_WORDS[kind]} {number}", value)
        case "string_too_long":
            message = f"must not be longer than {context['max_length']} characters"
            return Issue(dotted(place.path), message, value)
        case _ if kind in _MESSAGES:
            return _issue(place, f"{_MESSAGES[kind]}{_elsewhere(place.path, value)}", value)
        case _:
            return Issue(dotted(place.path), error["msg"], value)


def _issue(place: _Located, message: str, value: Any) -> Issue:
    return Issue(dotted(place.path), message, value, _allowed(place.node))


def _tag_issue(place: _Located, value: Any) -> Issue:
    """The key that says which kind of mapping this is (workload.task) is missing or unknown."""
    key = str(place.node["discriminator"]["propertyName"])
    known = list(place.node["discriminator"]["mapping"])
    path = dotted((*place.path, key))
    tag: Any = cast("dict[str, Any]", value).get(key, NO_VALUE)
    if tag is NO_VALUE:
        return Issue(path, "is required", NO_VALUE, ", ".join(known))
    near = did_you_mean(tag, known) if isinstance(tag, str) else ""
    return Issue(path, f"is not a known value{near}", tag, ", ".join(known))


def _elsewhere(path: tuple[str | int, ...], value: Any) -> str:
    """Where a value of this form would belong, if it stands in the wrong section."""
    if len(path) != 2:
        return ""
    if path[0] == "fixed" and isinstance(value, (dict, list)):
        return "; search over values under nuisance, compare them under scientific"
    if path[0] in ("nuisance", "scientific") and isinstance(value, (bool, int, float, str)):
        return "; a single value belongs under fixed"
    if path[0] == "nuisance" and isinstance(value, list):
        return "; write {choice: […]}"
    return ""


# --- the schema ---------------------------------------------------------------------------------


def spec_schema() -> _Schema:
    """The JSON Schema of a study file, for editors.

    It says what each field may be; what fields must say together, only `read_study` checks.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "spec.schema.json",
        **_renamed(StudySpec.model_json_schema()),
    }


def schema_text() -> str:
    """What `scaling/spec.schema.json` holds: `spec_schema` as indented JSON."""
    return json.dumps(spec_schema(), indent=2, ensure_ascii=False) + "\n"


@cache
def _schema() -> _Schema:
    return spec_schema()


def _renamed(schema: _Schema) -> _Schema:
    """The schema with generic models named for what they hold, not for Python's types."""
    text = json.dumps(schema)
    for name, node in schema["$defs"].items():
        if "[" not in node["title"]:
            continue
        items = _without_null(node["properties"]["choice"])["items"]
        title = f"{node['title'].partition('[')[0]} of {items.get('title') or _allowed(items)}"
        new_name = re.sub(r"\W+", "_", title)
        text = text.replace(f'"{name}"', f'"{new_name}"').replace(f'/{name}"', f'/{new_name}"')
        text = text.replace(json.dumps(node["title"]), json.dumps(title))
    return json.loads(text)


def _locate(loc: Sequence[str | int]) -> _Located:
    """Walk the schema along the location that pydantic gives, which names union members too."""
    node, path, siblings = _schema(), list[str | int](), tuple[str, ...]()
    key_node: _Schema = {}
    is_branch = False
    for part in loc:
        node = _without_null(node)
        if "oneOf" in node:
            members = map(_resolved, node["oneOf"])
            node = next(member for member in members if _snake(member["title"]) == part)
        elif isinstance(part, int) and node.get("type") == "array":
            path.append(part)
            node = node["prefixItems"][part] if "prefixItems" in node else node["items"]
        elif part == "[key]":
            node = key_node
        elif node.get("type") == "object":
            path.append(part)
            key_node = node.get("propertyNames", {})
            properties: _Schema = node.get("properties", {})
            siblings = tuple(properties)
            rest: _Schema = node.get("additionalProperties") or {}
            node = properties.get(str(part), rest)
        else:
            is_branch = True
    return _Located(tuple(path), _without_null(node), siblings, is_branch)


def _snake(title: str) -> str:
    return re.sub(r"(?<=.)(?=[A-Z])", "_", title).lower()


def _resolved(node: _Schema) -> _Schema:
    """What a reference refers to."""
    if "$ref" not in node:
        return node
    return _schema()["$defs"][node["$ref"].rpartition("/")[2]]


def _without_null(node: _Schema) -> _Schema:
    """What a node allows besides null."""
    node = _resolved(node) if "$ref" in node else node
    members: list[_Schema] = [m for m in node.get("anyOf", ()) if m.get("type") != "null"]
    return _without_null(members[0]) if len(members) == 1 else node


def _keys() -> str:
    return ", ".join(StudySpec.model_fields)


def _allowed(node: _Schema) -> str:
    """What a node of the schema allows, in words."""
    node = _resolved(node)
    match node:
        case {"anyOf": members} | {"oneOf": members}:
            return " or ".join(dict.fromkeys(map(_allowed, members)))
        case {"const": value}:
            return str(value)
        case {"enum": values}:
            return ", ".join(map(str, values))
        case {"type": "array"}:
            return _allowed_list(node)
        case {"type": "object", "properties": properties}:
            return f"a mapping with keys {', '.join(properties)}"
        case {"type": "object"}:
            return f"a mapping from {_allowed(node.get('propertyNames', {}))} to " + _allowed(
                node["additionalProperties"]
            )
        case {"type": "integer"}:
            return f"a whole number{_bounds(node)}"
        case {"type": "number"}:
            return f"a number{_bounds(node)}"
        case {"type": "boolean"}:
            return "true or false"
        case {"type": "null"}:
            return "null"
        case {"pattern": pattern}:
            return f"text of the form {pattern}"
        case _:
            return "text"


def _allowed_list(node: _Schema) -> str:
    if "prefixItems" in node:
        return f"[{', '.join(map(_allowed, node['prefixItems']))}]"
    return f"a list of {_allowed(node['items'])}"


def _bounds(node: _Schema) -> str:
    words = {
        "exclusiveMinimum": "above",
        "minimum": "at least",
        "exclusiveMaximum": "below",
        "maximum": "at most",
    }
    bounds = [
        f"{word} {node[name]}"
        for name, word in words.items()
        if name in node and node[name] not in (MAX_COUNT, MAX_BATCH_SIZE)
    ]
    return f" {' and '.join(bounds)}" if bounds else ""
