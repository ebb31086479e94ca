"""What pydantic found wrong with a study file, in the words of a study file."""

# pyright: strict

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from pydantic_core import ErrorDetails

from scaling.spec.issues import NO_VALUE, Issue, did_you_mean, dotted, nearest
from scaling.spec.models import FromScratch, Pretrained
from scaling.spec.schema import Located, allowed, listed, locate, places_of_fields
from scaling.spec.synonyms import HYPERPARAMETER_SECTIONS, meaning_of, value_meant
from scaling.spec.workloads import FAMILIES

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
_OTHER_TYPE: Final = {
    "bool_type", "int_type", "int_from_float", "float_type", "string_type", "none_required",
    "tuple_type", "literal_error",
}  # fmt: skip
"""Errors of a type that was tried for a value and is not its own."""

_NEAR, _SURE = 0.6, 0.8
"""How similar a key is to one that is meant, from 0 to 1, and to one that surely is."""
_MAX_PLACES: Final = 4
"""A field that is in more sections is not said to be meant."""

_Path = tuple[str | int, ...]


def structural_issues(errors: Sequence[ErrorDetails]) -> Iterator[Issue]:
    """One issue a mistake.

    Of the types tried for one value it is one for all; a key that is misspelt is not also missing;
    and the sizes of a model beside trained weights are one mistake.
    """
    found = [(error, locate(error["loc"])) for error in errors if not _is_echo(error)]
    tried: dict[_Path, list[tuple[ErrorDetails, Located]]] = {}
    for error, place in found:
        if place.is_branch:
            tried.setdefault(place.path, []).append((error, place))
    misspelt = {
        path
        for error, place in found
        if error["type"] == "extra_forbidden"
        for path in paths_meant(place)
    }
    mixed = [place.path for error, place in found if _is_mixed_model(error, place)]
    for error, place in found:
        if place.is_branch:
            group = tried.pop(place.path, [])
            has_part = any(path[: len(place.path)] == place.path for path in tried)
            if group and not has_part:
                yield _branch_issue(group)
        elif _is_mixed_model(error, place):
            if place.path == mixed[0]:
                yield _mixed_model_issue(mixed)
        elif error["type"] != "missing" or dotted(place.path) not in misspelt:
            yield _structural_issue(error, place)


def _is_echo(error: ErrorDetails) -> bool:
    """True for a list that is too short only since pydantic left out its wrong entries."""
    least = error.get("ctx", {}).get("min_length")
    return error["type"] == "too_short" and least is not None and len(error["input"]) >= least


def _branch_issue(tried: Sequence[tuple[ErrorDetails, Located]]) -> Issue:
    """Of a value that may be of several types: what is wrong with it as its own type."""
    own = [(error, place) for error, place in tried if error["type"] not in _OTHER_TYPE]
    if own:
        return _structural_issue(*own[0])
    error, place = tried[0]
    if isinstance(error["input"], str):
        for other, _ in tried:
            if other["type"] == "literal_error":
                return _structural_issue(other, place)
    return replace(_issue(place, "is of the wrong type", error["input"]), code="wrong_type")


def _structural_issue(error: ErrorDetails, place: Located) -> Issue:
    return replace(_described(error, place), code=error["type"])


def _described(error: ErrorDetails, place: Located) -> Issue:
    kind, value = error["type"], error["input"]
    context = error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            if tasks := _other_tasks(error["loc"]):
                return _key_of_others(place, str(error["loc"][1]), tasks, value)
            return _unknown_key(place)
        case "union_tag_not_found" | "union_tag_invalid":
            return _tag_issue(place, value)
        case "missing":
            return _issue(place, _MESSAGES[kind], NO_VALUE)
        case "literal_error" if isinstance(value, str):
            return _issue(place, f"{_MESSAGES[kind]}{_word_meant(place, value)}", value)
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


def _issue(place: Located, message: str, value: Any) -> Issue:
    return Issue(dotted(place.path), message, value, allowed(place.node))


# --- keys ---------------------------------------------------------------------------------------


def _unknown_key(place: Located) -> Issue:
    """A key that a mapping has not: what was meant, else what it has."""
    path, key = dotted(place.path), str(place.path[-1])
    if key == "lora" and set(place.siblings) == set(FromScratch.model_fields):
        message = "unknown key: adapters need trained weights; give pretrained"
        return Issue(path, message, NO_VALUE, listed(place.siblings))
    meant = [_from(place.path, other) for other in paths_meant(place)]
    if not meant:
        return Issue(path, "unknown key", NO_VALUE, listed(place.siblings))
    synonym = meaning_of(key)
    note = f" ({synonym.note})" if synonym is not None and synonym.note else ""
    return Issue(path, f"unknown key; did you mean {' or '.join(meant)}{note}?")


def _other_tasks(loc: Sequence[str | int]) -> list[str]:
    """The tasks whose workload has a key at this place, which is not one of its own task's."""
    if loc[0] != "workload":
        return []
    return [task for task in FAMILIES if locate(("workload", task, *loc[2:])).node]


def _key_of_others(place: Located, task: str, tasks: Sequence[str], value: Any) -> Issue:
    """A key of other tasks; what is like it here has the same last word, as in `text_column`."""
    last = str(place.path[-1]).rpartition("_")[2]
    alike = [name for name in place.siblings if name.endswith(f"_{last}")]
    message = f"is for task {' or '.join(tasks)}, not {task}"
    return Issue(dotted(place.path), message, value, ", ".join(alike))


def paths_meant(place: Located) -> list[str]:
    """Dotted paths of what an unknown key seems to mean, the likeliest alone or first."""
    key = str(place.path[-1])
    outer = place.path[:-1]
    if (synonym := meaning_of(key)) is not None:
        holder = str(outer[-1]) if outer else ""
        last = synonym.path.rpartition(".")[2]
        if last in place.siblings:
            return [dotted((*outer, last))]
        return [synonym.within(holder) if holder in HYPERPARAMETER_SECTIONS else synonym.path]
    here = dotted(place.path)
    places = [other for other in places_of_fields().get(key, ()) if other != here]
    # A field of another section is meant by its own name, unless one here is nearly the same.
    at_least = _SURE if 0 < len(places) <= _MAX_PLACES else _NEAR
    if near := nearest(key, place.siblings, at_least=at_least):
        return [dotted((*outer, name)) for name in near]
    return places if len(places) <= _MAX_PLACES else []


def _from(path: _Path, other: str) -> str:
    """A dotted path as one writes it beside a key: its name alone in the same mapping."""
    holder = dotted(path[:-1])
    return other.removeprefix(f"{holder}.") if holder else other


def _is_mixed_model(error: ErrorDetails, place: Located) -> bool:
    """Whether an unknown key is a size of a model from scratch, beside trained weights."""
    if error["type"] != "extra_forbidden" or set(place.siblings) != set(Pretrained.model_fields):
        return False
    synonym = meaning_of(str(place.path[-1]))
    names = {place.path[-1], synonym.path.rpartition(".")[2] if synonym else ""}
    return not names.isdisjoint(FromScratch.model_fields)


def _mixed_model_issue(paths: Sequence[_Path]) -> Issue:
    names = ", ".join(str(path[-1]) for path in paths)
    return Issue(
        dotted(paths[0][:-1]),
        f"has {names} beside pretrained: give pretrained (and lora) for trained weights, which "
        "have their own sizes, or architecture and sizes for random ones",
        code="mixed_model",
    )


def _tag_issue(place: Located, value: Any) -> Issue:
    """The key that says which kind of mapping this is (workload.task) is missing or unknown."""
    key = str(place.node["discriminator"]["propertyName"])
    known = list(place.node["discriminator"]["mapping"])
    path = dotted((*place.path, key))
    tag: Any = cast("dict[str, Any]", value).get(key, NO_VALUE)
    if tag is NO_VALUE:
        return Issue(path, "is required", NO_VALUE, ", ".join(known))
    near = _near_word(key, tag, known) if isinstance(tag, str) else ""
    return Issue(path, f"is not a known value{near}", tag, ", ".join(known))


# --- values -------------------------------------------------------------------------------------


def _word_meant(place: Located, value: str) -> str:
    """`; did you mean X?` with the word that a text stands for, where one is near."""
    nodes = [place.node, *place.node.get("anyOf", ())]
    known = [str(word) for node in nodes for word in node.get("enum", [node.get("const")]) if word]
    return _near_word(next((str(p) for p in reversed(place.path) if isinstance(p, str)), ""),
                      value, known)  # fmt: skip


def _near_word(field: str, value: str, known: Sequence[str]) -> str:
    word = value_meant(field, value)
    return f"; did you mean {word}?" if word in known else did_you_mean(value, known)


def _elsewhere(path: _Path, value: Any) -> str:
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
