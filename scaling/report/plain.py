"""Numbers, estimates and intervals as JSON has them: null for what is missing, never NaN."""

import math
from collections.abc import Mapping
from typing import Any, cast

from scaling.analysis.statistics.uncertainty import Estimate, Interval
from scaling.spec.fields import is_finite


def finite(value: float | None) -> float | None:
    """The number, or None for one that is not finite."""
    return float(value) if value is not None and is_finite(value) else None


def pair(interval: Interval | None) -> list[float | None] | None:
    """[low, high], an end that is infinite as None; None where both are, or one is no number."""
    if interval is None or any(math.isnan(end) for end in interval):
        return None
    ends = [finite(end) for end in interval]
    return None if ends == [None, None] else ends


def attributes(found: object, *names: str) -> dict[str, Any]:
    """Some attributes by their names, as JSON has them; None of what is None itself.

    An interval is a pair and a number that is not finite None; an estimate has its value under its
    name and its interval under that with a suffix.
    """
    entry: dict[str, Any] = {}
    for name in names:
        match value := getattr(found, name) if found is not None else None:
            case Estimate():
                entry |= named(name, value)
            case tuple():
                entry[name] = pair(cast("Interval", value))
            case float():
                entry[name] = finite(value)
            case _:
                entry[name] = value
    return entry


def named(name: str, estimate: Estimate, *, interval: str | None = None) -> dict[str, Any]:
    """An estimate under a name, and its interval under that with a suffix."""
    key = interval or f"{name}_interval"
    return {name: finite(estimate.value), key: pair(estimate.interval)}


def estimated(estimate: Estimate) -> dict[str, Any]:
    """An estimate as an object of `value` and `interval`."""
    return named("value", estimate, interval="interval")


def with_why(entry: dict[str, Any], reasons: Mapping[str, str] | str) -> dict[str, Any]:
    """An object with the reason of each of its nulls, where it has one, under `why`.

    Args:
        entry: As JSON has it.
        reasons: By field, or one for every field.
    """
    missing = [name for name, value in entry.items() if value is None]
    why = {
        name: reason
        for name in missing
        if (reason := reasons if isinstance(reasons, str) else reasons.get(name))
    }
    return entry | {"why": why} if why else entry
