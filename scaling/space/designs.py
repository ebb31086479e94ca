"""The points that a search which does not adapt tries, known before the first trial."""

import itertools
import math
from collections.abc import Mapping
from typing import Any, assert_never

from scaling.space.cells import Cell, cell_seed
from scaling.spec.sections import Choice, Distribution
from scaling.spec.study import StudySpec


def design(spec: StudySpec, cell: Cell, places: Mapping[str, int]) -> list[dict[str, Any]] | None:
    """The points that a non-adaptive search tries in a cell, in order; None for an adaptive one.

    Every cell has its own scrambled points, so that no accident of one design is shared by all.
    Those of a smaller number of trials are the first ones of a larger one. Of `places` see
    `cell_seed`.
    """
    searched = spec.nuisance.distributions()
    count = spec.search.per_cell
    if not searched:
        return [{} for _ in range(count)]
    seed = cell_seed(spec, cell, places)
    match spec.search.design:
        case None:
            return None
        case "grid":
            axes = [distribution.choice or () for distribution in searched.values()]
            return [dict(zip(searched, point, strict=True)) for point in itertools.product(*axes)]
        case "qmc":
            from scipy.stats import qmc

            # Optuna's own sampler draws categorical values, and the trials that start before the
            # first one ends, independently: the design would depend on timing.
            points = qmc.Sobol(len(searched), scramble=True, rng=seed).random_base2(
                math.ceil(math.log2(max(count, 2)))
            )[:count]
        case "random":
            import numpy as np

            points = np.random.default_rng(seed).random((count, len(searched)))
        case unknown:
            assert_never(unknown)
    return [
        {
            name: _at(distribution, float(share))
            for (name, distribution), share in zip(searched.items(), point, strict=True)
        }
        for point in points
    ]


def _at(distribution: Distribution[Any] | Choice[Any], share: float) -> Any:
    """The value of a distribution at a share of its range, 0 ≤ share < 1."""
    if distribution.choice is not None:
        return distribution.choice[int(share * len(distribution.choice))]
    assert distribution.ends is not None
    low, high = distribution.ends
    if distribution.log_uniform is None:
        return low + share * (high - low)
    low, high = math.log(low), math.log(high)
    return math.exp(low + share * (high - low))
