"""What every page is made with: templates, assets, figures' files, and files written whole."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

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


@contextmanager
def written_together(output: Path) -> Iterator[Path]:
    """A folder to write a report in, whose files take their places in `output` at the end.

    Where that is not reached, `output` is as it was. Figures of an earlier report that are absent
    now go.
    """
    is_new = not output.exists()
    output.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".unfinished-", dir=output) as name:
            folder = Path(name)
            yield folder
            written = [path for path in folder.rglob("*") if path.is_file()]
            kept = {output / path.relative_to(folder) for path in written}
            for path in written:
                place = output / path.relative_to(folder)
                place.parent.mkdir(parents=True, exist_ok=True)
                path.replace(place)
            for old in (*output.glob("figures/*.svg"), *output.glob("figures/*.png")):
                if old not in kept:
                    old.unlink()
    except BaseException:
        if is_new:
            with suppress(OSError):
                output.rmdir()
        raise


def write_figures(folder: Path, drawn: list[Figure]) -> None:
    """Every figure as SVG and PNG."""
    for figure in drawn:
        if figure.spec is not None:
            svg = figure.svg()
            write_file(folder / f"{figure.name}.svg", svg)
            write_file(folder / f"{figure.name}.png", png(svg))


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file, and the folder that it is in where that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        content.encode(errors="backslashreplace") if isinstance(content, str) else content
    )
