"""Setting single fields of a study by dotted paths, as `--set` and the sizes of a ladder do."""

# pyright: strict

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from scaling.spec.issues import NO_VALUE, Issue, StudyFileError, dotted


def set_field(study: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set one field of a study in place; sections that are missing are made.

    Raises:
        StudyFileError: If the path leads through something that is not a section or a list.
    """
    holder: Any = study
    for depth, key in enumerate(keys[:-1]):
        place = _place(holder, keys[:depth], key)
        if isinstance(place, str):
            holder.setdefault(place, None)
        if holder[place] is None:
            holder[place] = dict[str, Any]()
        holder = holder[place]
    holder[_place(holder, keys[:-1], keys[-1])] = value


def leaves_of(patch: Mapping[str, Any], *, but_for: str) -> Iterator[tuple[str, Any]]:
    """The fields of a patch and their values, sections opened, but for those of one section."""
    for path, value in patch.items():
        if isinstance(value, dict) and value:
            inner = cast("dict[str, Any]", value)
            yield from leaves_of({f"{path}.{k}": v for k, v in inner.items()}, but_for=but_for)
        elif path.partition(".")[0] != but_for:
            yield path, value


def _place(holder: object, path: Sequence[str], key: str) -> str | int:
    """The key of a section, or the index in a list."""
    if isinstance(holder, dict):
        return key
    if not isinstance(holder, list):
        message = f"has no {key} to set, since it is neither a section nor a list"
        raise StudyFileError([Issue(dotted(path), message, holder)])
    count = len(cast("list[Any]", holder))
    if re.fullmatch(r"[0-9]{1,9}", key) and int(key) < count:
        return int(key)
    allowed = f"0 … {count - 1}" if count else "nothing, since the list is empty"
    raise StudyFileError([Issue(dotted([*path, key]), "is not in the list", NO_VALUE, allowed)])
