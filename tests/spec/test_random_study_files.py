"""Study files with errors at random: each is refused with lines that name a field, or is read."""

import contextlib
import copy
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaling.spec.issues import StudyFileError, dotted
from scaling.spec.patches import set_field
from scaling.spec.read import read_study, study_from_mapping
from scaling.spec.schema import spec_schema
from scaling.spec.study import StudySpec
from scaling.spec.synonyms import SYNONYMS
from scaling.spec.workloads import BUILTIN_SOURCES

SCHEMA = spec_schema()
TASKS = list(SCHEMA["properties"]["workload"]["discriminator"]["mapping"])

# --- files that the schema accepts ----------------------------------------------------------------


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    return SCHEMA["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def without_null(node: dict[str, Any]) -> dict[str, Any]:
    members = [m for m in node.get("anyOf", ()) if m.get("type") != "null"]
    return {"anyOf": members} if members else node


ONE_OF = [
    {"log_uniform", "uniform", "choice"}, {"every_examples", "every_steps", "growth_ratio"},
    {"source", "files"}, {"first_rung_examples", "first_rung_tokens"},
]  # fmt: skip
"""Keys of which a section has exactly one."""

WORDS: dict[str, Callable[[random.Random], str]] = {
    "name": lambda rng: f"study-{rng.randrange(10**6)}",
    "source": lambda rng: rng.choice([*(f"builtin:{name}" for name in BUILTIN_SOURCES), "hub:a/b"]),
    "architecture": lambda rng: rng.choice(architectures()),
    "pretrained": lambda rng: rng.choice(["bert-base-uncased", "builtin:minilm", "~/no", "./no"]),
    "train": lambda rng: rng.choice(["no.csv", "~/no.jsonl", "/dev/null", "x" * 300, "a\0b.csv"]),
    "storage": lambda rng: rng.choice(["runs/x", "~/runs", "s3://x", "nothing://x", "/dev/null/x"]),
    "tokenizer": lambda rng: rng.choice(["characters", "subwords", "./no", "hub/name"]),
}


def architectures() -> list[str]:
    from transformers import CONFIG_MAPPING

    return list(CONFIG_MAPPING.keys())


def drawn(node: dict[str, Any], rng: random.Random, name: str = "") -> Any:
    """A value that a node of the schema accepts."""
    node = resolved(node)
    match node:
        case {"anyOf": members} | {"oneOf": members}:
            return drawn(rng.choice(members), rng, name)
        case {"const": value}:
            return value
        case {"enum": values}:
            return rng.choice(values)
        case {"type": "array"}:
            return drawn_list(node, rng, name)
        case {"type": "object", "properties": properties}:
            required = node.get("required", ())
            share = rng.choice([0.1, 0.3, 0.6])
            keys = [key for key in properties if key in required or rng.random() < share]
            for group in ONE_OF:
                if properties.keys() >= group:
                    keys = [*(key for key in keys if key not in group), rng.choice(sorted(group))]
            return {key: drawn(without_null(properties[key]), rng, key) for key in keys}
        case {"type": "object", "additionalProperties": True}:
            paths = ["budget.examples", "workload.task", "seed", "fixed.optimizer.x", "ladder", ""]
            return {rng.choice(paths): rng.choice([1, 0, -3, "x", None, [], {}]) for _ in range(2)}
        case {"type": "object"}:
            keys = node.get("propertyNames", {}).get("enum", ["global_batch_size", "x"])
            return {key: drawn(node["additionalProperties"], rng) for key in keys[:2]}
        case {"type": "integer"}:
            low = node.get("minimum", node.get("exclusiveMinimum", -1) + 1)
            high = min(node.get("maximum", node.get("exclusiveMaximum", 2**53) - 1), 2**53)
            return rng.choice([low, high, rng.randint(low, min(high, low + 100))])
        case {"type": "number"}:
            low = node.get("minimum", node.get("exclusiveMinimum", 0.0))
            return low + rng.random() * (node.get("exclusiveMaximum", low + 10) - low)
        case {"type": "boolean"}:
            return rng.random() < 0.5
        case {"type": "null"}:
            return None
        case {"pattern": pattern} if pattern.startswith(("^power", "^surge")):
            return f"{pattern[1:6]}({rng.randint(1, 99)})"
        case _:
            return WORDS.get(name, lambda _: "text")(rng)


def drawn_list(node: dict[str, Any], rng: random.Random, name: str) -> list[Any]:
    if "prefixItems" in node:
        return sorted((drawn(item, rng, name) for item in node["prefixItems"]), key=str)
    least = node.get("minItems", 0)
    values = [drawn(node["items"], rng, name) for _ in range(rng.randint(least, least + 4))]
    if name == "multiples":
        return [1, 2, 4]
    distinct = list({str(value): value for value in values}.values())
    return sorted(distinct, key=lambda v: v if isinstance(v, int | float) else math.inf)


def study(rng: random.Random) -> dict[str, Any]:
    """A file whose fields are each what the schema accepts; whether they go together is open."""
    raw = drawn(SCHEMA, rng)
    task = rng.choice(TASKS)
    mapping = SCHEMA["properties"]["workload"]["discriminator"]["mapping"]
    raw["workload"] = drawn({"$ref": mapping[task]}, rng)
    raw["budget"] = {rng.choice(["steps", "examples", "tokens"]): rng.randint(1, 10**6)}
    if rng.random() < 0.5:  # what most files have, so that their sections go together
        for section in ("scientific", "nuisance", "branch", "transfer", "cell_recipes"):
            raw.pop(section, None)
        raw["fixed"] = {"global_batch_size": 16, "peak_lr": 0.1}
    return raw


# --- errors -------------------------------------------------------------------------------------

WRONG: list[Any] = [
    None, True, 0, -1, 1.5, 1e3, 1e-3, 10**15, 10**400, -(10**30), 1e308, float("nan"),
    float("inf"), "", "text", "auto", "~", "x" * 500, "a\nb", "é", "\ud800", [], [[]], [None],
    [1, 1], [[1, [2, [3]]]], ["x"] * 200, {}, {"x": {"y": {}}}, {"choice": []},
    {"choice": [1, "x"]},
    {"log_uniform": [1, 0]}, {"task": "seq2seq"}, {"rule": "asha"}, {"pretrained": None},
    "2024-01-01",
]  # fmt: skip
KEYS = [
    "x", "nonsense", "[key]", "0", "a.b", 'a"b', "é", "x" * 200, "function-before", "auto",
    "choice", "pretrained", "architecture", "lora", "task", *SYNONYMS,
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a file, from the outermost on."""
    if not isinstance(value, dict | list):
        return [path]
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def break_somewhere(raw: dict[str, Any], rng: random.Random) -> None:
    """Put one error into a file: at a depth first, so that long lists are not hit alone."""
    found = [place for place in places(raw) if place]
    depth = rng.randint(1, max(map(len, found)))
    *outer, last = rng.choice([place for place in found if len(place) == depth])
    holder: Any = raw
    for key in outer:
        holder = holder[key]
    match rng.randrange(5):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(KEYS)] = copy.deepcopy(rng.choice(WRONG))
        case 2 if isinstance(holder, dict):
            holder[str(last)[:-1] + rng.choice("xyz")] = holder.pop(last)
        case _:
            holder[last] = copy.deepcopy(rng.choice(WRONG))


# --- what is said -------------------------------------------------------------------------------


def is_known(path: str, raw: Any) -> bool:
    """Whether a dotted path is in the schema, or is a key of the file that the schema has not."""
    if of_size := re.match(r"ladder\.(sizes|predict)\.(\d+)\.(.+)", path):
        kind, number, rest = of_size.groups()
        sized = copy.deepcopy({name: value for name, value in raw.items() if name != "ladder"})
        for keys, value in raw["ladder"][kind][int(number)].items():
            with contextlib.suppress(StudyFileError):
                set_field(sized, keys.split("."), value)
        return is_known(rest, sized)
    parts = re.findall(r'"(?:[^"\\]|\\.)*(?:"|…$)|[^.]+', path)
    nodes, values = [SCHEMA], [raw]
    for number, part in enumerate(parts):
        values = [inner for value in values for inner in value_at(value, part)]
        nodes = [inner for node in nodes for inner in nodes_at(node, part)]
        if not nodes:
            return number == len(parts) - 1 and bool(values)
    return True


def value_at(value: Any, part: str) -> list[Any]:
    if isinstance(value, dict):
        return [item for key, item in value.items() if dotted([key]) == part]
    is_index = isinstance(value, list) and part.isdigit() and int(part) < len(value)
    return [value[int(part)]] if is_index else []


def nodes_at(node: dict[str, Any], part: str) -> list[dict[str, Any]]:
    node = resolved(node)
    if members := [*node.get("anyOf", ()), *node.get("oneOf", ())]:
        return [inner for member in members for inner in nodes_at(member, part)]
    if node.get("type") == "array" and part.isdigit():
        return node.get("prefixItems") or [node["items"]]
    properties = node.get("properties", {})
    if part in properties:
        return [properties[part]]
    extra = node.get("additionalProperties")
    return [extra] if isinstance(extra, dict) else []


def refusals(numbers: range, file: Path) -> int:
    """Write, read and judge the files of these numbers; how many were refused."""
    count = 0
    dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    for number in numbers:
        rng = random.Random(number)
        raw = study(rng)
        for _ in range(rng.randint(0, 4)):
            break_somewhere(raw, rng)
        try:
            text = yaml.dump(raw, Dumper=dumper, allow_unicode=True)
            file.write_text(text, encoding="utf-8")
            read: Any = lambda: read_study(file)  # noqa: E731
        except UnicodeEncodeError:  # a lone surrogate, which no file can hold
            read = lambda raw=raw: study_from_mapping(raw)  # noqa: E731
        try:
            assert isinstance(read(), StudySpec)
        except StudyFileError as error:
            count += 1
            lines = [str(issue) for issue in error.issues]
            assert lines, number
            assert len(set(lines)) == len(lines), (number, lines)
            for issue in error.issues:
                said = str(issue)
                assert "\n" not in said, (number, said)
                assert len(said) < 1000, (number, said)
                if issue.message != "… and further errors":
                    is_file = issue.path == str(file)
                    assert is_file or is_known(issue.path, raw), (number, said)
    return count


@pytest.mark.parametrize("part", range(5))
def test_no_file_is_a_traceback(tmp_path: Path, part: int) -> None:
    assert refusals(range(part * 100, part * 100 + 100), tmp_path / "study.yaml") > 80


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_none_of_many_files_is_a_traceback(tmp_path: Path, part: int) -> None:
    first = 1000 + part * 1000
    assert refusals(range(first, first + 1000), tmp_path / "study.yaml") > 800
