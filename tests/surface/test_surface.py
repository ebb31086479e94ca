"""The surface finds planted optima, says how sure it is, and takes cliffs as what they are."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from scaling.surface.carried import CarriedRecipes
from scaling.surface.covariance import TO_READ, TO_SEARCH, Family
from scaling.surface.loss_surface import Limit, LossSurface, Outcome
from scaling.surface.model import Replicates
from scaling.surface.path import BestRates, best_rates
from scaling.surface.space import Axis, Space
from tests.surface.planted import BATCHES, SPACE, best_rate, loss, outcomes

RATES = [float(rate) for rate in np.geomspace(1e-4, 1e-1, 8)]


@pytest.mark.parametrize("family", [TO_SEARCH, TO_READ], ids=["search", "read"])
def test_each_cells_best_rate_is_found(family: Family) -> None:
    surface = LossSurface(SPACE, outcomes(RATES, noise=0.002), family=family)
    for batch, found in zip(BATCHES, surface.cells(Limit(ratio=0.01)), strict=True):
        true = loss(batch, found.point["peak_lr"])
        assert true - 2 < 0.02
        assert found.value is not None
        assert found.expected_regret_ratio is not None
        assert abs(found.value - true) < 0.02
        assert found.probability > 0.5
        assert found.expected_regret_ratio == pytest.approx(found.expected_regret / 2, rel=0.1)


def test_a_rate_of_a_batch_with_one_trial_comes_from_the_others() -> None:
    """The last batch has one trial, far from its best rate."""
    known = [o for o in outcomes(RATES) if o.cell < 3]
    surface = LossSurface(SPACE, [*known, Outcome(3, {"peak_lr": 1e-3}, loss(1024, 1e-3))])
    assert loss(1024, surface.recipe(3)["peak_lr"]) - 2 < 0.1


def test_fewer_trials_leave_a_larger_expected_regret() -> None:
    every = outcomes(RATES, noise=0.002)
    few = [o for o in every if o.point["peak_lr"] in RATES[::3]]
    sure, unsure = (LossSurface(SPACE, found).cells(Limit(ratio=0.0025)) for found in (every, few))
    assert sum(c.expected_regret for c in unsure) > 2 * sum(c.expected_regret for c in sure)
    assert min(c.probability for c in unsure) < min(c.probability for c in sure)


def test_trials_that_diverge_keep_the_best_rate_below() -> None:
    """Above the best rate of each batch nothing has a loss, as at a cliff."""
    cut = [
        replace(o, value=None) if o.point["peak_lr"] > best_rate(BATCHES[o.cell]) * 1.5 else o
        for o in outcomes(RATES)
    ]
    for batch, found in zip(BATCHES, LossSurface(SPACE, cut).cells(Limit()), strict=True):
        assert best_rate(batch) / 4 < found.point["peak_lr"] < best_rate(batch) * 4
    nothing = [replace(o, value=None) for o in outcomes(RATES[:2])]
    bests = LossSurface(SPACE, nothing).cells(Limit())
    assert [best.value for best in bests] == [None] * len(BATCHES)


def test_noise_as_large_as_the_losses_differ_is_no_shape() -> None:
    """Near the best rate losses differ by noise alone; it may be all of a unit, and is seen."""
    rates = [float(rate) for rate in np.geomspace(0.6, 1.6, 7)]
    near = [
        Outcome(cell, {"peak_lr": at}, loss(batch, at) * math.exp(0.02 * z))
        for cell, batch in enumerate(BATCHES)
        for rate, z in zip(rates, np.random.default_rng(cell).standard_normal(7), strict=True)
        for at in [rate * best_rate(batch)]
    ]
    far = [Outcome(cell, {"peak_lr": 1e-4}, loss(b, 1e-4)) for cell, b in enumerate(BATCHES)]
    scales = LossSurface(SPACE, [*near, *far], family=TO_READ).processes[0].scales
    assert scales.noise * scales.unit == pytest.approx(0.02, rel=0.5)


def test_a_lost_trial_is_no_seed_of_its_own() -> None:
    """It has no loss that a seed could add to, whatever seed it ran with."""
    known = [replace(o, seed=0) for o in outcomes(RATES[:-1], noise=0.002)]
    lost = [Outcome(cell, {"peak_lr": RATES[-1]}, None) for cell in range(len(BATCHES))]
    without = LossSurface(SPACE, [*known, *lost], family=TO_READ)
    named = LossSurface(SPACE, [*known, *(replace(o, seed=0) for o in lost)], family=TO_READ)
    assert without.processes[0].scales.seed == 0
    assert np.array_equal(without.mean, named.mean)
    others = [replace(o, seed=1, value=(o.value or 0) + 0.05) for o in known[::3]]
    unseeded = LossSurface(SPACE, [*known, *others, *lost], family=TO_READ)
    seeded = LossSurface(
        SPACE, [*known, *others, *(replace(o, seed=5) for o in lost)], family=TO_READ
    )
    assert np.array_equal(unseeded.mean, seeded.mean)


def test_a_loss_that_is_not_positive_is_compared_by_differences() -> None:
    lowered = [replace(o, value=(o.value or 0) - 2.5) for o in outcomes(RATES)]
    for batch, found in zip(BATCHES, LossSurface(SPACE, lowered).cells(Limit()), strict=True):
        assert loss(batch, found.point["peak_lr"]) - 2 < 0.02
        assert found.expected_regret_ratio is None


def test_a_metric_of_zero_in_one_trial_has_a_ratio_of_regret() -> None:
    """What is maximized counts negative; exact match at a bad rate is often 0."""
    scores = [replace(o, value=min((o.value or 0) - 3, 0.0)) for o in outcomes(RATES)]
    assert 0.0 in [o.value for o in scores]
    for found in LossSurface(SPACE, scores).cells(Limit(ratio=0.01)):
        assert found.expected_regret_ratio is not None
        assert found.probability > 0


def test_seeds_that_all_differ_are_no_replicates() -> None:
    noisy = outcomes(RATES, noise=0.01)
    apart = [replace(o, seed=number) for number, o in enumerate(noisy)]
    twice = [replace(o, seed=seed) for seed in (1, 2) for o in noisy]
    assert not any(any(LossSurface(SPACE, apart, family=TO_READ).rises(c)) for c in range(4))
    assert any(any(LossSurface(SPACE, twice, family=TO_READ).rises(c)) for c in range(4))


def test_other_hyperparameters_have_their_effect() -> None:
    """A list without an order and a number; the best of each is found in every cell."""
    clip = Axis("clip_norm", choice=(None, 1.0))
    warmup = Axis("warmup_ratio", low=0.0, high=0.2)
    space = Space(SPACE.cells, (*SPACE.axes, clip, warmup))
    rng = np.random.default_rng(1)
    found: list[Outcome] = []
    for number in range(48):
        cell, rate = number % 4, float(10 ** rng.uniform(-4, -1))
        norm, share = clip.at_share(rng.random()), warmup.at_share(rng.random())
        value = loss(BATCHES[cell], rate) + 0.2 * (norm is None) + 3 * (share - 0.1) ** 2
        found.append(
            Outcome(cell, {"peak_lr": rate, "clip_norm": norm, "warmup_ratio": share}, value)
        )
    surface = LossSurface(space, found)
    for cell, batch in enumerate(BATCHES):
        recipe = surface.recipe(cell)
        assert recipe["clip_norm"] == 1.0
        assert abs(recipe["warmup_ratio"] - 0.1) < 0.07
        assert loss(batch, recipe["peak_lr"]) - 2 < 0.1


def test_another_series_has_an_optimum_of_its_own() -> None:
    """Two optimizers whose best rates are a factor of ten apart."""
    cells = [{"global_batch_size": b, "optimizer": o} for o in ("sgd", "adamw") for b in BATCHES]
    space = Space(tuple(cells), SPACE.axes)
    assert space.cell_series == (0, 0, 0, 0, 1, 1, 1, 1)
    found = [
        Outcome(
            i, {"peak_lr": rate},
            loss(cell["global_batch_size"], rate / (10 if cell["optimizer"] == "sgd" else 1)),
        )
        for i, cell in enumerate(cells)
        for rate in RATES
    ]  # fmt: skip
    surface = LossSurface(space, found)
    for i, cell in enumerate(cells):
        rate = surface.recipe(i)["peak_lr"] / (10 if cell["optimizer"] == "sgd" else 1)
        assert loss(cell["global_batch_size"], rate) - 2 < 0.03


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_the_path_covers_the_exponent(exponent: float) -> None:
    found = outcomes(RATES, exponent, noise=0.003)
    surface = LossSurface(SPACE, found, Replicates(0.0015, 20), TO_READ)
    rates = best_rates(surface, range(4), BATCHES)
    assert rates is not None
    value, (low, high) = rates.exponent
    assert low < exponent < high
    assert high - low < 0.7
    assert abs(value - exponent) < 0.2


def test_a_path_that_rises_and_then_stays_is_seen_to_turn() -> None:
    batches = (16, 32, 64, 128, 256, 512, 1024, 2048)
    space = Space(tuple({"global_batch_size": b} for b in batches), SPACE.axes)
    rates = [float(rate) for rate in np.geomspace(1e-4, 1e-1, 12)]
    turning = outcomes(rates, 1.0, stays_from=128, space=space, noise=0.001)
    straight = outcomes(rates, 0.5, space=space, noise=0.001)
    found: list[tuple[float | None, float]] = []
    for trials in (turning, straight):
        path = best_rates(LossSurface(space, trials, family=TO_READ), range(8), batches)
        assert path is not None
        assert path.turn is not None
        at, probability = path.turn.at, path.turn.probability
        found.append((at, probability))
    assert found[0][1] > 0.8
    assert found[0][0] in (64, 128, 256)
    assert found[1][1] < 0.5


@pytest.mark.parametrize(("beyond", "falls"), [(0.0, False), (-0.05, False), (-0.4, True)])
def test_a_path_that_falls_beyond_its_turn_does_not_stay(beyond: float, falls: bool) -> None:
    batches = (16, 32, 64, 128, 256, 512)
    log = np.log(np.array(batches) / 64)
    path = 0.5 * np.minimum(log, 0) + beyond * np.maximum(log, 0)
    draws = path + np.random.default_rng(0).normal(0, 0.01, (200, len(batches)))
    turn = BestRates(batches, draws, -5.0, 5.0).turn
    assert turn is not None
    assert (turn.at, turn.falls) == (64, falls)


def test_a_curve_that_rises_towards_an_end_does_not_fall_beyond_it() -> None:
    """Basins so shallow that draws of the surface fall again where no trial holds them."""
    batches = [2**power for power in range(3, 13)]
    rate = Axis("peak_lr", low=1e-4, high=3e-2, log=True)
    space = Space(tuple({"global_batch_size": batch} for batch in batches), (rate,))
    rng = np.random.default_rng(0)
    trials: list[Outcome] = []
    for place in range(200):
        cell = place % 10
        lr = math.exp(rng.uniform(*rate.ends))
        off = math.log(lr / 1e-3) - 0.4 * math.log(batches[cell] / 64)
        value = 2 + 0.03 * off**2 * (2 if off > 0 else 1) + 0.003 * rng.standard_normal()
        trials.append(Outcome(cell, {"peak_lr": lr}, value if off < 2.2 else None))
    path = best_rates(LossSurface(space, trials, family=TO_READ), range(10), batches)
    assert path is not None
    low, high = path.exponent[1]
    assert low < 0.4 < high
    assert high - low < 0.15
    assert all(None not in path.interval(place) for place in range(10))


def test_an_optimum_beyond_the_rates_tried_has_an_open_interval() -> None:
    low = [rate for rate in RATES if rate < 2e-3]
    axis = Axis("peak_lr", low=min(low), high=max(low), log=True)
    space = Space(SPACE.cells, (axis,))
    path = best_rates(
        LossSurface(space, outcomes(low, space=space), family=TO_READ), range(4), BATCHES
    )
    assert path is not None
    lower, upper = path.interval(3)  # its best rate is 8e-3
    assert upper is None
    assert lower is None or lower < 8e-3
    assert math.isclose(path.highest, math.log(max(low)))
    assert [path.edge(place) for place in (0, 2, 3)] == [None, "high", "high"]


@pytest.mark.slow
def test_many_cells_and_hyperparameters_take_no_more_than_memory_has() -> None:
    """Three hundred batch sizes and four other hyperparameters, two hundred trials."""
    cells = tuple({"global_batch_size": batch} for batch in range(1, 301))
    others = tuple(Axis(f"other_{i}", low=0.0, high=1.0) for i in range(4))
    space = Space(cells, (*SPACE.axes, *others))
    rng = np.random.default_rng(0)
    found = [
        Outcome(
            cell, {"peak_lr": 10 ** rng.uniform(-4, -1)} | {a.name: rng.random() for a in others},
            2 + rng.random(),
        )
        for cell in rng.integers(300, size=200).tolist()
    ]  # fmt: skip
    surface = LossSurface(space, found, family=TO_READ)
    assert len(surface.places) <= 300 * 12
    assert len(surface.cells(Limit(ratio=0.01))) == 300
    assert best_rates(surface, range(300), range(1, 301)) is None
    assert best_rates(surface, range(60), range(1, 61)) is not None


@pytest.mark.parametrize(
    "exponent",
    [0.5, 0.25, *(pytest.param(x, marks=[pytest.mark.slow, pytest.mark.ci]) for x in (0.0, 0.7))],
)
def test_carrying_a_rate_costs_what_the_planted_loss_says(exponent: float) -> None:
    """A right rule, 0.5, costs nothing, which its intervals hold."""
    covered: list[bool] = []
    for seed in range(4):
        noisy = outcomes(RATES, noise=0.01, seed=seed)
        surface = LossSurface(SPACE, noisy, family=TO_READ)
        recipes = CarriedRecipes(surface, range(4))
        for base, other in itertools.permutations(range(4), 2):
            ratio = (BATCHES[other] / BATCHES[base]) ** exponent
            draws, outside = recipes.regrets(base, other, math.log(ratio))
            there = loss(BATCHES[other], surface.recipe(other)["peak_lr"])
            truth = loss(BATCHES[other], best_rate(BATCHES[base]) * ratio) - there
            low, high = np.quantile(draws, (0.05, 0.95))
            covered.append(low <= truth <= high)
            assert outside < 0.5
    assert np.mean(covered) >= 0.8


def test_a_rule_that_leaves_the_rates_tried_has_a_lower_bound() -> None:
    recipes = CarriedRecipes(LossSurface(SPACE, outcomes(RATES), family=TO_READ), range(4))
    ratio = 1024 / 16 * 10  # from 1e-3, beyond 1e-1
    draws, outside = recipes.regrets(0, 3, math.log(ratio))
    assert outside == 1
    at_the_end = loss(1024, 1e-1) - 2
    assert np.median(draws) == pytest.approx(at_the_end, rel=0.1)
    assert at_the_end < loss(1024, 1e-3 * ratio) - 2


def test_a_rate_between_the_batch_sizes_tried_is_read_from_the_path() -> None:
    surface = LossSurface(SPACE, outcomes(RATES, noise=0.002), family=TO_READ)
    found = best_rates(surface, [1, 1, 2], [64, 128, 256])
    assert found is not None
    for place, batch in enumerate((64, 128, 256)):
        low, high = found.interval(place)
        assert low is not None
        assert high is not None
        assert low < best_rate(batch) < high
        assert high / low < 3


def test_a_seed_may_add_to_all_its_losses() -> None:
    """Of some trials, in no order, all losses are 0.2 higher."""
    every = outcomes(RATES, noise=0.01)
    other = np.random.default_rng(3).integers(2, size=len(every)).tolist()
    seeds = [
        replace(o, seed=seed, value=(o.value or 0) + 0.2 * seed)
        for o, seed in zip(every, other, strict=True)
    ]
    surface = LossSurface(SPACE, seeds, family=TO_READ)
    assert surface.processes[0].scales.seed > 0
    unsaid = LossSurface(SPACE, [replace(o, seed=0) for o in seeds], family=TO_READ)
    said, blind = (
        sum(loss(b, found.cells(Limit())[cell].point["peak_lr"]) for cell, b in enumerate(BATCHES))
        for found in (surface, unsaid)
    )
    assert said - 2 * len(BATCHES) < 0.05
    assert said < blind


def test_a_cells_depth_says_nothing_of_its_rates() -> None:
    """Losses of each batch over a factor of its own, the highest rates lost: the same surface."""
    cut = [
        replace(o, value=None) if o.point["peak_lr"] > best_rate(BATCHES[o.cell]) * 6 else o
        for o in outcomes(RATES, noise=0.003)
    ]
    factors = [0.05, 0.2, 0.5, 1.0]
    deep = [replace(o, value=o.value and o.value * factors[o.cell]) for o in cut]
    for family in (TO_SEARCH, TO_READ):
        found, expected = (LossSurface(SPACE, each, family=family) for each in (deep, cut))
        for cell in range(len(BATCHES)):
            assert found.recipe(cell)["peak_lr"] == pytest.approx(
                expected.recipe(cell)["peak_lr"], rel=0.2
            )
        widths = [np.quantile(s.draws(s.places), (0.05, 0.95), axis=0) for s in (found, expected)]
        ours, theirs = (np.median(high - low) for low, high in widths)
        assert ours < 1.5 * theirs


def test_a_hyperparameter_may_do_another_thing_in_another_series() -> None:
    """Warming up helps one optimizer and harms the other."""
    cells = tuple({"optimizer": o, "global_batch_size": b} for o in ("a", "b") for b in (16, 64))
    axes = (Axis("peak_lr", low=1e-4, high=1e-1, log=True), Axis("warmup_ratio", choice=(0.0, 0.3)))
    space = Space(cells, axes)
    rng = np.random.default_rng(0)
    tried = [
        Outcome(
            place,
            {"peak_lr": rate, "warmup_ratio": ratio},
            2 * math.exp(
                0.02 * math.log2(rate / 5e-3) ** 2
                + 0.06 * ((ratio > 0) == (cell["optimizer"] == "a"))
                + 0.002 * rng.standard_normal()
            ),
        )
        for place, cell in enumerate(cells)
        for rate, ratio in itertools.product(RATES[2:7], (0.0, 0.3))
    ]  # fmt: skip
    surface = LossSurface(space, tried)
    found = [surface.recipe(place)["warmup_ratio"] for place in range(len(cells))]
    assert found == [0.0, 0.0, 0.3, 0.3]
