"""What of a scatter is seeds, lack of fit, and shared by the groups of a seed."""

import numpy as np
import pytest

from scaling.analysis.critical_batch.tradeoff import fit_tradeoff
from scaling.analysis.statistics.scatter import judged, scatter_of
from scaling.analysis.statistics.uncertainty import t_quantile

BATCHES = (16, 64, 256, 1024, 4096)


def test_two_way_by_hand() -> None:
    # Seed 1 is 2 above seed 0 everywhere, and the groups differ by 10: nothing else is left.
    groups, seeds = [1, 1, 2, 2], [0, 1, 0, 1]
    scatter = scatter_of(groups, np.array([0.0, 2.0, 10.0, 12.0]), seeds)
    assert scatter.means.tolist() == [1, 11]
    assert (scatter.squares, scatter.degrees) == (0, 1)
    # A seed's effect has variance 2, so the mean of two seeds has 1.
    assert scatter.shared_stderr == pytest.approx(1.0)
    assert scatter.shared_allowance == pytest.approx(t_quantile(1))
    unpaired = scatter_of(groups, np.array([0.0, 2.0, 10.0, 12.0]), [0, 1, 2, 3])
    assert (unpaired.squares, unpaired.degrees, unpaired.shared_stderr) == (4, 2, 0)


def test_error_is_pooled_where_the_curve_fits_and_of_the_misfit_where_not() -> None:
    scatter = scatter_of([1, 1, 2, 2, 3, 3], np.array([0.0, 1, 0, 1, 0, 1]))
    assert scatter.squares == pytest.approx(1.5)
    pooled = scatter.error(0.4, parameters=2)
    assert pooled is not None
    assert (pooled.variance, pooled.degrees, pooled.misfit) == (pytest.approx(1.9 / 4), 4, False)
    misfit = scatter.error(40.0, parameters=2)
    assert misfit is not None
    assert (misfit.variance, misfit.degrees, misfit.misfit) == (40.0, 1, True)
    assert scatter.error(0.4, parameters=3) is None


def test_groups_that_miss_the_curve_count_alike_however_many_seeds_they_have() -> None:
    groups, seeds = [1, 2, 3, 3, 3, 3], [0.0, 1.0, 0.0, 0.1, 0.2, 0.1]
    scatter = scatter_of(groups, np.array(seeds))
    assert scatter.weights.tolist() == [1, 1, 4]
    for around, weights in ((0.01, [1, 1, 4]), (40.0, [2, 2, 2])):
        found, error = judged(scatter, lambda _, around=around: around, parameters=2)
        assert found.weights.tolist() == weights
        assert error is not None
        assert error.is_suspected == (around > 1)


def test_seeds_that_tie_are_no_replicates() -> None:
    """On one grid of evaluations they differ by less than it can show."""
    sizes = [batch for batch in BATCHES for _ in range(3)]
    steps = [float(np.ceil((500 + 200000 / batch) / 100) * 100) for batch in sizes]
    fit, single = fit_tradeoff(sizes, steps, [0, 1, 2] * 5), fit_tradeoff(BATCHES, steps[::3])
    assert (fit.of_seeds.critical, fit.misfit_exceeds_seeds) == (None, None)
    assert fit.interval == pytest.approx(single.interval)
    assert fit.free.at_twice_min_steps.interval == pytest.approx(
        single.free.at_twice_min_steps.interval
    )


def planted(
    rng: np.random.Generator, num_seeds: int, noise: float, luck: float = 0.0, shared: float = 0.0
) -> tuple[list[int], list[float], list[int]]:
    """Batch sizes, steps and seeds around S = 60 + 12000 / B."""
    common = shared * rng.standard_normal(num_seeds)
    sizes: list[int] = []
    steps: list[float] = []
    for batch in BATCHES:
        of_cell = luck * rng.standard_normal()
        for seed in range(num_seeds):
            log_factor = of_cell + common[seed] + noise * rng.standard_normal()
            sizes.append(batch)
            steps.append(float((60 + 12000 / batch) * np.exp(log_factor)))
    return sizes, steps, list(range(num_seeds)) * len(BATCHES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_seeds", "noise", "luck", "shared"),
    [
        *((seeds, 0.05, 0.0, 0.0) for seeds in (1, 3, 5)),
        *((seeds, 0.05, 0.05, 0.0) for seeds in (1, 3, 5)),  # cells are not equally well tuned
        *((seeds, 0.03, 0.0, 0.06) for seeds in (3, 5)),  # one seed does not show what it shares
    ],
)
def test_coverage(num_seeds: int, noise: float, luck: float, shared: float) -> None:
    rng = np.random.default_rng(num_seeds)
    covered = np.zeros(3)
    for _ in range(150):
        fit = fit_tradeoff(*planted(rng, num_seeds, noise, luck, shared))
        truths = (200, 60, 12000)
        intervals = (fit.interval, fit.min_steps_interval, fit.min_examples_interval)
        covered += [
            i is not None and i[0] <= t <= i[1] for i, t in zip(intervals, truths, strict=True)
        ]
    assert (covered > 0.83 * 150).all(), covered
    assert (covered < 0.98 * 150).all(), covered


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(1, 1, 1, 1, 12), (12, 1, 1, 1, 1), (3, 3, 3, 3, 3)])
def test_coverage_with_unequal_seeds(counts: tuple[int, ...]) -> None:
    """By their seeds alone the first two cover 76 and 82%."""
    rng, covered = np.random.default_rng(1), 0
    sizes = [batch for batch, count in zip(BATCHES, counts, strict=True) for _ in range(count)]
    for _ in range(100):
        missed = np.repeat(0.1 * rng.standard_normal(5), counts)
        steps = (500 + 200000 / np.array(sizes)) * np.exp(
            missed + 0.02 * rng.standard_normal(len(sizes))
        )
        found = fit_tradeoff(sizes, steps.tolist()).interval
        covered += found is not None and found[0] <= 400 <= found[1]
    assert covered > 0.82 * 100


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 0.05])
def test_seeds_alone_cover_the_best_curve_whose_points_miss_it(shared: float) -> None:
    """Noise that shrinks with the batch, and a misfit that is the same in every study."""
    sizes = np.array([16, 64, 256, 1024, 4096])
    misses = 0.04 * np.array([1, -1, 0.5, -1, 0.5])
    noise = np.array([0.03, 0.02, 0.015, 0.01, 0.008])
    exact = np.log(60 + 12000 / sizes) + misses
    best = fit_tradeoff([int(b) for b in sizes], list(np.exp(exact)))
    rng = np.random.default_rng(0)
    covered = np.zeros(3)
    for _ in range(150):
        start = shared * rng.standard_normal(5)
        steps = exact + noise * rng.standard_normal((5, 5)) + start[:, None]
        batches = [int(b) for b in np.tile(sizes, 5)]
        seeds = [int(seed) for seed in np.repeat(np.arange(5), 5)]
        found = fit_tradeoff(batches, list(np.exp(steps).ravel()), seeds).of_seeds
        intervals = (found.critical, found.min_steps, found.min_examples)
        truths = (best.value, best.min_steps, best.min_examples)
        covered += [
            i is not None and t is not None and i[0] <= t <= i[1]
            for i, t in zip(intervals, truths, strict=True)
        ]
    assert (covered > 0.83 * 150).all(), covered
    assert (covered < 0.97 * 150).all(), covered


def test_a_misfit_is_said_and_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    fit = fit_tradeoff(*planted(rng, 5, 0.005, luck=0.1))
    assert fit.misfit_exceeds_seeds
    assert fit.interval is not None
    assert fit.of_seeds.critical is not None
    width, of_seeds = (np.log(i[1] / i[0]) for i in (fit.interval, fit.of_seeds.critical))
    assert width > 3 * of_seeds
    assert fit.rms_misfit is not None
    assert fit.rms_misfit > 3 * 0.005


def test_a_bend_out_of_reach_bounds_one_parameter() -> None:
    # Steps that fall as 1/B within the noise: min_examples is known, min_steps only from above.
    sizes = [8, 16, 32, 64]
    fit = fit_tradeoff(sizes, [12600, 6200, 3150, 1610])
    assert fit.bounds[1] is None
    assert fit.interval is None
    assert fit.min_steps_interval is None
