"""Figures of reports, drawn once in a run of the tests: that takes seconds, and changes nothing."""

import vl_convert

from tests.result_cache import cached


def draw_figures_once() -> None:
    """From now on, a figure that was drawn before in this run of the tests is not drawn again."""
    vl_convert.vegalite_to_svg = cached(vl_convert.vegalite_to_svg)
    vl_convert.svg_to_png = cached(vl_convert.svg_to_png)
