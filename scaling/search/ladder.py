"""What a search over the sizes of a ladder tries next, round after round; pure functions.

The sizes share one valley (`scaling.surface.ladder`) whose bottom moves with the size. A trial is
worth what it makes certain of the bottom at the sizes that are asked for, over what it costs: a
c-optimal design, one trial after the other (Chaloner & Verdinelli 1995, Statistical Science 10).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import block_diag  # pyright: ignore -- scipy ships no types

from scaling.spec.phases import Stop
from scaling.surface.ladder.fit import Valley
from scaling.surface.ladder.ladder import Ladder, Prediction
from scaling.surface.ladder.runs import Runs
from scaling.surface.ladder.valley import NUM_SHAPE, POWER_SD, SHAPE_SD, height
from scaling.surface.ladder.way import OUTPUTS, bottoms_at, covariance_of
from scaling.surface.space import Array

_NUM_RATES = 33
_DESIGN_PER_SIZE = 4
_COST_POWER = 1 / 3
"""Where trials are counted, one of a size that costs eight times as much must tell twice as much.
Where operations are counted, eight times."""
_GROWTH = 0.5
"""Scatter of a run for each percent above half a unit over the bottom."""
_HIGHEST = 1.5
"""Units above the bottom from which on a trial tells nothing."""


@dataclass(frozen=True)
class Size:
    """One size that is searched.

    Attributes:
        scale: Its numbers: parameters, tokens.
        batches: Batch sizes that it can be trained with, rising.
        flops: Of one run.
    """

    scale: tuple[float, ...]
    batches: tuple[int, ...]
    flops: float


@dataclass(frozen=True)
class SizedOutcome:
    """How a trial of a size ended; `loss` is None where it diverged."""

    size: int
    global_batch_size: int
    peak_lr: float
    loss: float | None


SizedProposal = tuple[int, int, float]
"""A size by its place, a batch size and a rate."""


@dataclass(frozen=True)
class LadderBelief:
    """What the trials so far say.

    Attributes:
        ladder: The fit, as the report reads it.
        asked: What it predicts at each size that is asked for.
    """

    ladder: Ladder
    asked: tuple[Prediction, ...]

    def recipe(self, scale: Sequence[float], batches: Sequence[int]) -> tuple[int, float]:
        """The batch, of some that are possible, and the rate that a size should use."""
        predicted = self.ladder.predict(np.array(scale))
        batch = min(batches, key=lambda size: abs(math.log2(size / predicted.batch)))
        return batch, predicted.path([batch])[0].rate

    @property
    def expected_regret_ratio(self) -> float:
        """The largest expected regret over the loss, of the sizes that are asked for."""
        return max(found.expected_regret(found.rate, found.batch) for found in self.asked)

    def probability(self, stop: Stop, loss: float) -> float:
        """How likely the regret at every size that is asked for is small enough."""
        ratio = stop.regret_at_most_ratio
        limit = ratio if ratio is not None else (stop.regret_at_most or 0.0) / loss
        regrets = [found.regrets(found.rate, found.batch) for found in self.asked]
        return float((np.stack(regrets) <= limit).all(axis=0).mean())


@dataclass(frozen=True)
class LadderSearch:
    """A search of all sizes together.

    Attributes:
        sizes: Those that are searched, smallest first.
        asked: The numbers of the sizes that are to be predicted.
        rates: Lowest and highest learning rate.
        num_trials: At most so many; at least one a size.
        round_size: Trials of every round but the first, which is a space-filling design.
        seed: Of the design.
        budget_flops: Operations of all trials together at most; None where only trials count.
        stop: When to end before; None for never.
    """

    sizes: tuple[Size, ...]
    asked: tuple[tuple[float, ...], ...]
    rates: tuple[float, float]
    num_trials: int
    round_size: int
    seed: int
    budget_flops: float | None = None
    stop: Stop | None = None

    def next_round(self, outcomes: Sequence[SizedOutcome]) -> list[SizedProposal]:
        """The trials of the next round; none of them where the search is over.

        Args:
            outcomes: Those of all earlier rounds.
        """
        if self.is_over(outcomes):
            return []
        if not outcomes:
            return self._design()
        count = min(self.round_size, self.num_trials - len(outcomes))
        return self._steps(outcomes, count)

    def is_over(self, outcomes: Sequence[SizedOutcome]) -> bool:
        """Whether the budget is spent, or the regret at the sizes asked for is small enough."""
        left = self._left(outcomes)
        if len(outcomes) >= self.num_trials or all(size.flops > left for size in self.sizes):
            return True
        known = [o.loss for o in outcomes if o.loss is not None and o.size == len(self.sizes) - 1]
        if self.stop is None or not known or self._unknown(outcomes):
            return False
        chance = self.belief(outcomes).probability(self.stop, min(known))
        return chance >= self.stop.with_probability

    def runs(self, outcomes: Sequence[SizedOutcome]) -> Runs:
        """The outcomes as what a valley is fitted to."""
        return Runs(
            rate=np.array([o.peak_lr for o in outcomes]),
            batch=np.array([float(o.global_batch_size) for o in outcomes]),
            loss=np.array([math.nan if o.loss is None else o.loss for o in outcomes]),
            size=np.array([o.size for o in outcomes], dtype=np.intp),
            scales=np.array([size.scale for size in self.sizes]),
        )

    def belief(self, outcomes: Sequence[SizedOutcome]) -> LadderBelief:
        """What the trials say of the sizes asked for; each size searched has a loss."""
        ladder = Ladder(self.runs(outcomes), self._least_batch)
        return LadderBelief(ladder, tuple(ladder.predict(np.array(scale)) for scale in self.asked))

    @property
    def _least_batch(self) -> int:
        return min(batch for size in self.sizes for batch in size.batches)

    def _left(self, outcomes: Sequence[SizedOutcome]) -> float:
        """Operations that may still be spent."""
        if self.budget_flops is None:
            return math.inf
        return self.budget_flops - sum(self.sizes[o.size].flops for o in outcomes)

    def _unknown(self, outcomes: Sequence[SizedOutcome]) -> list[int]:
        """Sizes without a loss."""
        known = {o.size for o in outcomes if o.loss is not None}
        return [n for n in range(len(self.sizes)) if n not in known]

    def _design(self) -> list[SizedProposal]:
        """Some trials of each size, more of those that cost less; quasi-random over the rest."""
        from scipy.stats import qmc  # slow to import, and a plan draws no design

        counts = [1] * len(self.sizes)
        spent = sum(size.flops for size in self.sizes)
        half = math.inf if self.budget_flops is None else self.budget_flops / 2
        order = np.argsort([size.flops for size in self.sizes], kind="stable")
        for more in range(1, _DESIGN_PER_SIZE):
            for n in order:
                flops = self.sizes[n].flops
                has_room = sum(counts) < self.num_trials and spent + flops <= half
                if counts[n] == more and has_room:
                    counts[n], spent = counts[n] + 1, spent + flops
        total = sum(counts)
        net = qmc.Sobol(2, scramble=True, rng=self.seed).random(2 ** max(total - 1, 1).bit_length())
        low, high = map(math.log, self.rates)
        proposals: list[SizedProposal] = []
        for n in range(len(self.sizes)):
            batches = self.sizes[n].batches
            for _ in range(counts[n]):
                share, at = net[len(proposals)]
                rate = math.exp(low + (0.1 + 0.8 * share) * (high - low))
                proposals.append((n, batches[int(at * len(batches))], rate))
        return proposals[: self.num_trials]

    def _steps(self, outcomes: Sequence[SizedOutcome], count: int) -> list[SizedProposal]:
        """The next trials, each the one that tells most for what it costs, given those before."""
        if lower := self._lower(outcomes)[:count]:
            return lower
        if all(outcome.loss is None for outcome in outcomes):
            return []
        left = self._left(outcomes)
        design = _Design.of(self.runs(outcomes), np.array(self.asked), self._least_batch)
        rates = np.geomspace(*self.rates, _NUM_RATES)
        sized = [(n, batch) for n, size in enumerate(self.sizes) for batch in size.batches]
        every = [(*one, float(rate)) for one in sized for rate in rates]
        flops = np.array([self.sizes[n].flops for n, *_ in every])
        cost = (flops / flops.min()) ** (1.0 if self.budget_flops is not None else _COST_POWER)
        tried = {_key(o) for o in outcomes}
        rows, sd = design.rows(every)
        proposals: list[SizedProposal] = []
        for _ in range(count):
            worth = design.worth(rows, sd) / cost
            worth[flops > left] = -1.0
            worth[[n for n, one in enumerate(every) if one in tried]] = -1.0
            best = int(np.argmax(worth))
            if worth[best] < 0:
                break
            proposals.append(every[best])
            tried.add(every[best])
            left -= flops[best]
            design = design.after(rows[best], float(sd[best]))
        return proposals

    def _lower(self, outcomes: Sequence[SizedOutcome]) -> list[SizedProposal]:
        """A quarter of the lowest rate tried, at each size whose runs all diverged."""
        without_loss = self._unknown(outcomes)
        tried_there = ([o for o in outcomes if o.size == n] for n in without_loss)
        lowest = [min(own, key=lambda o: o.peak_lr) for own in tried_there if own]
        proposals = [
            (o.size, o.global_batch_size, max(o.peak_lr / 4, self.rates[0])) for o in lowest
        ]
        tried, left = {_key(o) for o in outcomes}, self._left(outcomes)
        new = [proposal for proposal in proposals if proposal not in tried]
        return new if sum(self.sizes[n].flops for n, *_ in new) <= left else []


def _key(outcome: SizedOutcome) -> SizedProposal:
    return outcome.size, outcome.global_batch_size, outcome.peak_lr


@dataclass(frozen=True)
class _Design:
    """The valley about its fit, linear in the bottoms, floors and walls.

    The parameters are log2 rates of the bottoms of all sizes, searched and asked for, their log2
    batches, the floors of those searched, and the walls.

    Attributes:
        ladder: Fitted to the runs.
        scale: [sizes + asked, axes] octaves above the ladder's middle.
        bottoms: [sizes + asked, 2] expected log2 of the best rate and batch.
        covariance: Of the parameters.
    """

    ladder: Ladder
    scale: Array
    bottoms: Array
    covariance: Array

    @property
    def valley(self) -> Valley:
        """Fitted to the runs."""
        return self.ladder.valley

    @classmethod
    def of(cls, runs: Runs, asked: Array, least_batch: float) -> "_Design":
        """From the runs so far; sizes without a loss have none in the fit, but for their way."""
        known = sorted(set(runs.size[np.isfinite(runs.loss)].tolist()))
        fitted = runs.take(known)
        ladder = Ladder(fitted, least_batch)
        valley, way = ladder.valley, ladder.way
        scales = np.concatenate([runs.scales, asked.reshape(-1, runs.scales.shape[1])])
        scale = np.log2(scales) - valley.middle
        bottoms = way.expected(bottoms_at(scale))
        forms = way.likeliest
        num_searched = len(runs.scales)
        blocks = [
            covariance_of(bottoms_at(scale), output, form)
            for output, form in zip(OUTPUTS, forms, strict=True)
        ]
        walls_sd = np.concatenate([SHAPE_SD, np.full(len(valley.walls) - NUM_SHAPE, POWER_SD)])
        free, steep = valley.unit**2 * np.eye(num_searched), np.diag(walls_sd**2)
        prior: Array = np.asarray(block_diag(*blocks, free, steep))
        design = cls(ladder, scale, bottoms, prior)
        places = np.array(known)[fitted.size]
        at = [
            (int(n), float(batch), float(rate))
            for n, batch, rate in zip(places, fitted.batch, fitted.rate, strict=True)
        ]
        rows, sd = design.rows(at)
        precision = np.linalg.inv(prior) + (rows / sd[:, None] ** 2).T @ rows
        inverse = np.asarray(np.linalg.inv(precision), dtype=np.float64)
        return cls(ladder, scale, bottoms, inverse)

    def rows(self, points: Sequence[tuple[int, float, float]]) -> tuple[Array, Array]:
        """[n, parameters] how each run's loss depends on them, and [n] its scatter, in percent."""
        count, walls = len(self.scale), self.valley.walls
        size = np.array([n for n, *_ in points], dtype=np.intp)
        u = np.log2([lr for *_, lr in points]) - self.bottoms[size, 0]
        v = np.log2([b for _, b, _ in points]) - self.bottoms[size, 1]
        scale = self.scale[size]
        num_floors = len(self.covariance) - 2 * count - len(walls)
        rows = np.zeros((len(points), len(self.covariance)))
        here, step = np.arange(len(points)), 1e-4

        def slope(of_walls: Array, of_u: float, of_v: float) -> Array:
            up = height(walls + step * of_walls, u + step * of_u, v + step * of_v, scale)
            down = height(walls - step * of_walls, u - step * of_u, v - step * of_v, scale)
            return (up - down) / (2 * step)

        still = np.zeros(len(walls))
        rows[here, size] = -slope(still, 1.0, 0.0)
        rows[here, count + size] = -slope(still, 0.0, 1.0)
        rows[here, 2 * count + np.minimum(size, num_floors - 1)] = 1.0
        for k in range(len(walls)):
            rows[:, 2 * count + num_floors + k] = slope(np.eye(len(walls))[k], 0.0, 0.0)
        unit = self.valley.unit
        above = height(walls, u, v, scale)
        sd = np.hypot(self.valley.scatter, _GROWTH * np.maximum(above - unit / 2, 0.0))
        return rows, np.where(above > _HIGHEST * unit, 1e6, sd)

    def worth(self, rows: Array, sd: Array) -> Array:
        """[n] percent by which each run is expected to lower the regret at the sizes asked for."""
        moved = rows @ self.covariance
        spread = sd**2 + (moved * rows).sum(axis=1)
        gains = [
            np.einsum("ni,ij,nj->n", moved[:, own], curve, moved[:, own])
            for own, curve in self._asked()
        ]
        return np.sum(gains, axis=0) / spread

    def after(self, row: Array, sd: float) -> "_Design":
        """What is known after one more run, whatever its loss."""
        moved = self.covariance @ row
        covariance = self.covariance - np.outer(moved, moved) / (sd**2 + row @ moved)
        return _Design(self.ladder, self.scale, self.bottoms, covariance)

    def _asked(self) -> list[tuple[list[int], Array]]:
        """Of each size asked for, which parameters its bottom is, and the valley's curvature.

        Where the bottom lies at batches below the least one, only the best rate at that one counts.
        """
        count, walls = len(self.scale), self.valley.walls
        num_searched = len(self.covariance) - 2 * count - len(walls)
        found: list[tuple[list[int], Array]] = []
        for n in range(num_searched, count):
            a, c = (
                float(height(walls, np.array(u), np.array(v), self.scale[n])) / 1e-4
                for u, v in ((1e-2, 0.0), (0.0, 1e-2))
            )
            tilt = math.tanh(walls[2]) * math.sqrt(a * c)
            if self.bottoms[n, 1] < math.log2(self.ladder.least_batch):
                c = tilt**2 / a
            found.append(([n, count + n], np.array([[a, tilt], [tilt, c]])))
        return found
