"""Numbers, counts and cells as people read them; shared by sentences, tables and figures."""

import math
import re
from collections.abc import Sequence

from scaling.analysis.cell_results import CellResult
from scaling.analysis.statistics.uncertainty import Estimate, Interval
from scaling.records.objective import Objective

DASH = "–"
"""Stands for what was not measured."""
_MOST_NAMED = 5
_MOST_DIGITS = 7
_SPELLED = re.compile(r"(F\d|[FHLMNRSX](?![AEIOU])[A-Z]*|MAE|FID)$", re.IGNORECASE)
"""Abbreviations read letter by letter, whose first letter is spoken with a vowel first."""
_ABBREVIATIONS = frozenset({"mse", "rmse", "mae", "nll", "lm", "mrr", "mcc", "ndcg", "ssim"})


def number(value: float | None, digits: int = 3) -> str:
    """A number to some significant digits, whole ones in full: 0.0123, 1.24, 12,800, 3.2e-05."""
    if value is None:
        return DASH
    if 10 <= abs(value) < 1e7 and float(value).is_integer():
        return f"{value:,.0f}"
    if value != 0 and (abs(value) < 1e-3 or abs(value) >= 1e7):
        return f"{value:.{max(digits - 2, 1)}e}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    magnitude = math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{max(digits - 1 - magnitude, 0)}f}"


def telling_digits(*values: float | None) -> int:
    """Significant digits, three or more, at which different values are printed differently."""
    different = {value for value in values if value is not None}
    enough = (
        d
        for d in range(3, _MOST_DIGITS)
        if len({number(v, d) for v in different}) == len(different)
    )
    return next(enough, _MOST_DIGITS)


def chance(probability: float, form: str = ".2f") -> str:
    """A probability, which is not rounded to certainty: 0.93, over 0.99; with .0%, over 99%."""
    for bound, word in ((0.99, "over"), (0.01, "under")):
        if f"{probability:{form}}" == f"{round(bound):{form}}":
            return f"{word} {bound:{form}}"
    return f"{probability:{form}}"


def extreme(objective: Objective) -> str:
    """What recipes are compared by at its best: lowest validation loss, highest accuracy."""
    return f"{'lowest' if objective.direction == 'minimize' else 'highest'} {objective.label}"


def target_words(objective: Objective, target: float) -> str:
    """What there is to reach: a validation loss of 0.7 nats, an accuracy of 0.9."""
    return f"{with_article(objective.label)} of {with_unit(number(target), objective.unit_shown)}"


def with_article(noun: str) -> str:
    """A noun with a or an, by its sound: an accuracy, a chrF, an F1, an RMSE."""
    first = re.split(r"[^A-Za-z0-9]", noun, maxsplit=1)[0]
    is_vowel = noun[:1].lower() in "aeio" and first.lower() != "one"
    if first.isupper() or first in _ABBREVIATIONS:
        is_vowel |= _SPELLED.match(first) is not None
    return f"{'an' if is_vowel else 'a'} {noun}"


def rate(value: float | None) -> str:
    """A learning rate: 0.0012, 3.2e-05."""
    return DASH if value is None else f"{value:.2g}"


def rate_with_bounds(value: float | None, interval: Interval | None, apart: str = " ") -> str:
    """A rate and, where it has one, its interval, one-sided where an end is infinite."""
    if interval is None:
        return rate(value)
    low, high = interval
    if math.isfinite(low) and math.isfinite(high):
        return f"{rate(value)}{apart}[{rate(low)}, {rate(high)}]"
    bound = f"at least {rate(low)}" if math.isfinite(low) else f"at most {rate(high)}"
    return f"{rate(value)}{apart}{bound}"


def between(interval: Interval | None, digits: int = 3) -> str:
    """An interval in brackets; says so where there is none."""
    if interval is None:
        return "no interval"
    # An end of 0 is where the quantity ends (`bounded`), and not rounded to it.
    low, high = ("0" if end == 0 else number(end, digits) for end in interval)
    return f"[{low}, ∞)" if math.isinf(interval[1]) else f"[{low}, {high}]"


def with_interval(estimate: Estimate, digits: int = 3, *, apart: str = "\n") -> str:
    """A value and, where it has one, its interval; a dash for what was not measured."""
    if estimate.value == 0 and estimate.interval == (0, 0):  # the reference itself
        return "0"
    value = number(estimate.value, digits)
    return value + (apart + between(estimate.interval, digits) if estimate.interval else "")


def with_ends(estimate: Estimate, digits: int = 3) -> str:
    """The same in one line, for a sentence."""
    return with_interval(estimate, digits, apart=" ")


def either(estimate: Estimate, digits: int = 3) -> str:
    """A value and its interval; says where the latter is missing."""
    if estimate.value is None:
        return DASH
    interval = between(estimate.interval, digits)
    return f"{number(estimate.value, digits)} {interval if estimate.interval else f'({interval})'}"


def beside(estimate: Estimate, other: float) -> str:
    """The same with digits that tell the interval's ends from a value that it excludes."""
    return either(estimate, telling_digits(*(estimate.interval or ()), other))


def fixed(found: Estimate, decimals: int) -> str:
    """A value and its interval with as many decimals each; a dash where there is none."""
    if found.value is None or found.interval is None:
        return DASH
    # rounded first, and minus zero made zero
    value, low, high = (
        f"{round(v, decimals) + 0.0:.{decimals}f}" for v in (found.value, *found.interval)
    )
    return f"{value} [{low}, {high}]"


def whole(count: int | None) -> str:
    """A count or a batch size: 1,024."""
    return DASH if count is None else f"{count:,}"


def cell_name(cell: CellResult) -> str:
    """A cell as a row, a legend or a tick names it: its batch size where cells are just that."""
    only_batch = set(cell.cell) == {"global_batch_size"}
    return f"{cell.global_batch_size:,}" if only_batch else cell.label


def with_unit(words: str, unit: str) -> str:
    """A number with its unit, which may not be known."""
    return f"{words} {unit}".rstrip()


def titled(name: str, unit: str) -> str:
    """The title of an axis or a column, with its unit where that is known."""
    return f"{name} ({unit})" if unit else name


def rule_name(rule: str) -> str:
    """A rule of the learning rate in words."""
    known = {"none": "a fixed rate", "sqrt": "square-root scaling", "linear": "linear scaling"}
    return known.get(rule, rule)


def counted(count: int, noun: str) -> str:
    """A count and its noun: 1 seed, 3 seeds."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun}s"


def first_few(words: Sequence[str]) -> Sequence[str]:
    """All of them, or of more than six the first five and how many more there are."""
    if len(words) <= _MOST_NAMED + 1:
        return words
    return [*words[:_MOST_NAMED], f"{len(words) - _MOST_NAMED:,} more"]


def joined(words: Sequence[str], conjunction: str) -> str:
    """A list in words: a, b and c; a long one as in `first_few`."""
    words = first_few(words)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {conjunction} {words[-1]}"
