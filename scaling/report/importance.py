"""How much each nuisance hyperparameter mattered to the search, by Optuna's importance."""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scaling.analysis.statistics.uncertainty import Estimate, bounded, mean_estimate, t_quantile
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.records.study import StudyRecord
from scaling.search.distributions import optuna_distributions
from scaling.spec.phases import TO_TARGET

MIN_TRIALS = 10
"""Finished search trials that a cell needs."""
MOST_TRIALS = 100
"""Trials of a cell that one forest is grown from; its cost grows faster than they do."""
_GROUPS = 10
_SEED = 0


@dataclass(frozen=True)
class Importance:
    """Shares of the variance of the objective over the search space.

    Attributes:
        shares: By hyperparameter, the largest first, each with its 90% interval; empty where the
            data do not allow any.
        by_cell: The same in each cell that has enough trials, by the cell's place in the sweep.
        num_trials: Finished search trials behind them.
        note: Where the intervals are from, or why there are no shares.
    """

    shares: Mapping[str, Estimate]
    by_cell: Mapping[int, Mapping[str, float]]
    num_trials: int
    note: str


def importance_of(study: StudyRecord, sweep: Sweep) -> Importance:
    """Functional ANOVA of each cell's search, averaged over cells.

    In each cell with at least `MIN_TRIALS` finished trials a random forest is fitted to the
    objective (Optuna's `FanovaImportanceEvaluator`, seed fixed) and the variance that each
    hyperparameter explains alone, over its whole range, is divided by the sum over all of them.
    Diverged and failed trials have no objective and are left out. Where the objective is steps or
    examples to the target, trials count by their rank, since a censored one has no number.

    Returns:
        Means over cells with Student's t over cells, which are independent searches; with one
        cell, the interval of a grouped jackknife over its trials. No shares with fewer than two
        hyperparameters or without a cell with enough trials.

    Source: Hutter et al. 2014 (ICML, An efficient approach for assessing hyperparameter
        importance); jackknife, Efron & Tibshirani 1993, An introduction to the bootstrap, ch. 11.
    """
    distributions = optuna_distributions(study.spec)
    if len(distributions) < 2:
        return _absent("fewer than two hyperparameters were searched")
    finished = [_finished(sweep.rows_of(cell, "search"), distributions) for cell in sweep.cells]
    by_rank = sweep.objective in TO_TARGET
    finished = [_ranked(rows) for rows in finished] if by_rank else finished
    enough = {place: rows for place, rows in enumerate(finished) if len(rows) >= MIN_TRIALS}
    with _quiet():
        by_cell = {p: s for p, rows in enough.items() if (s := _shares(rows, distributions))}
        if not by_cell:
            return _absent(f"not enough data: no cell has {MIN_TRIALS} finished trials")
        if len(by_cell) > 1:
            shares = {
                name: bounded(mean_estimate([cell[name] for cell in by_cell.values()]), 0, 1)
                for name in next(iter(by_cell.values()))
            }
            note = f"Intervals: Student's t over {len(by_cell)} cells."
        else:
            place = next(iter(by_cell))
            shares = _jackknife(enough[place], by_cell[place], distributions)
            note = f"Intervals: jackknife over {_GROUPS} groups of trials."
    note += " Trials count by their rank, since the objective has no scale." if by_rank else ""
    ordered = sorted(shares.items(), key=lambda item: -(item[1].value or 0.0))
    num_trials = sum(len(enough[place]) for place in by_cell)
    return Importance(dict(ordered), by_cell, num_trials, note)


def _absent(why: str) -> Importance:
    return Importance({}, {}, 0, why)


def _finished(
    rows: Sequence[TrialRow], distributions: Mapping[str, Any]
) -> list[tuple[dict[str, Any], float]]:
    """Choices and objective of the trials that ran to their budget."""
    return [
        ({name: row.choices[name] for name in distributions}, row.objective)
        for row in rows
        if row.status == "done"
        and row.objective is not None
        and all(name in row.choices for name in distributions)
    ]


def _ranked(trials: Sequence[tuple[dict[str, Any], float]]) -> list[tuple[dict[str, Any], float]]:
    """The trials with their place in the order of the objective; equals share a place."""
    places = {value: place for place, value in enumerate(sorted({v for _, v in trials}))}
    return [(choices, float(places[value])) for choices, value in trials]


def _shares(
    trials: Sequence[tuple[dict[str, Any], float]], distributions: Mapping[str, Any]
) -> dict[str, float]:
    """Importance in one search; empty when its objective or its choices never differ."""
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    if len({objective for _, objective in trials}) < 2:
        return {}
    every = math.ceil(len(trials) / MOST_TRIALS)
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={n: _inside(v, distributions[n]) for n, v in choices.items()},
                distributions=dict(distributions),
                value=objective,
            )
            for choices, objective in trials[::every]
        ]
    )
    found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=_SEED))
    return {name: float(found.get(name, 0.0)) for name in distributions} if found else {}


def _inside(value: Any, distribution: Any) -> Any:
    """The value, without the rounding that may have put it a hair outside of its bounds."""
    if hasattr(distribution, "low"):
        return min(max(value, distribution.low), distribution.high)
    return value


def _jackknife(
    trials: Sequence[tuple[dict[str, Any], float]],
    whole: Mapping[str, float],
    distributions: Mapping[str, Any],
) -> dict[str, Estimate]:
    """Shares of one search with an interval from leaving out a tenth of the trials at a time."""
    parts = [
        _shares([t for place, t in enumerate(trials) if place % _GROUPS != group], distributions)
        for group in range(_GROUPS)
    ]
    estimates: dict[str, Estimate] = {}
    for name, value in whole.items():
        values = [part[name] for part in parts if part]
        mean, count = fmean(values), len(values)
        squares = sum((v - mean) ** 2 for v in values)
        half = t_quantile(count - 1) * math.sqrt((count - 1) / count * squares)
        estimates[name] = bounded(Estimate(value, (value - half, value + half), len(trials)), 0, 1)
    return estimates


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says on stderr that it makes a study, and warns of what is experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
