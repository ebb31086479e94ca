"""What the site has that no page says: the reference, read from the code, and linked files.

MkDocs calls the functions whose names begin with `on_`; `mkdocs.yml` names this file.
"""

import os
import posixpath
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from scaling.cli.app import app
from scaling.report.__main__ import main as report
from scaling.spec.schema import Schema, allowed, spec_schema

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<=\]\()(\.\./)([^)\s#]+)")
_HYPERPARAMETERS = ("scientific", "nuisance", "fixed")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Decisions are in the navigation, newest first."""
    assert config.nav is not None
    names = sorted((ROOT / "docs/decisions").glob("*.md"), reverse=True)
    config.nav.append({"Decisions": [f"decisions/{path.name}" for path in names]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Studies, reports and figures that pages link to are part of the site."""
    linked = {target for page in files.documentation_pages() for target in _outside(page)}
    reports = [ROOT / target for target in linked if target.endswith("/report.html")]
    figures = [file for report in reports for file in report.parent.glob("figures/*.svg")]
    linked |= {file.relative_to(ROOT).as_posix() for file in figures}
    for target in sorted(linked):
        files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def _outside(page: File) -> Iterator[str]:
    """Files of the repository, outside of docs, that a page links to."""
    folder = posixpath.dirname(posixpath.join("docs", page.src_uri))
    for up, target in _LINK.findall(page.content_string):
        path = posixpath.normpath(posixpath.join(folder, up + target))
        if not path.startswith("docs/"):
            yield path


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Links out of docs lead to the copies; a marker is replaced by what the code says."""
    outside = set(_outside(page.file))
    folder = posixpath.dirname(page.file.src_uri)

    def in_site(match: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", folder, match[0]))
        return posixpath.relpath(path, folder or ".") if path in outside else match[0]

    markdown = _LINK.sub(in_site, markdown)
    for name, text in REFERENCES.items():
        if f"<!-- {name} -->" in markdown:
            markdown = markdown.replace(f"<!-- {name} -->", text())
    return markdown


# --- commands -----------------------------------------------------------------------------------


def commands() -> str:
    """Every sub-command with its arguments and options, of the command line itself."""
    command = typer.main.get_command(app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="scaling")
    os.environ["COLUMNS"] = "90"  # where argparse wraps
    with redirect_stdout(StringIO()) as options, suppress(SystemExit):
        report(["--help"], program="scaling report")
    _, heading, text = text.partition("\n## ")  # the rest is said of the program as a whole
    text = re.sub(r"^#", "##", heading + text, flags=re.M)
    return f"{text}\n### Options of `scaling report`\n\n```text\n{options.getvalue()}```\n"


# --- study file ---------------------------------------------------------------------------------


def study_file() -> str:
    """Every section of a study file and its fields, of the JSON Schema."""
    schema = spec_schema()
    titles = _titles(schema)
    parts = ["## The file", _table(schema, titles), _hyperparameters(schema["$defs"])]
    for name, title in titles.items():
        if title not in _HYPERPARAMETERS:
            node = schema["$defs"][name]
            parts += [f"### {title}", _line(node.get("description", "")), _table(node, titles)]
    return "\n\n".join(parts)


def _titles(schema: Schema) -> dict[str, str]:
    """The dotted path of every section; of one with several, what these end in alike."""
    paths: dict[str, list[list[str]]] = {}

    def visit(node: Schema, path: list[str]) -> None:
        for field, inner in node["properties"].items():
            for name, kind in _references(inner):
                section = schema["$defs"][name]
                if "properties" in section and "_of_" not in name:
                    place = [*path, f"{field}: {kind}" if kind else field]
                    paths.setdefault(name, []).append(place)
                    visit(section, place)

    visit(schema, [])
    return {
        name: ".".join(places[0] if len(places) == 1 or len(places[0]) == 1 else places[0][1:])
        for name, places in paths.items()
    }


def _references(node: Schema) -> Iterator[tuple[str, str]]:
    """The definitions that a field refers to, and the kind of each where there are several."""
    if "$ref" in node:
        yield node["$ref"].rpartition("/")[2], ""
    kinds = node.get("discriminator", {}).get("mapping", {})
    for kind, reference in kinds.items():
        yield reference.rpartition("/")[2], kind
    for member in (*node.get("anyOf", ()), *([node["items"]] if "items" in node else ())):
        yield from _references(member)
    for member in () if kinds else node.get("oneOf", ()):
        yield from ((name, name) for name, _ in _references(member))


def _table(node: Schema, titles: dict[str, str]) -> str:
    rows = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name, field in node["properties"].items():
        default = "required" if name in node.get("required", ()) else _default(field)
        cells = (f"`{name}`", _value(field, titles), default, _line(field.get("description", "")))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _hyperparameters(definitions: Schema) -> str:
    """One table of what may be compared, searched and fixed."""
    kinds = {name: definitions[name.capitalize()]["properties"] for name in _HYPERPARAMETERS}
    rows = ["| name | value | default | may also be | meaning |", "|---|---|---|---|---|"]
    for name, field in kinds["fixed"].items():
        also = ", ".join(kind for kind in ("scientific", "nuisance") if name in kinds[kind])
        unit = f" ({field['unit']})" if field.get("unit") else ""
        cells = (
            f"`{name}`{unit}", _value(field, {}), _default(field), also or "–",
            _line(field["description"]),
        )  # fmt: skip
        rows.append(f"| {' | '.join(cells)} |")
    words = (
        "`scientific` lists the values to compare: `{global_batch_size: [16, 64]}`. `nuisance` "
        "gives a distribution to search: `{peak_lr: {log_uniform: [1.0e-4, 1.0e-2]}}`, "
        "`{uniform: [low, high]}` or `{choice: [a, b]}`. `fixed` gives one value."
    )
    return f"## Hyperparameters\n\n{words}\n\n" + "\n".join(rows) + "\n\n## Sections\n"


def _value(field: Schema, titles: dict[str, str]) -> str:
    named = [titles[name] for name, _ in _references(field) if name in titles]
    if named:
        links = ", ".join(f"[{title}](#{_anchor(title)})" for title in named)
        return f"a list of {links}" if field.get("type") == "array" else links
    text = _line(allowed(field)).removesuffix(" or null")
    return re.sub(r"text of the form (\S+)", r"text of the form `\1`", text)


def _anchor(title: str) -> str:
    if title.partition(".")[0] in _HYPERPARAMETERS:
        return "hyperparameters"
    return re.sub(r"[^\w-]+", "-", title.lower().replace(".", "")).strip("-")


def _default(field: Schema) -> str:
    default: Any = field.get("default")
    if default is None or isinstance(default, dict | list):
        return "–"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _line(text: str) -> str:
    """A text as one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


REFERENCES: dict[str, Callable[[], str]] = {"commands": commands, "study file": study_file}
"""Of each marker in a page: what stands in its place."""
