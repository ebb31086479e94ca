"""The sentences of every kind of report: short, each once, in the field's terms."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scaling.report.charts.figures import figures
from scaling.report.document import _view
from scaling.report.page.setting import Setting
from scaling.report.summary import summarize
from tests.report.kinds import KINDS

MOST_WORDS = 30
OUTWORN = (
    "carrying the recipe costs", "bends at", "strong evidence against 1", "miss the fitted curve",
    "holds by itself", "is a column", "was not asked for", "basin", "lopsided", "too few",
    "beaten in both", "had not ended and left out", "leave out no difference", "in the hands",
)  # fmt: skip
"""What `words.md`'s left column says, which the field has terms for."""


def texts(view: dict[str, Any]) -> Iterator[str]:
    """All that a report says in sentences, its tables' cells and a user's own words aside."""
    for _, lines in view["first_screen"]:
        yield from (line.text for line in lines)
    yield view["reason"]
    yield from view["carried"]
    yield from view["flags"]
    yield view["sources"]
    yield view["trials"].note
    shown = [view["beside"]] if view["beside"] else []
    for part in view["sections"]:
        yield part.note
        shown += part.figures
        yield from (f"No figure “{f.title}”: {f.absent}." for f in part.absent)
        for table in part.tables:
            yield table.note
            yield from table.remarks
    yield from (figure.caption for figure in shown)
    yield from (meaning for _, meaning in view["terms"])


def sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?])\s+(?=[A-Z0-9“|−(])", text.strip()) if s]


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_are_short_and_said_once_in_the_field_s_terms(kind: str, tmp_path: Path) -> None:
    findings = KINDS[kind](tmp_path)
    view = _view(findings, summarize(findings), figures(findings, {}), Setting())
    said = Counter(s for text in texts(view) for s in sentences(text))
    assert [s for s in said if len(s.split()) > MOST_WORDS] == []
    assert [s for s, count in said.items() if count > 1] == []
    assert [(s, old) for s in said for old in OUTWORN if old in s] == []


def test_a_long_sentence_and_one_that_stands_twice_are_seen() -> None:
    text = "A loss fell. " + "Word " * 31 + "end. A loss fell."
    assert Counter(sentences(text))["A loss fell."] == 2
    assert max(len(s.split()) for s in sentences(text)) > MOST_WORDS
