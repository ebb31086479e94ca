"""Numbers and intervals as JSON takes them: NaN and infinity never appear."""

from scaling.analysis.statistics.uncertainty import Interval
from scaling.spec.fields import is_finite


def finite(value: float | None) -> float | None:
    """The number, or None for one that is not finite."""
    return float(value) if value is not None and is_finite(value) else None


def pair(interval: Interval | None) -> list[float] | None:
    """[low, high], or None where an end is missing or not finite."""
    if interval is None or not all(is_finite(end) for end in interval):
        return None
    return [float(end) for end in interval]
