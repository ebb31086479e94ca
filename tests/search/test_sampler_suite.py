"""The surface's sampler keeps what Optuna asks of every sampler."""

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import (
    BasicSamplerTestCase,
    RelativeSamplerTestCase,
    SingleOnlySamplerTestCase,
)

from scaling.search.sampler import SurfaceSampler


class TestSurfaceSampler(
    BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
):  # its tests are inherited, as Optuna means them to be
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return SurfaceSampler
