"""A value between measured ones."""

from collections.abc import Sequence

import numpy as np


def interpolated(places: Sequence[float], values: Sequence[float], at: float) -> float | None:
    """On the straight line between the two neighbours of a place; None outside of all.

    Args:
        places: Rising.
        values: As many.
        at: The place.
    """
    if not places or not places[0] <= at <= places[-1]:
        return None
    return float(np.interp(at, places, values))
