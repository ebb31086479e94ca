"""Runs of several sizes: what is left out, the law of losses, formulas, the published table."""

import csv
import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scaling.analysis.ladder.back_test import left_out_sizes, preferred_scale
from scaling.analysis.ladder.formulas import deepseek, formulas, minicpm_batch, step_law
from scaling.analysis.ladder.loss_law import expected_losses
from scaling.analysis.ladder.own_surface import OwnSurface
from scaling.analysis.ladder.question import LadderQuestion
from scaling.analysis.ladder.runs import LadderRun, as_arrays
from scaling.surface.ladder.ladder import Ladder

TABLE = Path(__file__).parents[3] / "shared/data/steplaw_dense.csv"


def test_the_largest_third_is_left_out_while_three_remain() -> None:
    def left_out(count: int) -> int:
        return len(left_out_sizes([(float(2**power),) for power in range(count)]))

    assert [left_out(count) for count in (2, 3, 4, 5, 6, 8, 9)] == [0, 0, 1, 2, 2, 3, 3]
    same = [(1.0, 1.0), (1.0, 2.0), (2.0, 1.0), (2.0, 2.0)]
    assert left_out_sizes(same) == [(2.0, 2.0)]  # the one tie has one of less compute


def test_published_formulas() -> None:
    rate, batch = step_law(429260800, 40e9)
    assert rate == pytest.approx(0.0022519, rel=1e-3)
    assert batch / 2048 == pytest.approx(320.5, rel=1e-3)
    rate, batch = deepseek(1e9, 1e11)
    assert rate == pytest.approx(0.3118 * 6e20**-0.125)
    assert batch == pytest.approx(0.2920 * 6e20**0.3271)
    assert minicpm_batch(2.5) == pytest.approx(1.21e9 / 2.5**6.24)


def test_formulas_need_parameters_tokens_and_the_unit_of_the_batch() -> None:
    size = (1e9, 2e10)
    every = formulas(LadderQuestion(("num_params", "tokens"), (), 2048.0), size, 2.5)
    assert set(every) == {"step_law", "deepseek", "minicpm"}
    swapped = formulas(LadderQuestion(("tokens", "num_params"), (), 2048.0), size[::-1], None)
    assert swapped == {name: every[name] for name in ("step_law", "deepseek")}
    assert formulas(LadderQuestion(("N", "D")), size, 2.5) == {}
    assert formulas(LadderQuestion(("N",), (), 2048.0), (1e9,), 2.5) == {}
    assert formulas(LadderQuestion(("width", "depth"), (), 1.0), size, 2.5) == {}


def test_a_planted_law_of_losses_is_found() -> None:
    sizes = np.array(list(itertools.product((1e8, 3e8, 1e9), (2e9, 8e9, 3e10))))

    def loss(at: np.ndarray) -> np.ndarray:
        return 1.7 + 400 * at[:, 0] ** -0.34 + 410 * at[:, 1] ** -0.28

    noise = np.random.default_rng(0).normal(0, 5e-4, len(sizes))
    target = np.array([[4e9, 1e11]])
    (found,) = expected_losses(sizes, loss(sizes) * np.exp(noise), target.tolist())
    assert found.estimate.value == pytest.approx(float(loss(target)[0]), rel=0.01)
    assert found.estimate.interval is not None
    low, high = found.estimate.interval
    assert low < loss(target)[0] < high


def test_why_no_loss_is_expected() -> None:
    def missing(scales: list[list[float]]) -> str | None:
        losses = np.linspace(3, 2, len(scales))
        return expected_losses(np.array(scales), losses, [scales[0]])[0].missing

    assert missing([[float(n)] for n in range(1, 8)]) == "one_scale"
    assert missing([[float(n), float(n * n)] for n in range(1, 6)]) == "few_sizes"
    assert missing([[float(n), float(n % 2 + 1)] for n in range(1, 8)]) == "same_in_one"


def test_the_count_that_predicts_better_is_preferred() -> None:
    rng = np.random.default_rng(0)

    def runs(counts: list[float]) -> list[LadderRun]:
        return [
            LadderRun(
                (count,), batch, rate,
                3 * count**-0.05 * math.exp(0.003 * (u**2 + v**2) + rng.normal(0, 1e-4)),
            )
            for count, best in zip(counts, (2e-2, 1e-2, 5e-3, 2.5e-3), strict=True)
            for batch in (16, 32, 64, 128, 256)
            for rate in (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
            for u, v in [(math.log2(rate / best), math.log2(batch / 64))]
        ]  # fmt: skip

    even, uneven = [1e6, 4e6, 1.6e7, 6.4e7], [1e6, 1.2e6, 1.3e6, 1e9]
    assert preferred_scale({("n",): runs(even), ("m",): runs(uneven)}) == ("n",)
    assert preferred_scale({("m",): runs(uneven), ("n",): runs(even)}) == ("n",)
    # One size, so that none can be left out: it has no regret, and is not preferred for that.
    one = [replace(run, scale=(1e6,)) for run in runs(even)]
    assert preferred_scale({("n",): runs(even), ("one",): one}) == ("n",)


def test_many_runs_of_a_size_tell_of_recipes_far_from_its_bottom() -> None:
    rng, runs = np.random.default_rng(0), list[LadderRun]()

    def height(rate: float, batch: float) -> float:
        return math.exp(0.004 * math.log2(rate / 3e-3) ** 2 + 0.003 * math.log2(batch / 256) ** 2)

    for rate in np.geomspace(1e-4, 1e-1, 24):
        for batch in np.geomspace(8, 4096, 16).round():
            loss = 2.5 * height(rate, batch) * math.exp(0.001 * rng.standard_normal())
            runs.append(LadderRun((1.0,), int(batch), float(rate), loss))
    # Runs that diverged take no room from those with a loss, and give the rates their end.
    own = OwnSurface([*runs, *(LadderRun((1.0,), 64, 1.0, None) for _ in range(200))])
    for rate, batch in ((1e-1, 256), (3e-2, 2048), (2e-4, 16)):
        assert own.regret(rate, batch).value == pytest.approx(height(rate, batch) - 1, rel=0.1)
    assert (own.regret(1.0, 256).value or 0) > (own.regret(1e-1, 256).value or 0)


def table() -> list[LadderRun]:
    with TABLE.open(encoding="utf-8") as lines:
        return [
            LadderRun(
                (float(row["N"]), float(row["D"])), int(row["bs"]), float(row["lr"]),
                float(row["smooth loss"]),
            )
            for row in csv.DictReader(lines)
        ]  # fmt: skip


def nearest_regret(runs: list[LadderRun], size: tuple[float, ...], rate: float, batch: float):
    """Of the size's own run nearest to a recipe, in percent of its lowest loss."""
    own = [run for run in runs if run.scale == size]
    losses = {(run.peak_lr, run.global_batch_size): run.loss for run in own}
    key = min(losses, key=lambda k: math.log(k[0] / rate) ** 2 + math.log(k[1] / batch) ** 2)
    return 100 * (losses[key] / min(losses.values()) - 1)


def regrets(runs: list[LadderRun], seen: list[LadderRun], sizes: list) -> list[float]:
    ladder = Ladder(as_arrays(seen))
    found = [ladder.predict(np.array(size)) for size in sizes]
    return [nearest_regret(runs, s, f.rate, f.batch) for s, f in zip(sizes, found, strict=True)]


has_table = pytest.mark.skipif(not TABLE.exists(), reason="the shared table is not here")


@has_table
def test_five_small_sizes_predict_three_large_ones() -> None:
    runs = table()
    large = [s for s in sorted({run.scale for run in runs}) if s[0] > 4.5e8 or s[1] > 2.6e10]
    assert len(large) == 3
    seen = [run for run in runs if run.scale not in large]
    assert np.mean(regrets(runs, seen, large)) <= 0.05


@has_table
@pytest.mark.slow
def test_each_size_is_predicted_from_the_others() -> None:
    runs = table()
    sizes = sorted({run.scale for run in runs})
    nearest, own = list[float](), list[float]()
    for size in sizes:
        rest, here = ([r for r in runs if (r.scale == size) is inside] for inside in (False, True))
        found = Ladder(as_arrays(rest)).predict(np.array(size))
        regret = OwnSurface(here).regret(found.rate, found.batch)
        nearest.append(nearest_regret(runs, size, found.rate, found.batch))
        own.append(100 * (regret.value or 0.0))
    assert np.mean(own) <= 0.10
    assert np.mean(nearest) <= 0.10


@has_table
@pytest.mark.slow
@pytest.mark.parametrize(("count", "most"), [(24, 0.15), (16, 0.2)])
def test_few_random_runs_a_size_predict_three_large_ones(count: int, most: float) -> None:
    runs = table()
    large = [s for s in sorted({run.scale for run in runs}) if s[0] > 4.5e8 or s[1] > 2.6e10]
    rng, found = np.random.default_rng(0), list[float]()
    for _ in range(8):
        seen: list[LadderRun] = []
        for size in sorted({run.scale for run in runs}):
            own = [run for run in runs if run.scale == size]
            if size not in large:
                seen += [own[n] for n in rng.choice(len(own), count, replace=False)]
        found += regrets(runs, seen, large)
    assert np.mean(found) <= most
