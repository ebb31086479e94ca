"""What every page is made with: templates, assets, the page's policy, and figures' files."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from scaling.files.own import FIGURES
from scaling.report.charts.figures import Figure, png
from scaling.report.page.markdown import escaped, fenced, table
from scaling.report.words.glossary import Glossary, address

_ENVIRONMENT = partial(
    jinja2.Environment,
    autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined,
)  # fmt: skip


def page(name: str, view: Mapping[str, Any], terms: Sequence[tuple[str, str]]) -> str:
    """A page from a template of this package; it may run and load nothing but what is in it.

    Args:
        name: Of the template.
        view: What it lays out.
        terms: (term, meaning) of what is explained where it is used.
    """
    environment = _ENVIRONMENT()
    glossary = Glossary(terms)
    environment.filters["explained"] = glossary.explained
    environment.filters["meaning"] = glossary.meaning
    environment.filters["address"] = address
    environment.filters["breakable"] = lambda name: Markup("_<wbr>").join(name.split("_"))
    style, bundle, script = asset("page.css"), asset("vega_bundle.js"), asset("page.js")
    own = {"style": style, "bundle": bundle, "script": script}
    policy = _policy(scripts=(bundle, script), style=style)
    return environment.from_string(asset(name)).render({**view, **own, "policy": Markup(policy)})


def markdown(name: str, view: Mapping[str, Any]) -> str:
    """A Markdown file from a template of this package; every value is escaped as it goes in."""
    environment = _ENVIRONMENT(
        finalize=lambda value: value if isinstance(value, Markup) else Markup(escaped(str(value)))
    )
    environment.filters["escaped"] = lambda text: Markup(escaped(str(text)))
    environment.filters["table"] = lambda t: Markup(table(t.columns, t.rows))
    environment.filters["fenced"] = lambda text: Markup(fenced(text))
    return environment.from_string(asset(name)).render(view)


def _policy(*, scripts: Iterable[str], style: str) -> str:
    """What a browser may do with the page: run its own scripts, and nothing from elsewhere."""
    hashes = " ".join(_source_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src {_source_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _source_hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def asset(name: str) -> str:
    """A text file of this package."""
    return files("scaling.report.page").joinpath(name).read_text(encoding="utf-8")


def script_json(value: object) -> str:
    """JSON that can stand inside a script element."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def figure_files(drawn: Iterable[Figure]) -> dict[str, str | bytes]:
    """Every figure as SVG and PNG, by its name in a report's folder."""
    contents: dict[str, str | bytes] = {}
    for figure in drawn:
        if figure.spec is not None:
            svg = figure.svg()
            contents[f"{FIGURES}/{figure.name}.svg"] = svg
            contents[f"{FIGURES}/{figure.name}.png"] = png(svg)
    return contents
