"""The JSON Schema of a study file, and where in it an error of pydantic's is."""

# pyright: strict

import ast
import inspect
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import ModelSchema

from scaling.spec.fields import MAX_BATCH_SIZE, MAX_COUNT, Section
from scaling.spec.models import MODEL_KINDS
from scaling.spec.study import StudySpec

SCHEMA_PATH: Final = Path(__file__).with_name("study.schema.json")
_MAX_KEYS: Final = 8
"""So many keys of a mapping are named where it is said what is allowed."""

Schema = dict[str, Any]


def spec_schema() -> Schema:
    """The JSON Schema of a study file, for editors.

    It says what each field may be; what fields must say together, only `read_study` checks.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "study.schema.json",
        **_renamed(StudySpec.model_json_schema(schema_generator=_WithDocstrings)),
    }


def schema_text() -> str:
    """What `scaling/spec/study.schema.json` holds: `spec_schema` as indented JSON."""
    return json.dumps(spec_schema(), indent=2, ensure_ascii=False) + "\n"


@cache
def _schema() -> Schema:
    return _renamed(StudySpec.model_json_schema())


class _WithDocstrings(GenerateJsonSchema):
    """Fields are described by the strings below them."""

    def model_schema(self, schema: ModelSchema) -> Schema:
        """The schema of a section, each field with its string where it has none of its own."""
        found = super().model_schema(schema)
        sections = [base for base in schema["cls"].__mro__ if issubclass(base, Section)]
        for name, node in found["properties"].items():
            texts = (
                _docstrings(base.__module__).get((base.__qualname__, name)) for base in sections
            )
            if text := next(filter(None, texts), None):
                node.setdefault("description", text)
        return found


@cache
def _docstrings(module: str) -> dict[tuple[str, str], str]:
    """The strings below the annotated attributes of a module's classes, by class and attribute."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    found: dict[tuple[str, str], str] = {}
    for kind in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, below in pairwise(kind.body):
            match field, below:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    found[kind.name, name] = inspect.cleandoc(text)
                case _:
                    pass
    return found


def _renamed(schema: Schema) -> Schema:
    """The schema with generic models named for what they hold, not for Python's types."""
    text = json.dumps(schema)
    for name, node in schema["$defs"].items():
        if "[" not in node["title"]:
            continue
        items = _without_null(node["properties"]["choice"])["items"]
        title = f"{node['title'].partition('[')[0]} of {items.get('title') or allowed(items)}"
        new_name = re.sub(r"\W+", "_", title)
        text = text.replace(f'"{name}"', f'"{new_name}"').replace(f'/{name}"', f'/{new_name}"')
        text = text.replace(json.dumps(node["title"]), json.dumps(title))
    return json.loads(text)


# --- places -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Located:
    """Where in the schema an error is.

    Attributes:
        path: Keys and indices as in the file, without the names of union members.
        node: What the schema allows there; empty for an unknown key.
        siblings: The keys that the mapping around it may have.
        is_branch: True where the error is about one of several types that were tried.
    """

    path: tuple[str | int, ...]
    node: Schema
    siblings: tuple[str, ...]
    is_branch: bool


def locate(loc: Sequence[str | int]) -> Located:
    """Walk the schema along the location that pydantic gives, which names union members too."""
    node, path, siblings = _schema(), list[str | int](), tuple[str, ...]()
    key_node: Schema = {}
    is_branch = False
    for part in loc:
        node = _without_null(node)
        if isinstance(part, int):  # of the list, where a value may be a list or something else
            members = map(_resolved, node.get("anyOf", ()))
            node = next((m for m in members if m.get("type") == "array"), node)
        if "oneOf" in node:
            node = _member(node, str(part))
        elif isinstance(part, int) and node.get("type") == "array":
            path.append(part)
            node = _item(node, part)
        elif node.get("type") == "object":
            path.append(part)
            key_node = node.get("propertyNames", {})
            properties: Schema = node.get("properties", {})
            siblings = tuple(properties)
            rest: Schema = node.get("additionalProperties") or {}
            node = properties.get(str(part), rest)
        elif part == "[key]":
            node = key_node
        else:
            is_branch = True
    return Located(tuple(path), _without_null(node), siblings, is_branch)


def _member(node: Schema, tag: str) -> Schema:
    """The member of a union that a tag stands for."""
    mapping: dict[str, str] = node.get("discriminator", {}).get("mapping", {})
    if tag in mapping:
        return _resolved({"$ref": mapping[tag]})
    name = MODEL_KINDS[tag].__name__
    return next(m for m in map(_resolved, node["oneOf"]) if m["title"] == name)


def _item(node: Schema, index: int) -> Schema:
    """What a list holds at an index."""
    if "prefixItems" not in node:
        return node["items"]
    return node["prefixItems"][min(index, len(node["prefixItems"]) - 1)]


@cache
def places_of_fields() -> dict[str, tuple[str, ...]]:
    """Every field's name, and the dotted paths at which a study file has it."""
    found: dict[str, list[str]] = {}

    def visit(node: Schema, path: tuple[str, ...]) -> None:
        node = _without_null(node)
        for member in (*node.get("oneOf", ()), *node.get("anyOf", ())):
            visit(member, path)
        for name, inner in node.get("properties", {}).items():
            place = ".".join((*path, name))
            if place not in found.setdefault(name, []):
                found[name].append(place)
            visit(inner, (*path, name))

    visit(_schema(), ())
    return {name: tuple(places) for name, places in found.items()}


def _resolved(node: Schema) -> Schema:
    """What a reference refers to."""
    if "$ref" not in node:
        return node
    return _schema()["$defs"][node["$ref"].rpartition("/")[2]]


def _without_null(node: Schema) -> Schema:
    """What a node allows besides null."""
    node = _resolved(node)
    members: list[Schema] = [m for m in node.get("anyOf", ()) if m.get("type") != "null"]
    return _without_null(members[0]) if len(members) == 1 else node


# --- words --------------------------------------------------------------------------------------


def listed(names: Sequence[str]) -> str:
    """Names in a line, those beyond the first few counted."""
    more = f", … ({len(names)} in all)" if len(names) > _MAX_KEYS + 2 else ""
    return ", ".join(names[:_MAX_KEYS] if more else names) + more


def allowed(node: Schema) -> str:
    """What a node of the schema allows, in words."""
    node = _resolved(node)
    match node:
        case {"discriminator": {"propertyName": name, "mapping": kinds}}:
            return f"a mapping whose {name} is one of {', '.join(kinds)}"
        case {"anyOf": members} | {"oneOf": members}:
            return " or ".join(dict.fromkeys(map(allowed, members)))
        case {"const": value}:
            return str(value)
        case {"enum": values}:
            return ", ".join(map(str, values))
        case {"type": "array"}:
            return _allowed_list(node)
        case {"type": "object", "properties": properties}:
            return f"a mapping with keys {listed(list(properties))}"
        case {"type": "object", "additionalProperties": True}:
            return "a mapping of dotted fields to values"
        case {"type": "object"}:
            return f"a mapping from {allowed(node.get('propertyNames', {}))} to " + allowed(
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


def _allowed_list(node: Schema) -> str:
    if "prefixItems" in node:
        return f"[{', '.join(map(allowed, node['prefixItems']))}]"
    least = f"at least {node['minItems']} of " if node.get("minItems", 1) > 1 else ""
    most = f"at most {node['maxItems']} of " if "maxItems" in node and not least else ""
    return f"a list of {least}{most}{allowed(node['items'])}"


def _bounds(node: Schema) -> str:
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
