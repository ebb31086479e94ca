"""A search over sizes: every size has a trial, costs count, and the prediction is near the best."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from scaling.search.ladder import LadderSearch, Size, SizedOutcome
from scaling.spec.phases import Stop
from scaling.surface.ladder.ladder import Ladder

SIZES = tuple(
    Size((n, d), (16, 32, 64, 128, 256, 512), 6 * n * d)
    for n, d in ((1e6, 2e7), (4e6, 8e7), (1.6e7, 3.2e8))
)
ASKED = ((6.4e7, 1.28e9),)
SEARCH = LadderSearch(SIZES, ASKED, rates=(1e-4, 1e-1), num_trials=36, round_size=6, seed=0)


def bottom(n: float, d: float) -> tuple[float, float]:
    """Best rate and batch, planted."""
    return 3e-3 * (n / 4e6) ** -0.4 * (d / 8e7) ** 0.2, 64 * (d / 8e7) ** 0.5


def loss(scale: tuple[float, ...], batch: float, rate: float) -> float | None:
    n, d = scale
    best_rate, best_batch = bottom(n, d)
    u, v = math.log2(rate / best_rate), math.log2(batch / best_batch)
    percent = 0.4 * u**2 * math.exp(0.3 * math.tanh(u)) - 0.2 * u * v + 0.2 * v**2
    return None if percent > 12 else (1.5 + 30 * n**-0.2) * math.exp(percent / 100)


def run(search: LadderSearch) -> list[SizedOutcome]:
    found: list[SizedOutcome] = []
    while proposals := search.next_round(found):
        found += [
            SizedOutcome(n, batch, rate, loss(search.sizes[n].scale, batch, rate))
            for n, batch, rate in proposals
        ]
    return found


@pytest.fixture(scope="module")
def found() -> list[SizedOutcome]:
    return run(SEARCH)


def test_small_runs_tell_where_the_bottom_of_the_large_one_is(found: list[SizedOutcome]) -> None:
    belief = SEARCH.belief(found)
    batch, rate = belief.recipe(ASKED[0], range(1, 4096))
    best_rate, best_batch = bottom(*ASKED[0])
    at_prediction, least = loss(ASKED[0], batch, rate), loss(ASKED[0], best_batch, best_rate)
    assert at_prediction is not None
    assert least is not None
    assert at_prediction / least - 1 < 0.003


def test_it_stops_by_the_regret_that_the_report_shows(found: list[SizedOutcome]) -> None:
    few = found[:18]  # when forms of the way still differ
    belief = SEARCH.belief(few)
    report = Ladder(SEARCH.runs(few), least_batch=16).predict(np.array(ASKED[0]))
    regret = report.expected_regret(report.rate, report.batch)
    assert belief.expected_regret_ratio == regret
    below = float((report.regrets(report.rate, report.batch) <= 0.005).mean())
    assert belief.probability(Stop(regret_at_most_ratio=0.005), 3.0) == below
    assert belief.probability(Stop(regret_at_most=0.015), 3.0) == below


def test_every_size_has_trials_and_no_trial_is_run_twice(found: list[SizedOutcome]) -> None:
    counts = Counter(outcome.size for outcome in found)
    assert len(found) == SEARCH.num_trials
    assert set(counts) == {0, 1, 2}
    assert len({(o.size, o.global_batch_size, o.peak_lr) for o in found}) == len(found)
    assert found == run(SEARCH)
    assert SEARCH.next_round([]) != replace(SEARCH, seed=1).next_round([])


def test_a_size_that_is_dear_gets_fewer_trials_where_operations_are_counted() -> None:
    budget = 10 * SIZES[-1].flops
    search = replace(SEARCH, num_trials=1000, budget_flops=budget)
    found = run(search)
    counts = Counter(outcome.size for outcome in found)
    assert sum(SIZES[o.size].flops for o in found) <= budget
    assert counts[0] > counts[2] >= 1


def test_the_best_recipe_of_a_size_is_near_its_bottom(found: list[SizedOutcome]) -> None:
    batch, rate = SEARCH.belief(found).recipe(SIZES[2].scale, SIZES[2].batches)
    best = min(
        value
        for b in SIZES[2].batches
        for lr in np.geomspace(1e-4, 1e-1, 100)
        if (value := loss(SIZES[2].scale, b, float(lr))) is not None
    )
    reached = loss(SIZES[2].scale, batch, rate)
    assert reached is not None
    assert reached / best - 1 < 0.002


def test_it_stops_once_the_regret_where_it_is_asked_is_small_enough() -> None:
    patient = replace(SEARCH, stop=Stop(regret_at_most_ratio=0.2))
    assert len(run(patient)) < SEARCH.num_trials
    strict = replace(SEARCH, stop=Stop(regret_at_most_ratio=1e-7))
    assert len(run(strict)) == SEARCH.num_trials


def test_a_search_whose_trials_were_all_spent_has_no_design() -> None:
    assert replace(SEARCH, num_trials=0).next_round([]) == []
    assert len(replace(SEARCH, num_trials=2).next_round([])) == 2


def test_a_search_whose_runs_all_diverge_ends() -> None:
    search = replace(SEARCH, num_trials=200)
    outcomes: list[SizedOutcome] = []
    while proposals := search.next_round(outcomes):
        outcomes += [SizedOutcome(n, batch, rate, None) for n, batch, rate in proposals]
    assert min(outcome.peak_lr for outcome in outcomes) == 1e-4
    assert len(outcomes) < 60


def test_a_size_whose_runs_all_diverge_is_tried_at_lower_rates() -> None:
    outcomes = [
        SizedOutcome(n, 64, rate, None if n == 2 else loss(SIZES[n].scale, 64, rate))
        for n in range(3)
        for rate in (1e-3, 1e-2)
    ]
    assert (2, 64, 2.5e-4) in SEARCH.next_round(outcomes)
