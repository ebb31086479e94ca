"""The gallery: every study of it is one, and every report is of its study as it stands."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scaling.spec.read import read_study
from tests.committed import committed

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
    section = PAGE.partition(f"[report](../reports/gallery/{report.parent.name}/report.html")[2]
    section = section.partition("/report.html")[0].partition("\n## ")[0]
    quotes = re.findall(r"^> (.+)$", section, re.MULTILINE)
    assert quotes
    for quote in quotes:
        assert quote in summary_of(report)["headline"]


SIDE_BY_SIDE = {
    "lr_vs_batch": "the default study",
    "gallery/muon_critical_batch": "Muon and AdamW",
    "gallery/sgd_linear_rule": "SGD's rules",
    "gallery/adamw_rules": "AdamW's rules",
    "gallery/lamb_rules": "LAMB's rules",
    "gallery/fine_tuning": "fine-tuning",
}
"""Reports with numbers in common, and what the page calls them."""


def shown(value: float | None, interval: list[float | None] | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    low, high = interval or (None, None)
    ends = "" if low is None or high is None else f" [{low:.{digits}g}, {high:.{digits}g}]"
    return f"{value:.{digits}g}{ends}"


def side_by_side() -> Iterator[str]:
    for place, name in SIDE_BY_SIDE.items():
        summary = json.loads(committed(f"reports/{place}/summary.json"))
        fixed = read_study(ROOT / "studies" / f"{place}.yaml").fixed
        averaged = ", averaged weights" * bool(fixed.weight_average_half_life_examples)
        for one in summary.get("series") or [summary]:
            law, critical = one["lr_scaling"], one["critical_batch_size"]
            turns, fit = law["turns"], critical["steps_examples"]
            stops = "no" if turns["at"] is None else f"{turns['at']:.0f}"
            noise = (critical.get("noise_scale") or {}).get("at_end") or {}
            cells = (
                f"[{name}](../reports/{place}/report.html)",
                f"{one.get('cell', {}).get('optimizer') or fixed.optimizer}, "
                f"{fixed.schedule}{averaged}",
                shown(law["exponent"], law["interval"], 2),
                f"{stops} ({turns['probability']:.0%})",
                shown(fit["value"], fit["interval"]),
                shown(noise.get("value"), noise.get("interval")),
            )
            yield f"| {' | '.join(cells)} |"


def test_the_studies_side_by_side_are_those_of_the_reports() -> None:
    for row in side_by_side():
        assert row in PAGE
