"""Sweeps analysed once in a run of the tests: that takes a second or two, and changes nothing.

So are the parts that sweeps share which differ in something else, such as a limit or a check: a
surface is fitted once in a process, and read once.
"""

from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from scaling.analysis import findings
from scaling.analysis.critical_batch import target_curves
from scaling.analysis.learning_rate import fitted_surface, surface_reading
from scaling.surface.loss_surface import LossSurface
from tests.result_cache import cached, key_of

_MOST_SURFACES = 40
"""Of a process, the last ones: each has megabytes of places and covariances."""
_surfaces: dict[str, LossSurface] = {}
_read: WeakKeyDictionary[LossSurface, dict[str, Any]] = WeakKeyDictionary()
"""What was read from each."""


def analyse_once() -> None:
    """From now on, what has been analysed before in this run of the tests is not analysed again."""
    findings.analyse = cached(findings.analyse)
    findings.read_ladder = cached(findings.read_ladder)
    target_curves.fit_tradeoff = cached(target_curves.fit_tradeoff)
    fitted_surface.LossSurface = _surface_of
    surface_reading.best_rates = _read_once(surface_reading.best_rates)
    surface_reading.CarriedRecipes = _read_once(surface_reading.CarriedRecipes)
    LossSurface.cells = _read_once(LossSurface.cells)


def _surface_of(*args: Any) -> LossSurface:
    key = key_of(args)
    if key is None:
        return LossSurface(*args)
    found = _surfaces[key] = _surfaces.pop(key, None) or LossSurface(*args)
    if len(_surfaces) > _MOST_SURFACES:
        del _surfaces[next(iter(_surfaces))]
    return found


def _read_once(read: Callable[..., Any]) -> Any:
    """A function of a surface and further arguments, called once for the same ones."""

    def once(surface: LossSurface, *args: Any) -> Any:
        plain = [list(arg) if isinstance(arg, Sequence) else arg for arg in args]
        key = key_of(read.__qualname__, plain)
        assert key is not None
        known = _read.setdefault(surface, {})
        if key not in known:
            known[key] = read(surface, *args)
        return known[key]

    return once
