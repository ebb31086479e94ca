"""The site of the documentation: every link leads somewhere, and nothing comes from a network."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

pytest.importorskip("mkdocs", reason="make docs installs MkDocs")

pytestmark = [pytest.mark.slow, pytest.mark.ci]

ROOT = Path(__file__).parents[2]
LOADED = {
    ("link", "href"), ("script", "src"), ("img", "src"), ("img", "srcset"), ("iframe", "src"),
    ("source", "src"), ("source", "srcset"), ("video", "src"), ("object", "data"),
    ("use", "href"),
}  # fmt: skip
"""What a browser requests by itself, by tag and attribute."""


class Read(HTMLParser):
    """The ids, the links and what is loaded of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if (tag, name) in LOADED and value:
                self.loaded.append(value)
            if (tag, name) == ("a", "href") and value:
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Read]:
    """Every page that MkDocs made, and every report."""
    return {path: Read(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_page_is_in_the_site(site: Path, pages: dict[Path, Read]) -> None:
    names = {page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")}
    made = {page.relative_to(site) for page in pages if page.name != "report.html"}
    assert made == {name.with_suffix(".html") for name in names}
    assert site / "reports/lr_vs_batch/report.html" in pages


def test_every_link_leads_somewhere(site: Path, pages: dict[Path, Read]) -> None:
    for page, read in pages.items():
        for address in [*read.links, *read.loaded]:
            if urlsplit(address).scheme:
                continue
            target, _, fragment = unquote(address).partition("#")
            file = (page.parent / target).resolve() if target else page
            if file.is_dir():
                file /= "index.html"
            assert file.is_relative_to(site), (page, address)
            assert file.is_file(), (page, address)
            if fragment and file in pages:
                assert fragment in pages[file].ids | {"__skip"}, (page, address)


def test_no_page_requests_anything_from_a_network(site: Path, pages: dict[Path, Read]) -> None:
    for page, read in pages.items():
        for address in read.loaded:
            split = urlsplit(address)
            assert not split.netloc, (page, address)
            assert split.scheme in ("", "data"), (page, address)
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", text), style


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """Where a server of Python's own serves the site."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=site)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("width", [400, 1280])
def test_a_search_finds_a_page_and_asks_this_server_alone(
    address: str, browser: Any, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/index.html")
    if width == 400:
        page.locator("label[for=__search]").first.click()
    page.locator("input.md-search__input").click()
    page.keyboard.type("critical batch size")
    page.wait_for_selector("a.md-search-result__link", timeout=30_000)
    found = page.eval_on_selector_all("a.md-search-result__link", "all => all.map(a => a.href)")
    assert any("concepts/critical-batch-size.html" in url for url in found)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert said == []
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(address).netloc}
    page.close()
