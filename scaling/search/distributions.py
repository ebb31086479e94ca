"""The searched hyperparameters as Optuna's distributions."""

from collections.abc import Mapping
from typing import Any

from scaling.spec.sections import Distribution
from scaling.spec.study import StudySpec


def optuna_distributions(
    spec: StudySpec, extended: Mapping[str, Distribution[Any]] | None = None
) -> dict[str, Any]:
    """The nuisance space as Optuna's distributions, some of them extended."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    space: dict[str, Any] = {}
    for name, distribution in (spec.nuisance.distributions() | dict(extended or {})).items():
        if distribution.choice is not None:
            space[name] = CategoricalDistribution(distribution.choice)
        elif distribution.ends is not None:
            is_log = distribution.log_uniform is not None
            space[name] = FloatDistribution(*distribution.ends, log=is_log)
    return space
