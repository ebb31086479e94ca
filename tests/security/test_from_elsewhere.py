"""What comes from elsewhere is read bounded, is wrong in one line, and is shown as it is."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from scaling.files.json_text import parse_mapping
from scaling.records.study import StudyRecord
from scaling.report.comparison.sides import read_side
from scaling.report.document import write_report
from scaling.report.foreign_tables.table_text import TableError
from scaling.report.page.markdown import escaped, fenced
from scaling.sinks import TrackingError
from scaling.sinks.mlflow.load import load_study
from tests.analysis.synthetic import spec, study
from tests.sinks.told import open_sink

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
ARTIFACTS = {
    ("study.yaml", BOMB): "anchors",
    ("study.yaml", "[" * 10_000): "study.yaml",
    ("study.yaml", "just text"): "not a study file",
    ("study.yaml", "name: x\n"): "not a study file",
    ("study.yaml", "# " + "x" * 3_000_000): "larger than 2,000,000 bytes",
    ("environment.json", "[" * 100_000): "nested too deeply",
    ("environment.json", '{"a":' * 500 + "1" + "}" * 500): "nested too deeply",
    ("environment.json", "[1]"): "is not a mapping",
    ("environment.json", '{"a": ' + "1" * 5000 + "}"): "number that is too long",
}


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with one study."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder}/mlflow.db"
    open_sink(spec(), uri, folder, {"python": "3"}).close()
    return uri


@pytest.mark.parametrize("file", ARTIFACTS, ids=range(len(ARTIFACTS)))
def test_a_study_s_artifacts(uri: str, file: tuple[str, str]) -> None:
    name, content = file
    from mlflow import MlflowClient

    client: Any = MlflowClient(uri)
    run = client.search_runs([client.get_experiment_by_name(spec().name).experiment_id])[0]
    path = Path(client.download_artifacts(run.info.run_id, name))
    before = path.read_text()
    client.log_text(run.info.run_id, content, name)
    try:
        with pytest.raises(TrackingError, match=ARTIFACTS[file]) as refused:
            load_study(spec().name, uri)
        assert "\n" not in str(refused.value)
        assert len(str(refused.value)) < 1000
    finally:
        client.log_text(run.info.run_id, before, name)
    assert load_study(spec().name, uri).environment == {"python": "3"}


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a report on a few trials."""
    folder = tmp_path_factory.mktemp("reported")
    write_report(replace(study(), trials=study().trials[:5]), folder)
    return folder


@pytest.mark.parametrize(
    "summary",
    ["[" * 100_000, "[]", "{}", '{"study": 1, "question": "q"}', '{"study": ["x"]}', "\udc80"],
    ids=range(6),
)
def test_a_report_s_folder(reported: Path, summary: str) -> None:
    (reported / "summary.json").write_bytes(summary.encode("utf-8", "surrogateescape"))
    with pytest.raises(TableError) as refused:
        read_side(str(reported), None)
    assert "\n" not in str(refused.value)


def test_json_is_bounded() -> None:
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        parse_mapping('{"a": 12345}', max_bytes=10)


HOSTILE = (
    "<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "[a](http://evil.example)",
    "![a](http://evil.example/x.png)", "`a` ``b``", "a|b", "*a* _b_ __c__ ~~d~~", "# a", "- a",
    "1. a", "> a", "<http://evil.example>", "http://evil.example/x", "www.evil.example",
    "a@b.example",
    "&lt;b&gt;", "\\<b>", "[a]: http://evil.example", "```\n<b>", "$x$", "a\n\n# b", "---",
    "<!-- a",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_says_the_text_and_nothing_else(text: str) -> None:
    markdown = pytest.importorskip("markdown_it", reason="markdown-it-py comes with rich")
    for made in (escaped(text), f"- {escaped(text)}"):
        tokens = markdown.MarkdownIt("gfm-like", {"linkify": False}).parse(made)
        inline = [token for token in tokens if token.type == "inline"]
        assert len(inline) == 1
        assert {child.type for child in inline[0].children} <= {"text", "text_special"}
        assert "".join(child.content for child in inline[0].children) == " ".join(text.split())
        kinds = {token.type.removesuffix("_open") for token in tokens}
        assert not kinds & {"heading", "blockquote", "html_block", "ordered_list", "hr", "fence"}
    assert not re.search(r"<[a-zA-Z!/]|://|www\.", made)


def test_an_interval_stays_readable() -> None:
    assert (
        escaped("0.072 [0.0437, 0.100] nats at peak_lr") == "0.072 [0.0437, 0.100] nats at peak_lr"
    )


def test_a_fence_is_longer_than_any_in_the_text() -> None:
    assert fenced("a\n````\nb").splitlines()[0] == "`````yaml"


def test_a_report_with_hostile_words(tmp_path: Path) -> None:
    question = "<img src=x onerror=alert(1)> [a](http://evil.example) ![b](x) a|b `c`"
    write_report(StudyRecord(spec(question=question), ()), tmp_path)
    text = (tmp_path / "report.md").read_text()
    outside = re.sub(r"^(`{3,})yaml$.*?^\1$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert "<img" not in outside
    assert "](http" not in outside
    assert "evil" in outside


class _Page(HTMLParser):
    """The first element of the head, and the scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: dict[str, list[str]] = {"script": [], "style": []}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        runs = tag in self.inline and dict(attrs).get("type") != "application/json"
        self._open = tag if runs else ""

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.inline[self._open].append(data)


@pytest.mark.slow
def test_every_page_allows_itself_alone(tmp_path: Path) -> None:
    from scaling.report.comparison.two_studies import write_comparison

    for name in ("a", "b"):
        write_report(study(name=name), tmp_path / name)
    write_comparison((str(tmp_path / "a"), str(tmp_path / "b")), tmp_path / "c")
    for name in ("a", "c"):
        page = _Page((tmp_path / name / "report.html").read_text())
        tags = [tag for tag, _ in page.tags]
        first, given = page.tags[tags.index("head") + 1]
        assert (first, given["http-equiv"]) == ("meta", "Content-Security-Policy")
        policy = dict(part.split(" ", 1) for part in (given["content"] or "").split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["base-uri"] == policy["form-action"] == "'none'"
        assert policy["img-src"] == "data:"
        assert "unsafe" not in (given["content"] or "")
        assert "http" not in (given["content"] or "")
        for kind in ("script", "style"):
            digests = [hashlib.sha256(text.encode()).digest() for text in page.inline[kind]]
            allowed = {f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests}
            assert set(policy[f"{kind}-src"].split()) == allowed
            assert allowed
        assert not [tag for tag in page.tags if any(n.startswith("on") for n in tag[1])]
        assert json.dumps(tags).count("iframe") == 0
