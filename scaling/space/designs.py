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
            points = _sobol_points(len(searched), count, seed)
        case "random":
            points = _random_points(len(searched), count, seed)
        case unknown:
            assert_never(unknown)
    return [
        {
            name: _at(distribution, float(share))
            for (name, distribution), share in zip(searched.items(), point, strict=True)
        }
        for point in points
    ]


def _sobol_points(num_dimensions: int, count: int, seed: int) -> Any:
    """[count, num_dimensions] Owen-scrambled Sobol points in the unit cube.

    Optuna's own QMC sampler draws categorical values and the trials that start before the first
    one ends independently, which would make the design depend on timing.
    """
    from scipy.stats import qmc

    engine = qmc.Sobol(num_dimensions, scramble=True, rng=seed)
    return engine.random_base2(math.ceil(math.log2(max(count, 2))))[:count]


def _random_points(num_dimensions: int, count: int, seed: int) -> Any:
    """[count, num_dimensions] independent points in the unit cube."""
    import numpy as np

    return np.random.default_rng(seed).random((count, num_dimensions))


def _at(distribution: Distribution[Any] | Choice[Any], share: float) -> Any:
    """The value of a distribution at a share of its range, 0 ≤ share < 1."""
    if distribution.choice is not None:
        return distribution.choice[int(share * len(distribution.choice))]
    assert isinstance(distribution, Distribution)
    if distribution.log_uniform is not None:
        low, high = (math.log(bound) for bound in distribution.log_uniform)
        return math.exp(low + share * (high - low))
    assert distribution.uniform is not None
    low, high = distribution.uniform
    return low + share * (high - low)
