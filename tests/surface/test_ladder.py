"""The surface over sizes: planted ladders whose bottoms are known."""

import numpy as np
import pytest

from benchmarks.ladder_coverage import cases, covered
from scaling.surface.ladder.ladder import Ladder
from scaling.surface.ladder.runs import Runs
from scaling.surface.ladder.valley import height, prior_walls, squashed
from scaling.surface.ladder.way import Bottoms, Way, bottoms_at
from scaling.surface.space import Array


def planted(bend: float = 0.0, seed: int = 0, noise: float = 0.1) -> Runs:
    """Five sizes with one number each, a grid of 36 runs at each."""
    rng = np.random.default_rng(seed)
    octaves = np.arange(5.0)
    rate, batch = -9 - 0.3 * octaves + bend * octaves**2, 6 + 0.4 * octaves
    grid = np.arange(-3.0, 3.0)
    u, v = (part.ravel() for part in np.meshgrid(grid, grid))
    size = np.repeat(np.arange(5), len(u))
    x, b = np.tile(u, 5) + np.round(rate)[size], np.tile(v, 5) + np.round(batch)[size]
    high = 0.3 * (x - rate[size]) ** 2 + 0.2 * (b - batch[size]) ** 2
    loss = (3 - 0.2 * octaves)[size] * np.exp((high + rng.normal(0, noise, len(x))) / 100)
    return Runs(2**x, 2**b, loss, size, 2.0 ** (octaves[:, None] + 20))


def test_the_bottom_of_a_size_that_was_not_run() -> None:
    found = Ladder(planted()).predict(np.array([2.0**27]))
    truth = -9 - 0.3 * 7, 6 + 0.4 * 7
    assert np.log2([found.rate, found.batch]) == pytest.approx(truth, abs=0.25)
    low, high = np.log2(found.rate_interval)
    assert low < truth[0] < high
    low, high = np.log2(found.batch_interval)
    assert low < truth[1] < high


def test_intervals_grow_with_the_distance() -> None:
    ladder = Ladder(planted())
    widths = [
        np.ptp(np.log2(ladder.predict(np.array([2.0**at])).rate_interval)) for at in (22, 26, 30)
    ]
    assert widths[0] < widths[1] < widths[2]


def test_exponents_are_local_slopes() -> None:
    straight = Ladder(planted()).exponents(np.array([2.0**24]))
    assert np.median(straight[:, 0], axis=0) == pytest.approx([-0.3, 0.4], abs=0.05)
    bent = Ladder(planted(bend=0.03)).exponents(np.array([2.0**24]))
    assert np.median(bent[:, 0, 0]) > np.median(straight[:, 0, 0]) + 0.05


def test_runs_that_diverged_and_one_outlier_move_little() -> None:
    runs = planted()
    loss = runs.loss.copy()
    loss[runs.rate > 3 * np.median(runs.rate)] = np.nan
    loss[50] *= 0.8
    changed = Ladder(Runs(runs.rate, runs.batch, loss, runs.size, runs.scales))
    found = changed.predict(np.array([2.0**25]))
    assert np.log2(found.rate) == pytest.approx(-9 - 0.3 * 5, abs=0.4)
    assert np.log2(found.batch) == pytest.approx(6 + 0.4 * 5, abs=0.4)


def test_units_do_not_matter() -> None:
    runs = planted()
    scaled = Runs(runs.rate, runs.batch * 2048, runs.loss * 7, runs.size, runs.scales * 1e3)
    one = Ladder(runs).predict(np.array([2.0**26]))
    other = Ladder(scaled).predict(np.array([2.0**26 * 1e3]))
    assert other.rate == pytest.approx(one.rate, rel=0.01)
    assert other.batch == pytest.approx(one.batch * 2048, rel=0.01)


def test_the_path_is_lowest_at_the_bottom_and_follows_the_tilt() -> None:
    found = Ladder(planted()).predict(np.array([2.0**25]))
    points = found.path([found.batch / 8, found.batch, found.batch * 8])
    assert points[1].rate == pytest.approx(found.rate, rel=0.15)
    regrets = [found.expected_regret(point.rate, point.batch) for point in points]
    assert regrets[1] < min(regrets[0], regrets[2])


def test_heights() -> None:
    walls = prior_walls(1.0, 1)
    assert height(walls, np.zeros(3), np.zeros(3), np.zeros((3, 1))).tolist() == [0, 0, 0]
    up, down = (height(walls, np.array([u]), np.zeros(1), np.zeros((1, 1)))[0] for u in (1, -1))
    assert up > down > 0  # a rate too high costs more
    assert squashed(np.array([0.5, 1.0, np.e]), 1.0) == pytest.approx([0.5, 1.0, 2.0])


OCTAVES = np.arange(8.0)[:, None] - 3.5
ZIGZAG = 0.3 * np.array([1, -1, -1, 1, 1, -1, -1, 1.0])


def way_through(rate: Array, batch: Array) -> Way:
    """The way through eight bottoms, an octave apart, that are known within .02 octaves."""
    precision = np.eye(16) / 0.02**2
    bottoms = np.concatenate([rate, batch])
    return Way(Bottoms(OCTAVES, precision, precision @ bottoms, (0.0, 0.0)))


def spread(way: Way, octaves: float, *, is_new: bool = False) -> Array:
    """Standard deviations of the best rate and batch at a size."""
    targets = bottoms_at(np.array([[octaves]]), are_new=is_new)
    draws = way.draws(targets, 1000, np.random.default_rng(0))
    return draws[:, 0].std(axis=0)


def test_a_new_size_strays_as_those_that_were_run() -> None:
    """Also in their midst, where the line is known; one that was run has its own bottom."""
    way = way_through(ZIGZAG, ZIGZAG[::-1] + 0.2 * OCTAVES[:, 0])
    assert spread(way, 0.0) == pytest.approx([0.3, 0.3], abs=0.1)
    assert spread(way, 0.5) == pytest.approx([0.02, 0.02], abs=0.01)
    assert spread(way, 0.5, is_new=True) == pytest.approx([0.3, 0.3], abs=0.1)
    assert way.expected(bottoms_at(OCTAVES))[:, 0] == pytest.approx(ZIGZAG, abs=0.02)
    assert np.abs(way.expected(bottoms_at(OCTAVES + 0.01))[:, 0]).max() < 0.2


def test_what_the_rate_shows_of_its_way_counts_for_the_batch() -> None:
    """The two have as likely as not one form, unless the batch shows another by itself."""
    few = np.arange(4.0)[:, None] - 1.5
    line, bends = 0.3 * few[:, 0], 0.3 * few[:, 0] + 0.1 * few[:, 0] ** 2

    def widths(rate: Array) -> Array:
        precision = np.eye(8) / 0.02**2
        bottoms = precision @ np.concatenate([rate, line])
        return spread(Way(Bottoms(few, precision, bottoms, (0.0, 0.0))), 4.5)

    assert widths(bends)[1] > 1.3 * widths(line)[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.name for case in cases() if case.walls != "other"][::3])
def test_intervals_cover_planted_bottoms(name: str) -> None:
    inside = np.array([covered(name, number)[0] for number in range(20)])
    assert inside.mean() >= 0.8


def test_no_batch_below_those_that_ran_is_predicted() -> None:
    """The bottoms lie one octave and more below the smallest batch."""
    runs = planted()
    octaves = np.arange(5.0)[runs.size]
    kept = np.log2(runs.batch) - (6 + 0.4 * octaves) >= 0.5
    least = float(runs.batch[kept].min())
    above = Ladder(
        Runs(runs.rate[kept], runs.batch[kept], runs.loss[kept], runs.size[kept], runs.scales)
    )
    small = above.predict(np.array([2.0**18]))  # its bottom is at 2^5.2
    assert small.batch == pytest.approx(least)
    assert small.is_least
    assert min(small.batch_interval) == pytest.approx(least)
    assert np.log2(small.rate) == pytest.approx(-9 + 0.3 * 2, abs=0.4)
    assert small.expected_regret(small.rate, small.batch) < 0.01
    assert small.expected_regret(small.rate * 4, small.batch) > 0.005
    large = above.predict(np.array([2.0**30]))  # and of this one at 2^10
    assert not large.is_least
