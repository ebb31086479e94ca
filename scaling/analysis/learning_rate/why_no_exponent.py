"""What keeps the exponent of the best rate from having an interval."""

import math
from collections.abc import Sequence

from scaling.analysis.learning_rate.curves import LrCurve
from scaling.analysis.learning_rate.exponent import FEWEST_FOR_INTERVAL, LrScaling, NoExponent

_FEWEST_RATES = 3
_MUCH_SCATTER = 2.0
"""Times the noise's variance from which on a law counts as not fitting."""


def why_no_interval(law: LrScaling, curves: Sequence[LrCurve]) -> NoExponent:
    """What keeps a law from having an interval.

    Args:
        law: Without one.
        curves: Of every cell with a rate, also those that it is not fitted to.
    """
    few_rates = max((len(c.rates_tried) for c in curves), default=0) < _FEWEST_RATES
    if len(curves) < FEWEST_FOR_INTERVAL or (few_rates and not law.from_surface):
        return "few_points"
    rates = [rate for curve in curves for rate in curve.rates_tried]
    inside = [curve for curve in curves if not _is_at_edge(curve, min(rates), max(rates))]
    if len(inside) < FEWEST_FOR_INTERVAL:
        return "best_at_edge"
    if not all(curve.has_common_shape for curve in curves) or (law.scatter or 0.0) > _MUCH_SCATTER:
        return "law_does_not_fit"
    has_spare = law.from_surface or law.scatter is not None
    return "too_noisy" if has_spare else "few_points"


def _is_at_edge(curve: LrCurve, lowest: float, highest: float) -> bool:
    """Whether a best rate may lie beyond those tried at any batch size.

    An interval that is open on one side says so where it leaves out half of the rates or more;
    one that leaves out less says that the losses are noisy.
    """
    if curve.edge is not None or curve.interval is None:
        return curve.edge is not None
    low, high = curve.interval
    if math.isfinite(low) and math.isfinite(high):
        return False
    held = math.log(min(high, highest) / max(low, lowest))
    return held <= math.log(highest / lowest) / 2
