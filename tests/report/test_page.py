"""The page in a real browser; skipped where Playwright or Chromium is missing.

pip install --group browser; Debian's Chromium, or `playwright install chromium`.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scaling.report import write_report
from tests.analysis.synthetic import joint_study, study
from tests.report.test_importance import searched

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
DEBIANS = Path("/usr/bin/chromium")
STUDIES = {"planted": study, "joint": joint_study, "searched": lambda: searched(20)}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of each study."""
    folder = tmp_path_factory.mktemp("pages")
    for name, make in STUDIES.items():
        write_report(make(), folder / name)
    return {name: folder / name / "report.html" for name in STUDIES}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        path = str(DEBIANS) if DEBIANS.exists() else None
        try:
            opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {error}")
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", STUDIES)
def test_the_page_at_two_widths(name: str, width: int, pages: dict[str, Path], browser: Any):
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if width == 400 else "light",
        offline=True,
    )
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(pages[name].as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.query_selector_all("figure")
    assert figures
    for figure in figures:
        marks = "svg .mark-symbol path, svg .mark-line path, svg .mark-rect path"
        assert figure.query_selector(marks), figure.get_attribute("id")
        assert figure.query_selector("figcaption").inner_text().strip()
    levels = page.evaluate(
        "[...document.querySelectorAll('h1,h2,h3')].map(heading => Number(heading.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    context.close()


def column(page: Any, number: int) -> list[str]:
    return page.eval_on_selector_all(
        f"#trials tbody tr td:nth-child({number})", "cells => cells.map(c => c.textContent)"
    )


def test_trials_are_sorted_as_numbers_filtered_and_turned_by_keyboard(
    pages: dict[str, Path], browser: Any
):
    page = browser.new_page()
    page.goto(pages["planted"].as_uri())
    status = page.locator("#trials [role=status]")
    assert status.inner_text() == "1–50 of 87"
    heading = page.locator("#trials thead button").nth(7)
    heading.focus()
    page.keyboard.press("Enter")
    losses = [float(word) for word in column(page, 8)]
    assert losses == sorted(losses)
    page.keyboard.press("Enter")
    fallen = [float(word) for word in column(page, 8)]
    assert fallen == sorted(fallen, reverse=True)
    assert fallen[0] > losses[-1]
    page.locator("#trials button", has_text="Next").press("Enter")
    assert status.inner_text() == "51–87 of 87"
    assert column(page, 8)[-1] == "–"
    page.locator("#trials input").fill("confirm 1024")
    assert status.inner_text() == "1–3 of 3"
    link = page.locator("#trials tbody a").first
    assert link.get_attribute("href").startswith("http://localhost:5000/#/runs/confirm-1024")
    page.close()


def test_a_point_names_its_trial_and_leads_to_its_run(pages: dict[str, Path], browser: Any):
    page = browser.new_page()
    page.goto(pages["planted"].as_uri())
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    point = page.locator("#loss_vs_lr .mark-symbol.layer_1_marks path").first
    item = "element => [element.__data__.datum.trial, element.__data__.href]"
    trial, href = point.evaluate(item)
    assert href == f"http://localhost:5000/#/runs/{trial}"
    assert trial in point.get_attribute("aria-label")
    page.close()
