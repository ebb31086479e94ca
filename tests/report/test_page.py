"""Every kind of page in a real browser: Debian's Chromium, driven by Playwright.

Skipped where one of them is missing, unless REQUIRE_BROWSER is set, as in .ci/run.
"""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scaling.report.__main__ import main
from scaling.report.document import write_report
from tests.analysis.synthetic import Truth, joint_study, study
from tests.analysis.test_branched import branch_records
from tests.analysis.test_branched import study as branched_study
from tests.report.test_importance import searched

pytestmark = [pytest.mark.slow, pytest.mark.ci]

HOSTILE = """</script><b>"o'clock" [0].x:Q\\n${1}{{2}}\u202e<!--"""
"""A column's name that means something to HTML, JavaScript, Vega, Jinja and a file system."""
LONG = "a_very_long_name_" * 9
REPORTS = Path(__file__).parents[2] / "reports"


def compared(output: Path) -> None:
    a, b = output.with_name("a"), output.with_name("b")
    write_report(study(), a)
    write_report(study(Truth(gap=0.3), name="b" * 100), b)
    run("--compare", a, b, "--output", output)


def table(output: Path, name: str, header: str, lines: list[str], *options: str) -> None:
    output.mkdir(parents=True)
    path = output.parent / name
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    run("--from-csv", path, *options, "--output", output)


def run(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def rates(*further: str) -> list[str]:
    """Rows of three batch sizes and five rates, with further cells behind."""
    return [
        f"{batch},{lr},{2 + abs(place - 2) / 5 + 1 / batch}," + ",".join(further).format(place)
        for batch in (16, 32, 64)
        for place, lr in enumerate((1e-4, 3e-4, 1e-3, 3e-3, 1e-2))
    ]


COLUMNS = "global_batch_size,peak_lr,validation_loss"
QUOTED = '"' + HOSTILE.replace('"', '""') + '"'
KINDS: dict[str, Callable[[Path], Any]] = {
    "study": lambda output: write_report(study(), output),
    "joint": lambda output: write_report(joint_study(), output),
    "searched": lambda output: write_report(searched(20), output),
    "branched": lambda output: write_report(branched_study(branch_records(0.01)), output),
    "no_target": lambda output: write_report(study(target=None), output),
    "comparison": compared,
    "table": lambda output: table(
        output, "sweep.csv", f"{COLUMNS},steps_to_target", rates("{0}7")
    ),
    "critical_batch": lambda output: table(
        output, "steps.csv", "global_batch_size,steps_to_target",
        [f"{2**power},{50 + 4096 // 2**power}" for power in range(4, 11)],
    ),
    "names": lambda output: table(
        output, f"{LONG}'&<i>.csv", f"{COLUMNS},{QUOTED},{LONG},batch",
        rates(QUOTED[:-1].replace("{", "{{").replace("}", "}}") + '{0}"', LONG[:90] + "{0}",
              "\a{0}\ufffe"),
        "--nuisance", HOSTILE, "--nuisance", LONG, "--nuisance", "batch",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of a kind, made when it is first asked for."""

    @functools.cache
    def made(kind: str) -> Path:
        output = tmp_path_factory.mktemp(kind) / "out"
        KINDS[kind](output)
        return output / "report.html"

    return made


@pytest.mark.parametrize(
    ("kind", "width"),
    [
        *((kind, 1280) for kind in KINDS),
        *((kind, 400) for kind in ("study", "comparison", "names")),
    ],
)
def test_a_page_draws_all_its_figures_and_asks_for_nothing(
    kind: str, width: int, page_of: Callable[[str], Path], browser: Any
) -> None:
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
    address = page_of(kind).as_uri()
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.wait_for_selector("html[data-drawn]", timeout=120_000)
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [address]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    figures = page.query_selector_all("figure")
    assert figures
    marks = "svg .mark-symbol path, svg .mark-line path, svg .mark-rect path"
    for figure in figures:
        assert figure.query_selector(marks), figure.get_attribute("id")
        assert figure.query_selector("figcaption").inner_text().strip()
    files = {path.name for path in (page_of(kind).parent / "figures").glob("*.svg")}
    assert len(files) == len(figures)
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))
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
    page_of: Callable[[str], Path], browser: Any
):
    page = browser.new_page()
    page.goto(page_of("study").as_uri() + "#trials")
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


def test_a_point_names_its_trial_and_leads_to_its_run(page_of: Callable[[str], Path], browser: Any):
    page = browser.new_page()
    page.goto(page_of("study").as_uri() + "#trials")
    page.wait_for_selector("html[data-drawn]", timeout=60_000)
    point = page.locator("#loss_vs_lr .mark-symbol.layer_1_marks path").first
    item = "element => [element.__data__.datum.trial, element.__data__.href]"
    trial, href = point.evaluate(item)
    assert href == f"http://localhost:5000/#/runs/{trial}"
    assert trial in point.get_attribute("aria-label")
    page.close()


COMMITTED = ("lr_vs_batch", "gallery/muon_critical_batch")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["comparison", *COMMITTED])
def test_axe_finds_nothing(
    name: str, scheme: str, page_of: Callable[[str], Path], browser: Any
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    file = REPORTS / name / "report.html" if name in COMMITTED else page_of(name)
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    page.wait_for_selector("html[data-drawn]", timeout=120_000)
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
    context.close()
