"""What a size's own runs say of a recipe there, whatever was predicted for it."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from scaling.analysis.ladder.runs import LadderRun
from scaling.analysis.statistics.uncertainty import TAILS, Estimate
from scaling.surface.covariance import TO_READ
from scaling.surface.loss_surface import LossSurface, Outcome
from scaling.surface.space import BATCH, RATE, Array, Axis, Space

_MOST_RUNS = 150
_NUM_RATES, _NUM_BATCHES = 25, 15
_NUM_DRAWS = 400


class OwnSurface:
    """The loss surface through the runs of one size: its least loss, and the regret of recipes.

    Attributes:
        best: The medians of rate and batch where drawn surfaces are lowest: near a flat bottom
            the least of one surface may lie anywhere.
    """

    def __init__(self, runs: Sequence[LadderRun]) -> None:
        """The surface; some of the runs have a loss."""
        kept = _thinned(runs)
        rates_tried = [run.peak_lr for run in runs]
        self._rates = min(rates_tried), max(rates_tried)
        self._batches = sorted({run.global_batch_size for run in kept})
        rate = Axis(RATE, low=self._rates[0], high=self._rates[1], log=True)
        space = Space(tuple({BATCH: size} for size in self._batches), (rate,))
        outcomes = [
            Outcome(
                self._batches.index(run.global_batch_size), {RATE: run.peak_lr}, run.loss,
                seed=run.seed,
            )
            for run in kept
        ]  # fmt: skip
        self._surface = LossSurface(space, outcomes, family=TO_READ)
        rates = np.geomspace(*self._rates, _NUM_RATES)
        batches = np.geomspace(self._batches[0], self._batches[-1], _NUM_BATCHES)
        recipes = [(float(rate), float(batch)) for rate in rates for batch in batches]
        drawn = np.log(self._drawn(recipes))
        means = drawn.mean(axis=0)
        self._lowest = recipes[int(means.argmin())]
        self.loss = float(np.exp(means.min()))
        bottoms = np.log(np.array(recipes))[drawn.argmin(axis=1)]
        rate, batch = np.exp(np.median(bottoms, axis=0))
        self.best = float(rate), float(batch)

    def regret(self, rate: float, batch: float) -> Estimate:
        """The loss at a recipe over the least one, minus 1.

        A recipe outside what was tried at this size counts as the nearest one inside. Drawn
        surfaces are compared with the recipe that is best on average: the least loss of each draw
        would be below both. No regret is below 0.
        """
        inside = (
            float(np.clip(rate, *self._rates)),
            float(np.clip(batch, self._batches[0], self._batches[-1])),
        )
        drawn = np.log(self._drawn([inside, self._lowest]))
        ratios = np.maximum(np.expm1(drawn[:, 0] - drawn[:, 1]), 0.0)
        value = max(float(np.expm1(np.mean(drawn[:, 0] - drawn[:, 1]))), 0.0)
        low, high = np.quantile(ratios, TAILS)
        return Estimate(value, (min(float(low), value), max(float(high), value)))

    def _drawn(self, recipes: Sequence[tuple[float, float]]) -> Array:
        """[draws, n] losses at recipes of rate and batch."""
        space = self._surface.space
        at = space.coordinates([(0, {RATE: rate}) for rate, _ in recipes])
        logs = np.log(np.array([batch for _, batch in recipes]))
        nearest = np.abs(logs[:, None] - np.log(np.array(self._batches))).argmin(axis=1)
        batch = np.array([space.batch_place(size) for _, size in recipes])
        return self._surface.loss_draws(replace(at, batch=batch), nearest, _NUM_DRAWS)


def _thinned(runs: Sequence[LadderRun]) -> list[LadderRun]:
    """The runs, lowest loss first; of too many, evenly over batches and rates.

    The lowest ones alone would say nothing of a recipe far from the bottom. Runs that diverged
    have what room is left.
    """
    known = sorted((run for run in runs if run.loss is not None), key=lambda run: run.loss or 0.0)
    lost = [run for run in runs if run.loss is None]
    kept = _evenly(known, _MOST_RUNS)
    return kept + _evenly(lost, _MOST_RUNS - len(kept))


def _evenly(runs: Sequence[LadderRun], most: int) -> list[LadderRun]:
    if len(runs) <= most:
        return list(runs)
    order = sorted(runs, key=lambda run: (run.global_batch_size, run.peak_lr))
    return [order[n] for n in np.linspace(0, len(order) - 1, most).round().astype(int)]
