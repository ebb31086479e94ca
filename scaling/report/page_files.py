"""What every page is made with: templates, assets, figures' files, and files written whole."""

import json
import os
from importlib.resources import files
from pathlib import Path

import jinja2
from markupsafe import Markup

from scaling.report import content
from scaling.report.figures import Figure, png
from scaling.report.glossary import Glossary, address


def template(name: str, *, autoescape: bool) -> jinja2.Template:
    """A template of this package, with the filters that all pages use."""
    environment = jinja2.Environment(
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = lambda text: text.replace("|", "\\|").replace("\n", " ")
    glossary = Glossary(content.TERMS)
    environment.filters["explained"] = glossary.explained
    environment.filters["meaning"] = glossary.meaning
    environment.filters["address"] = address
    environment.filters["breakable"] = lambda name: Markup("_<wbr>").join(name.split("_"))
    return environment.from_string(asset(name))


def asset(name: str) -> str:
    """A text file of this package."""
    return files("scaling.report").joinpath(name).read_text(encoding="utf-8")


def script_json(value: object) -> str:
    """JSON that can stand inside a script element."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def write_figures(folder: Path, drawn: list[Figure]) -> None:
    """Every figure as SVG and PNG; those of an earlier report that are absent now go."""
    kept: set[str] = set()
    for figure in drawn:
        if figure.spec is not None:
            svg = figure.svg()
            write_whole(folder / f"{figure.name}.svg", svg)
            write_whole(folder / f"{figure.name}.png", png(svg))
            kept |= {f"{figure.name}.svg", f"{figure.name}.png"}
    for old in (*folder.glob("*.svg"), *folder.glob("*.png")):
        if old.name not in kept:
            old.unlink()


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(
        content.encode(errors="backslashreplace") if isinstance(content, str) else content
    )
    unfinished.replace(path)
