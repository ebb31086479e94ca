"""The trade-off with its exponent fitted: planted bends, and the runs of Zhang et al. 2024."""

import math

import numpy as np
import pytest

from scaling.analysis.critical_batch.free_exponent import FreeExponent
from scaling.analysis.critical_batch.tradeoff import TradeoffFit, fit_tradeoff
from scaling.analysis.findings import analyse
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.report.summary import summarize

SIZES = [64 * 2**index for index in range(9)]
# Steps to target as the authors' notebook prints them (github.com/hlzhang109/critical-batch-size)
STEPS = {
    "85M": [46000, 23000, 13282, 7000, 3840, 2500, 1800, 1600, 1600],
    "1.2B": [643000, 331000, 176000, 94000, 46500, 25000, 15360, 8900, 6500],
}
BATCHES = [16, 64, 256, 1024, 4096]


def steps(batch: float, alpha: float) -> float:
    return 60 * (1 + (200 / batch) ** alpha)


def exact(alpha: float) -> TradeoffFit:
    return fit_tradeoff(BATCHES, [steps(batch, alpha) for batch in BATCHES])


@pytest.mark.parametrize(
    ("size", "classical", "free"),
    [
        ("85M", (2235, 1955, 2561), (1905, 1520, 2526)),
        ("1.2B", (11140, 9743, 12844), (13734, 12268, 19269)),
    ],
)
def test_real_runs_with_and_without_the_exponent(
    size: str, classical: tuple[float, ...], free: tuple[float, ...]
) -> None:
    """The free numbers are another reader's of the same tables, by a method of their own."""
    fit = fit_tradeoff(SIZES, STEPS[size])
    assert fit.interval is not None
    assert (fit.value, *fit.interval) == pytest.approx(classical, rel=1e-3)
    twice = fit.free.at_twice_min_steps
    assert twice.interval is not None
    assert (twice.value, *twice.interval) == pytest.approx(free, rel=0.11)
    assert twice.value == pytest.approx(free[0], rel=0.05)


@pytest.mark.parametrize("alpha", [0.7, 0.85, 1.0, 1.3])
def test_exact_bends_are_found(alpha: float) -> None:
    found = exact(alpha).free
    assert found.alpha.value == pytest.approx(alpha, rel=1e-4)
    assert found.at_twice_min_steps.value == pytest.approx(200, rel=1e-3)
    assert found.min_steps == pytest.approx(60, rel=1e-3)
    assert found.excludes_one == (alpha != 1)
    assert found.steps_at(50) == pytest.approx(steps(50, alpha), rel=1e-3)


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.parametrize("num_seeds", [1, 3])
@pytest.mark.parametrize("alpha", [0.7, 1.3])
def test_the_interval_covers_whatever_the_exponent_is(alpha: float, num_seeds: int) -> None:
    """And that of the classical curve does not, which is why it is not the one to lead with."""
    rng = np.random.default_rng(int(10 * alpha) + num_seeds)
    batches = [batch for batch in BATCHES for _ in range(num_seeds)]
    covered = classical = 0
    for _ in range(60):
        noisy = [steps(b, alpha) * math.exp(0.05 * rng.standard_normal()) for b in batches]
        fit = fit_tradeoff(batches, noisy)
        low, high = fit.free.at_twice_min_steps.interval or (math.inf, 0.0)
        covered += low <= 200 <= high
        low, high = fit.interval or (math.inf, 0.0)
        classical += low <= 200 <= high
    assert covered >= 48  # 54 are expected, with a standard deviation of 2.3
    assert classical < 36


def test_the_slope_is_that_of_the_fitted_exponent() -> None:
    found = exact(0.7).free
    # At the bend half of the steps fall as B^-0.7.
    assert found.slope_at(200).value == pytest.approx(0.35, rel=1e-3)
    factors = (1.02, 0.98, 1.01, 0.99, 1.0)
    noisy = [steps(b, 0.7) * factor for b, factor in zip(BATCHES, factors, strict=True)]
    local = fit_tradeoff(BATCHES, noisy).free.slope_at(200)
    assert local.interval is not None
    assert local.interval[0] < 0.35 < local.interval[1]


def test_three_batch_sizes_do_not_tell_an_exponent() -> None:
    assert fit_tradeoff([8, 32, 128], [300, 100, 60]).free == FreeExponent()


def test_steps_that_keep_falling_have_no_bend_at_any_exponent() -> None:
    fit = fit_tradeoff([8, 16, 32, 64, 128], [1000 / b**0.8 for b in (8, 16, 32, 64, 128)])
    assert fit.free.missing == "bend_above"
    assert fit.free.at_twice_min_steps.value is None


def summary_of(alpha: float, batches: list[int]) -> dict:
    rows = tuple(
        TrialRow(
            f"{batch}-{seed}", "confirm", "done", {"global_batch_size": batch}, batch, f"{batch}",
            seed=seed, peak_lr=1e-3, steps=999.0, validation_loss=0.9,
            steps_to_target=steps(batch, alpha) * (1 + 0.01 * (-1) ** (seed + place)),
        )
        for place, batch in enumerate(batches)
        for seed in range(3)
    )  # fmt: skip
    cells = tuple({"global_batch_size": batch} for batch in batches)
    return summarize(analyse(Sweep("s", "?", rows, cells, has_target=True, target=1.0)))


def test_the_summary_leads_with_the_fitted_exponent_where_the_data_exclude_one() -> None:
    summary = summary_of(0.7, BATCHES)
    fit = summary["critical_batch_size"]["steps_examples"]
    low, high = fit["at_twice_min_steps"]["interval"]
    assert low < 200 < high
    assert fit["interval"][1] < 200 or fit["interval"][0] > 200
    assert fit["alpha"]["interval"][1] < 1
    assert "Steps are twice their minimum at a batch of" in summary["answer"]
    value = f"{fit['value']:.3g} [{fit['interval'][0]:.3g}, "
    assert (
        f"the classical curve (α = 1), which the data disfavor, gives {value}" in summary["answer"]
    )
    classical = summary_of(1.0, BATCHES)
    answer = classical["answer"]
    assert "The critical batch size (steps–examples fit) is " in answer
    assert "disfavor" not in answer
    free = classical["critical_batch_size"]["steps_examples"]["at_twice_min_steps"]
    assert f"with the exponent α fitted, {free['value']:.3g} [" in answer


def test_what_is_missing_is_null_with_its_reason() -> None:
    fit = summary_of(1.0, [8, 32, 128])["critical_batch_size"]["steps_examples"]
    assert fit["alpha"]["value"] is None
    reason = "not enough data: 3 of at least 4 batch sizes can be fitted"
    assert fit["alpha"]["why"] == {"value": reason, "interval": reason}
    assert fit["at_twice_min_steps"]["why"] == fit["alpha"]["why"]
