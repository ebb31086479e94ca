"""Sentences that one reads once, and numbers that are those of the report."""

import json
import re
from pathlib import Path

import pytest

from tests.committed import committed
from tests.docs.pages import PAGES, ROOT, name_of

_LONGEST = 30
_REFERENCE = (
    "statistics.md",
    "reliability.md",
    "security.md",
    "scale.md",
    "how-a-study-answers.md",
)
TUTORIAL = ROOT / "docs/tutorial.md"
REPORT = "reports/lr_vs_batch"


def sentences(page: Path) -> list[str]:
    """What a page says in sentences: paragraphs, items and cells of tables, as a reader sees it."""
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"`[^`]*`", "Code", text)
    parts = re.split(r"\n\s*\n|\n(?=[-|#>]|\d+\. )|\|", text)
    return [
        sentence
        for part in parts
        for sentence in re.split(r"(?<=[.?!])[*)\"]*\s+(?=[^a-z\d])", " ".join(part.split()))
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_sentence_is_longer_than_thirty_words(page: Path) -> None:
    long = [one for one in sentences(page) if len(re.findall(r"[^\W_][\w'’.,-]*", one)) > _LONGEST]
    assert long == []


def test_no_sentence_stands_on_two_pages() -> None:
    seen: dict[str, Path] = {}
    for page in PAGES:
        for sentence in {one for one in sentences(page) if len(one.split()) > 8}:
            first = seen.setdefault(sentence, page)
            assert first == page, sentence


def test_the_tutorial_quotes_the_report() -> None:
    headline = json.loads(committed(f"{REPORT}/summary.json"))["headline"]
    quotes = re.findall(r"^> (.+)$", TUTORIAL.read_text(encoding="utf-8"), re.M)
    assert len(quotes) >= 5
    for quote in quotes:
        assert quote in headline


def test_every_number_of_the_tutorial_is_in_the_report() -> None:
    report = committed(f"{REPORT}/report.md")
    measured = r"-?\d[\d,]*\.?\d* \[-?[\d.,]+, -?[\d.,]+\]|\d+\.\d+|\d+,\d{3}"
    prose = re.sub(r"^ *```.*?^ *```", "", TUTORIAL.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(measured, prose)
    assert len(found) > 15
    cells = re.sub(r" \| (?=\[)", " ", report)  # a table may have the interval in the next column
    for number in found:
        assert number in cells, number


def test_what_a_doubtful_report_says_is_said_by_reports() -> None:
    page = (ROOT / "docs/how-to/doubtful-report.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \|", page.partition("|---")[2], re.M)
    assert len(rows) > 10
    words = (ROOT / "scaling/report").rglob("*.py")
    said = re.sub(r'"\s+f?"', "", "\n".join(file.read_text(encoding="utf-8") for file in words))
    for row in rows:
        for phrase in re.split(r"…|; ", row):
            assert phrase.strip(" ,.;") in said, phrase
