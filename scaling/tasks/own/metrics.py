"""Metrics of the user's own: their names, directions and ranges. Loads no torch."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from scaling.records.measurement import RESERVED
from scaling.records.metrics import Direction, Metric
from scaling.tasks.errors import DataError

_ROUNDING = 1e-6
"""What a number may be outside its range by, as a share of the larger end or of 1: a mean of
float32 numbers can."""


def own_metrics(
    directions: Mapping[str, Direction | None],
    ranges: Mapping[str, Any] | None,
    path: str,
    help: str = "A metric of the study's own, on the validation examples.",
) -> dict[str, Metric]:
    """What is said of metrics that the user measures.

    Args:
        directions: Of each metric; None where neither way is better.
        ranges: The least and the greatest value of some of them, None for an end that is not known.
        path: Dotted path of the section that has both, or of the field that names their code.
        help: What they are, for the report's terms.

    Raises:
        DataError: If one cannot be recorded under its name, or a range is none or of no metric.
    """
    require_names(directions, path)
    if not isinstance(ranges or {}, Mapping):
        raise DataError(path, f"ranges is {ranges!r}; allowed: a mapping of metrics")
    ends = {name: _ends(name, given, directions, path) for name, given in (ranges or {}).items()}
    described: dict[str, Metric] = {}
    for name, direction in directions.items():
        least, most = ends.get(name, (None, None))
        label = name.replace("_", " ")
        described[name] = Metric(label, help, direction=direction, least=least, most=most)
    return described


def _ends(
    name: str, given: Any, known: Iterable[str], path: str
) -> tuple[float | None, float | None]:
    """The ends of a range as it was given."""
    if name not in known:
        allowed = ", ".join(known) or "none"
        raise DataError(path, f"ranges.{name}: there is no such metric (allowed: {allowed})")
    message = (
        f"ranges.{name} is {given!r}; allowed: the least and greatest value, null for an open end"
    )
    if isinstance(given, str | Mapping):
        raise DataError(path, message)
    try:
        least, most = (None if end is None else float(end) for end in given)
    except (TypeError, ValueError):
        raise DataError(path, message) from None
    low, high = -math.inf if least is None else least, math.inf if most is None else most
    if not low < high:
        raise DataError(path, message)
    return None if low == -math.inf else least, None if high == math.inf else most


def require_names(names: Iterable[object], path: str) -> None:
    """Check that metrics of the user's own can be recorded under their names.

    Raises:
        DataError: If one is no name, or is that of another measurement.
    """
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
            raise DataError(path, f"directions: {name!r} is not a name of letters, digits and _")
        if name in RESERVED:
            raise DataError(path, f"directions: {name} is measured already; take another name")


def declared_numbers(found: Any, metrics: Mapping[str, Metric], what: str) -> dict[str, float]:
    """The metrics that are declared, of what a function of the user's own returned.

    Raises:
        ValueError: If it is no mapping, or lacks one of them, or has something else than a number,
            or one outside its range.
    """
    if not isinstance(found, Mapping):
        raise ValueError(f"{what} returned a {type(found).__name__}, not a mapping of names")
    numbers: dict[str, float] = {}
    for name, metric in metrics.items():
        if name not in found:
            given = ", ".join(map(str, found)) or "none"
            raise ValueError(f"{what} returned no {name}, which directions declares (got: {given})")
        try:
            number = float(found[name])
        except (TypeError, ValueError):
            raise ValueError(f"{what}: {name} is {found[name]!r}, not a number") from None
        numbers[name] = _within(number, name, metric, what)
    return numbers


def _within(number: float, name: str, metric: Metric, what: str) -> float:
    """The number, on its range's end where rounding put it beyond.

    One that is not finite has no range: a run that blew up says so by its loss.
    """
    if not math.isfinite(number):
        return number
    low = -math.inf if metric.least is None else metric.least
    high = math.inf if metric.most is None else metric.most
    slack = _ROUNDING * max([1.0, *(abs(end) for end in (low, high) if math.isfinite(end))])
    if number < low - slack or number > high + slack:
        ends = f"[{'null' if metric.least is None else f'{low:g}'}, "
        ends += f"{'null' if metric.most is None else f'{high:g}'}]"
        raise ValueError(f"{what}: {name} is {number:g}, outside its range {ends}")
    return min(max(number, low), high)
