"""The gallery: every study of it is one, and every report is of its study as it stands."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from scaling.spec.read import read_study

ROOT = Path(__file__).parents[1]
STUDIES = sorted((ROOT / "studies/gallery").glob("*.yaml"))
REPORTS = sorted((ROOT / "reports/gallery").glob("*/summary.json"))
PAGE = (ROOT / "docs/gallery.md").read_text(encoding="utf-8")
QUESTIONS = (ROOT / "docs/index.md").read_text(encoding="utf-8")


def summary_of(report: Path) -> dict[str, Any]:
    return json.loads(report.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_every_study_is_named_after_its_file(file: Path) -> None:
    study = read_study(file)
    assert study.name == file.stem
    assert f"studies/gallery/{file.name}" in PAGE + QUESTIONS


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.parent.name)
def test_every_report_answers_its_studys_question(report: Path) -> None:
    study = read_study(ROOT / "studies/gallery" / f"{report.parent.name}.yaml")
    assert summary_of(report)["question"] == study.question
    assert f"reports/gallery/{report.parent.name}/report.html" in PAGE


@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.parent.name)
def test_what_the_page_quotes_stands_in_the_report(report: Path) -> None:
    section = PAGE.partition(f"reports/gallery/{report.parent.name}/report.html")[2]
    section = section.partition("/report.html")[0].partition("\n## ")[0]
    quotes = re.findall(r"^> (.+)$", section, re.MULTILINE)
    assert quotes
    for quote in quotes:
        assert quote in summary_of(report)["headline"]
