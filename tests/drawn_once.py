"""Figures of reports, drawn once in a process: that takes seconds, and the same gives the same."""

import json
from functools import lru_cache
from typing import Any

import vl_convert

_svg, _png = vl_convert.vegalite_to_svg, vl_convert.svg_to_png
_remembered_png = lru_cache(maxsize=1000)(_png)


def draw_figures_once() -> None:
    """From now on, a figure that this process has drawn before is not drawn again."""
    vl_convert.vegalite_to_svg = _svg_of
    vl_convert.svg_to_png = _remembered_png


def _svg_of(spec: dict[str, Any], **options: Any) -> str:
    return _remembered_svg(json.dumps(spec), **options)


@lru_cache(maxsize=1000)
def _remembered_svg(spec: str, **options: Any) -> str:
    return _svg(json.loads(spec), **options)
