"""How few trials a search needs to find every batch size's rate, on tables of finished runs.

    python benchmarks/search_efficiency.py [--table FILE.csv] [--trials 12 16 20 24 40] [--seeds 3]
        [--noise 0 0.001] [--only surface]

The file has columns `bs`, `lr`, `smooth loss`, and makes a table for each distinct (N, D), or
(N, D, Na). Each sampler searches each table through ordinary Optuna trials, which are all it sees
of it: a trial's loss is that of its row, times 1 + noise × a standard normal number that is drawn
for the row. A row that is missing is the nearest one of its batch, as with `task: table`.

- surface: one search over all batch sizes, and the rates that it recommends.
- qmc, tpe, gp, random: each batch size is searched as a study of its own, with an even share of
  the trials, over the index of the table's rates, and the best rate tried is taken; tpe and gp
  start with two random trials. A batch size without a trial takes the rate of the nearest one.

Regret is the loss without noise of the row that is taken, over the best one of its batch size,
less 1. The last line is JSON: by sampler and trials in all, the share of batch sizes whose regret
is at most 0.25%, and the mean regret, both as fractions, over tables and seeds.
"""

import argparse
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

if __name__ != "__main__":  # a worker of the pool, which has one core
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray

TABLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "steplaw_dense.csv"
SAMPLERS = ("surface", "qmc", "tpe", "gp", "random")
NUM_PROCESSES = 2
QUARTER_PERCENT = 0.0025

Picks = Mapping[int, int]
"""The index of the rate that is taken, by that of the batch size."""


@dataclass(frozen=True)
class LossTable:
    """Losses of finished runs.

    Attributes:
        batches: [B] batch sizes, rising.
        rates: [R] learning rates, rising.
        losses: [B, R] in nats; NaN where there is no run, infinite where it diverged.
    """

    batches: tuple[int, ...]
    rates: tuple[float, ...]
    losses: NDArray[np.float64]

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "LossTable":
        """From rows with columns bs, lr and "smooth loss"; of equal ones the lowest loss counts."""
        losses = rows["smooth loss"].fillna(math.inf)
        lowest = losses.groupby([rows["bs"], rows["lr"]]).min().unstack()
        batches, rates = map(int, lowest.index), map(float, lowest.columns)
        return cls(tuple(batches), tuple(rates), lowest.to_numpy(float))

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """[B, R] the index of the nearest rate that the batch size has a run of."""
        along = np.log(self.rates)
        nearest = np.empty(self.losses.shape, dtype=np.int64)
        for batch, losses in enumerate(self.losses):
            (known,) = np.nonzero(~np.isnan(losses))
            away = np.abs(along[:, None] - along[known]).round(9)  # of equal ones the lower rate
            nearest[batch] = known[away.argmin(1)]
        return nearest

    def seen(self, noise: float, seed: int) -> NDArray[np.float64]:
        """[B, R] what a trial finds."""
        drawn = np.random.default_rng((seed, 1)).standard_normal(self.losses.shape)
        return np.take_along_axis(self.losses * (1 + noise * drawn), self.rows, axis=1)

    def regrets(self, picks: Picks) -> NDArray[np.float64]:
        """[B] of the rates taken; a run that diverged counts as the batch size's worst one."""
        finite = np.where(np.isfinite(self.losses), self.losses, np.nan)
        taken = np.array([finite[b, self.rows[b, picks[b]]] for b in range(len(self.batches))])
        taken = np.where(np.isnan(taken), np.nanmax(finite, axis=1), taken)
        return taken / np.nanmin(finite, axis=1) - 1

    def for_all(self, picks: Picks) -> Picks:
        """Picks for every batch size: one without has that of the nearest with one."""
        place = np.log(self.batches)
        return {
            batch: picks[min(picks, key=lambda other: abs(place[other] - place[batch]))]
            for batch in range(len(self.batches))
        }


def read_tables(path: Path) -> list[LossTable]:
    """A table for each size of model and data, without batch sizes that have no run that ended."""
    rows = pd.read_csv(path)
    names = [name for name in ("N", "D", "Na") if name in rows]
    groups = [group for _, group in rows.groupby(names)] if names else [rows]
    tables: list[LossTable] = []
    for group in groups:
        ended = group.groupby("bs")["smooth loss"].transform(lambda loss: np.isfinite(loss).any())
        if ended.any():
            tables.append(LossTable.of(group[ended]))
    return tables


# --- searches -----------------------------------------------------------------------------------


def by_surface(table: LossTable, seen: NDArray[np.float64], num_trials: int, seed: int) -> Picks:
    """One search over all batch sizes, and what it recommends."""
    from scaling.search.sampler import SurfaceSampler

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    num_trials = min(num_trials, int((~np.isnan(table.losses)).sum()))
    lists = {"global_batch_size": table.batches, "peak_lr": table.rates}
    sampler = SurfaceSampler(
        cells=("global_batch_size",), num_trials=num_trials, seed=seed,
        space={n: optuna.distributions.CategoricalDistribution(v) for n, v in lists.items()},
    )  # fmt: skip
    study = optuna.create_study(sampler=sampler)

    def loss(trial: optuna.Trial) -> float:
        batch, rate = (trial.suggest_categorical(n, values) for n, values in lists.items())
        return finite(seen[table.batches.index(batch), table.rates.index(rate)])

    study.optimize(loss, n_trials=num_trials)
    return {
        table.batches.index(batch): table.rates.index(best.point["peak_lr"])
        for (batch,), best in sampler.best(study).items()
    }


def by_studies_of_their_own(
    name: str, table: LossTable, seen: NDArray[np.float64], counts: Sequence[int], seed: int
) -> list[Picks]:
    """Each batch size by itself; the best rate tried, at each number of trials in all."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    num_batches = len(table.batches)
    place_in_line = np.random.default_rng(seed).permutation(num_batches)
    picks: list[dict[int, int]] = [{} for _ in counts]
    for batch in range(num_batches):
        shares = [n // num_batches + (place_in_line[batch] < n % num_batches) for n in counts]
        num_rows = int((~np.isnan(table.losses[batch])).sum())
        study = optuna.create_study(
            sampler=usual_sampler(name, len(table.rates), seed * num_batches + batch)
        )

        def loss(trial: optuna.Trial, batch: int = batch) -> float:
            rate = trial.suggest_int("peak_lr", 0, len(table.rates) - 1)
            return finite(seen[batch, rate])

        study.optimize(loss, n_trials=min(max(shares), num_rows))
        for share, picked in zip(shares, picks, strict=True):
            ended = [t for t in study.trials[:share] if t.value is not None]
            if ended:
                picked[batch] = min(ended, key=lambda t: t.value).params["peak_lr"]
    return [table.for_all(picked) for picked in picks]


class Sobol(optuna.samplers.QMCSampler):
    """Optuna's, from the first trial on: it draws that one at random, to learn the space from."""

    def __init__(self, num_rates: int, seed: int) -> None:
        super().__init__(scramble=True, seed=seed, warn_independent_sampling=False)
        self._space = {"peak_lr": optuna.distributions.IntDistribution(0, num_rates - 1)}

    def infer_relative_search_space(self, *_: Any) -> dict[str, Any]:
        """The one of all trials."""
        return self._space


def usual_sampler(name: str, num_rates: int, seed: int) -> optuna.samplers.BaseSampler:
    """A sampler of Optuna's."""
    match name:
        case "qmc":
            return Sobol(num_rates, seed)
        case "tpe":
            return optuna.samplers.TPESampler(n_startup_trials=2, seed=seed)
        case "gp":
            return optuna.samplers.GPSampler(n_startup_trials=2, seed=seed)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case _:
            raise ValueError(name)


def finite(loss: float) -> float:
    """A loss; NaN, which is a failed trial to Optuna, where the run diverged."""
    return float(loss) if math.isfinite(loss) else math.nan


# --- all of them --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Search:
    """A sampler on a table, with a seed and noise, at some numbers of trials in all."""

    sampler: str
    table: LossTable
    noise: float
    seed: int
    counts: tuple[int, ...]


def searches(
    samplers: Sequence[str], tables: Sequence[LossTable], options: argparse.Namespace
) -> Iterator[Search]:
    """All of them. The surface's depends on how many trials it has, the others' do not."""
    counts = tuple(sorted(set(options.trials)))
    for sampler in samplers:
        runs = [(count,) for count in counts] if sampler == "surface" else [counts]
        for noise in options.noise:
            for table in tables:
                for seed in range(options.seeds):
                    yield from (Search(sampler, table, noise, seed, run) for run in runs)


def regrets_of(search: Search) -> list[NDArray[np.float64]]:
    """[B] regrets at each number of trials."""
    table, seed = search.table, search.seed
    seen = table.seen(search.noise, seed)
    if search.sampler == "surface":
        picks = [by_surface(table, seen, count, seed) for count in search.counts]
    else:
        picks = by_studies_of_their_own(search.sampler, table, seen, search.counts, seed)
    return [table.regrets(picked) for picked in picks]


def measured(found: Sequence[NDArray[np.float64]]) -> dict[str, float]:
    """What is said of the regrets of all tables and seeds."""
    regrets = np.concatenate(found)
    return {
        "share_within_quarter_percent": round(float((regrets <= QUARTER_PERCENT).mean()), 4),
        "mean_regret_ratio": round(float(regrets.mean()), 6),
    }


def main() -> None:
    """Run every search and print how near it came."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--trials", type=int, nargs="+", default=[12, 16, 20, 24, 40])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.001])
    parser.add_argument("--only", choices=SAMPLERS)
    options = parser.parse_args()
    samplers = (options.only,) if options.only else SAMPLERS
    todo = list(searches(samplers, read_tables(options.table), options))
    with ProcessPoolExecutor(NUM_PROCESSES, mp_context=get_context("spawn")) as pool:
        done = list(pool.map(regrets_of, todo))
    found: dict[float, dict[str, dict[str, list[NDArray[np.float64]]]]] = {}
    for search, regrets in zip(todo, done, strict=True):
        by_count = found.setdefault(search.noise, {}).setdefault(search.sampler, {})
        for count, of_count in zip(search.counts, regrets, strict=True):
            by_count.setdefault(str(count), []).append(of_count)
    results: list[dict[str, Any]] = []
    for noise, by_sampler in found.items():
        print(f"noise {noise:.2%}: share of batch sizes within 0.25% (mean regret)")
        results.append({})
        for sampler, by_count in by_sampler.items():
            results[-1][sampler] = {count: measured(of_all) for count, of_all in by_count.items()}
            line = "  ".join(
                f"{count}: {one['share_within_quarter_percent']:.3f} "
                f"({one['mean_regret_ratio']:.3%})"
                for count, one in results[-1][sampler].items()
            )
            print(f"  {sampler:<8} {line}")
    others = {str(noise): one for noise, one in zip(found, results, strict=True)}
    others.pop(str(options.noise[0]))
    print(json.dumps(results[0] | ({"noise": others} if others else {})))


if __name__ == "__main__":
    main()
