"""What the command line asks of runs of several sizes, and whether a table can answer it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from scaling.analysis.ladder.question import LadderQuestion
from scaling.analysis.ladder.runs import problem_of
from scaling.analysis.trial_rows import Sweep
from scaling.report.foreign_tables.sweep_table import TableError
from scaling.report.words.ladder import problem_words

_MOST_AXES = 2


def ladder_question(
    scale: Sequence[str], predict: Sequence[str], tokens_per_example: str | None
) -> LadderQuestion | None:
    """What is asked; None without `--scale`.

    Raises:
        TableError: With the option and the value, if they make no sense together.
    """
    if not scale:
        if predict or tokens_per_example is not None:
            option = "--predict" if predict else "--tokens-per-example"
            raise TableError(f"{option} needs --scale COLUMN, the columns that are a run's size")
        return None
    if len(scale) > _MOST_AXES or len(set(scale)) < len(scale):
        given = ", ".join(scale)
        raise TableError(f"--scale takes one column or two different ones, not {given}")
    tokens = None
    if tokens_per_example is not None:
        tokens = _positive("--tokens-per-example", tokens_per_example, tokens_per_example)
    return LadderQuestion(tuple(scale), tuple(_size(text, scale) for text in predict), tokens)


def _size(text: str, scale: Sequence[str]) -> Mapping[str, float]:
    option = f"--predict {text}"
    example = ",".join(f"{name}=VALUE" for name in scale)
    found: dict[str, float] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.rpartition("="))
        if not (name and equals and value):
            raise TableError(f"{option}: {part.strip()!r} is not NAME=VALUE; give {example}")
        if name not in scale:
            raise TableError(f"{option}: {name!r} is not named by --scale; give {example}")
        if name in found:
            raise TableError(f"{option}: {name!r} is given twice; give {example}")
        found[name] = _positive(option, part.strip(), value)
    if missing := [name for name in scale if name not in found]:
        raise TableError(f"{option}: no {missing[0]!r}; give {example}")
    return found


def _positive(option: str, shown: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise TableError(f"{option}: {shown!r} must be a finite number above 0")
    return value


def with_ladder(sweep: Sweep, question: LadderQuestion | None, file: str) -> Sweep:
    """The sweep with what is asked of its sizes.

    Raises:
        TableError: If its runs cannot be fitted.
    """
    if question is None:
        return sweep
    if problem := problem_of(sweep, question.scale):
        raise TableError(f"{file}: {problem_words(problem, question)}")
    return replace(sweep, ladder=question)
