"""A range that was too short goes on beyond its end, as densely as before."""

import math
from typing import Any

import pytest

from scaling.space.cells import cells
from scaling.space.extension import beyond, most_extension_trials, planned_extension
from scaling.spec.issues import StudyFileError
from scaling.spec.sections import Distribution
from tests.space.test_space import DATA, study

RATE = {"peak_lr": {"log_uniform": [1e-3, 1e-1]}}


def search(sampler: str, trials: int = 8) -> dict[str, Any]:
    return {"trials_per_cell": trials, "sampler": sampler, "extend_undertuned": 2}


def test_each_round_is_half_as_wide_as_the_first_range() -> None:
    drawn = Distribution[float](log_uniform=(1e-3, 1e-1))
    new, whole = beyond(drawn, ["high"])
    assert new.log_uniform == pytest.approx((1e-1, 1.0))
    assert whole.log_uniform == pytest.approx((1e-3, 1.0))
    new, whole = beyond(drawn, ["low", "low"])
    assert new.log_uniform == pytest.approx((1e-5, 1e-4))
    assert whole.log_uniform == pytest.approx((1e-5, 1e-1))
    new, whole = beyond(Distribution[float](choice=(0.1, 0.2, 0.4)), ["high"])
    assert new.choice == pytest.approx((0.8, 1.6))
    assert whole.choice == pytest.approx((0.1, 0.2, 0.4, 0.8, 1.6))


@pytest.mark.parametrize("sampler", ["qmc", "random"])
def test_points_lie_in_the_new_part_alone_and_are_known_beforehand(sampler: str) -> None:
    spec = study(nuisance=RATE, search=search(sampler))
    cell = cells(spec)[0]
    first = planned_extension(spec, cell, ["high"], DATA)
    again = planned_extension(spec, cell, ["high"], DATA)
    second = planned_extension(spec, cell, ["high", "high"], DATA)
    assert first == again
    assert [t.trial_id for t in first + second] == [
        f"search-global_batch_size=16-{number:03d}" for number in range(8, 16)
    ]
    assert all(0.1 <= t.choices["peak_lr"] <= 1.0 for t in first)
    assert all(1.0 <= t.choices["peak_lr"] <= 10.0 for t in second)
    shares = [math.log10(t.choices["peak_lr"]) % 1 for t in first]
    assert shares != pytest.approx([math.log10(t.choices["peak_lr"]) % 1 for t in second])
    assert {t.record().search_round for t in second} == {2}
    assert most_extension_trials(spec) == 2 * 2 * 4


def test_a_grid_crosses_new_rates_with_the_rest_and_tpe_searches_the_whole() -> None:
    grid = {"peak_lr": {"choice": [0.1, 0.2, 0.4]}, "warmup_ratio": {"choice": [0.0, 0.1]}}
    spec = study(nuisance=grid, search=search("grid", 6))
    planned = planned_extension(spec, cells(spec)[0], ["low"], DATA)
    points = {(round(t.choices["peak_lr"], 6), t.choices["warmup_ratio"]) for t in planned}
    assert points == {(0.05, 0.0), (0.05, 0.1), (0.025, 0.0), (0.025, 0.1)}
    spec = study(nuisance=RATE, search=search("tpe"))
    planned = planned_extension(spec, cells(spec)[0], ["low"], DATA)
    assert [t.recipe for t in planned] == [None] * 4
    assert planned[0].extended["peak_lr"].log_uniform == pytest.approx((1e-4, 1e-1))


@pytest.mark.parametrize(
    ("nuisance", "message"),
    [
        ({"warmup_ratio": {"choice": [0.0, 0.1]}}, "needs a peak_lr or base_lr in nuisance"),
        ({"peak_lr": {"uniform": [0.1, 0.2]}}, "needs log_uniform or choice"),
        ({"peak_lr": {"choice": [0.1, 0.2]}}, "at least three rates"),
    ],
)
def test_a_range_that_cannot_be_extended_is_said(nuisance: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyFileError, match=message):
        study(nuisance=nuisance, fixed={}, search=search("qmc"))
