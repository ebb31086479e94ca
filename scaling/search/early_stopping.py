"""Which trials of a cell are not worth finishing, judged at rungs; pure functions.

Rungs are in training examples or input tokens, so that trials of one cell are compared at equal
work; trials of different cells are never compared.
"""

import math
import statistics
from collections.abc import Iterable, Sequence

from scaling.records.measurement import Measurement
from scaling.records.objective import Objective
from scaling.spec.phases import Asha, EarlyStopping

Curve = Sequence[Measurement]


def goes_on(
    rule: EarlyStopping, objective: Objective, curve: Curve, others: Iterable[Curve]
) -> bool:
    """Whether a trial goes on from the rung that its last measurement reached.

    Args:
        rule: Where the rungs are and how trials are compared.
        objective: What is compared.
        curve: The trial's measurements, the last one at the rung.
        others: Those of the cell's other trials, running and ended, that count as far as they
            have reached the rung too.

    Returns:
        True also where nothing can be compared yet.
    """
    rung = _rung(rule, curve[-1])
    reached = [
        up_to for other in others if (up_to := _up_to(rule, objective, other, rung)) is not None
    ]
    if isinstance(rule, Asha):
        # Among the best ⌊n / η⌋ of the n that reached the rung so far, or the best of them all.
        num_kept = max(1, math.floor((len(reached) + 1) / rule.reduction_factor))
        own = _last_cost(objective, curve)
        return sum(_last_cost(objective, other) < own for other in reached) < num_kept
    if len(reached) < rule.min_trials:
        return True
    means = [statistics.fmean(costs) for c in reached if (costs := _costs(objective, c))]
    return min(_costs(objective, curve), default=math.inf) <= statistics.median(means)


def _rung(rule: EarlyStopping, measurement: Measurement) -> int:
    return rule.rungs_passed(examples=measurement.examples, tokens=measurement.tokens)


def _up_to(rule: EarlyStopping, objective: Objective, curve: Curve, rung: int) -> Curve | None:
    """A curve up to its first evaluation at a rung; None where it has not come so far."""
    for number, measurement in enumerate(curve, start=1):
        is_known = objective.value_of(measurement) is not None
        if is_known and _rung(rule, measurement) >= rung:
            return curve[:number]
    return None


def _costs(objective: Objective, curve: Curve) -> list[float]:
    """What is compared, after the first step."""
    costs = [objective.cost_of(m) for m in curve if m.step > 0]
    return [cost for cost in costs if cost is not None]


def _last_cost(objective: Objective, curve: Curve) -> float:
    cost = objective.cost_of(curve[-1])
    return math.inf if cost is None else cost
