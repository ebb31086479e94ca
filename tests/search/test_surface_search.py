"""Rounds follow from earlier rounds alone, reach every cell, and stop when that is enough."""

import optuna
import pytest

from scaling.search.sampler import SurfaceSampler
from scaling.search.surface import SurfaceSearch
from scaling.spec.phases import Stop
from scaling.surface.loss_surface import Outcome
from tests.surface.planted import BATCHES, RATE, SPACE, loss


def run(search: SurfaceSearch) -> list[Outcome]:
    found: list[Outcome] = []
    while proposals := search.next_round(found):
        for cell, point in proposals:
            value = loss(BATCHES[cell], point["peak_lr"])
            found.append(Outcome(cell, point, value if value < 3 else None))
    return found


def test_a_search_finds_each_cells_best_rate_and_is_the_same_again() -> None:
    search = SurfaceSearch(SPACE, num_trials=24, round_size=4, seed=0)
    found = run(search)
    assert len(found) == 24
    assert found == run(search)
    assert found != run(SurfaceSearch(SPACE, num_trials=24, round_size=4, seed=1))
    for batch, best in zip(BATCHES, search.best(found), strict=True):
        assert loss(batch, best.point["peak_lr"]) - 2 < 0.02


@pytest.mark.parametrize("num_trials", [4, 5, 9])
def test_every_cell_has_a_trial_by_its_end(num_trials: int) -> None:
    found = run(SurfaceSearch(SPACE, num_trials=num_trials, round_size=2, seed=3))
    assert {outcome.cell for outcome in found} == set(range(4))
    assert len(found) == num_trials


def test_it_stops_once_every_regret_is_small_enough() -> None:
    patient = SurfaceSearch(SPACE, 60, 4, 0, Stop(regret_at_most=0.2))
    strict = SurfaceSearch(SPACE, 60, 4, 0, Stop(regret_at_most=0.005))
    few, more = run(patient), run(strict)
    assert len(few) < len(more) < 60
    assert all(best.probability >= 0.9 for best in strict.best(more))


def test_a_prior_rate_is_tried_first() -> None:
    search = SurfaceSearch(SPACE, 24, 4, 0, prior_peak_lr=0.0123)
    assert [c for c, point in search.next_round([]) if point["peak_lr"] == 0.0123] in ([1], [2])


def test_trials_of_an_optuna_study_are_those_of_the_search() -> None:
    """The sampler in a study of its own, maximizing, finds every batch's best rate."""
    space = {
        "global_batch_size": optuna.distributions.CategoricalDistribution(BATCHES),
        "peak_lr": optuna.distributions.FloatDistribution(RATE.low, RATE.high, log=True),
    }

    def objective(trial: optuna.Trial) -> float:
        batch = trial.suggest_categorical("global_batch_size", BATCHES)
        return -loss(batch, trial.suggest_float("peak_lr", RATE.low, RATE.high, log=True))

    sampler = SurfaceSampler(("global_batch_size",), num_trials=20, space=space)
    study = optuna.create_study(sampler=sampler, direction="maximize")
    study.optimize(objective, n_trials=20)
    design = SurfaceSearch(SPACE, 20, 1, 0).next_round([])
    tried = [(t.params["global_batch_size"], t.params["peak_lr"]) for t in study.trials]
    assert tried[: len(design)] == [(BATCHES[c], point["peak_lr"]) for c, point in design]
    for (batch,), best in sampler.best(study).items():
        assert loss(batch, best.point["peak_lr"]) - 2 < 0.03
        assert best.value == pytest.approx(-2, abs=0.03)
    assert sampler.best(optuna.create_study()) == {}


def test_an_optuna_study_is_stopped() -> None:
    sampler = SurfaceSampler(
        ("global_batch_size",),
        round_size=4,
        stop=Stop(regret_at_most_ratio=0.05),
    )

    def objective(trial: optuna.Trial) -> float:
        batch = trial.suggest_categorical("global_batch_size", BATCHES)
        return loss(batch, trial.suggest_float("peak_lr", RATE.low, RATE.high, log=True))

    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=60)
    assert 8 < len(study.trials) < 60
    assert {trial.params["global_batch_size"] for trial in study.trials} == set(BATCHES)


@pytest.mark.parametrize("name", ["num_trials", "round_size"])
def test_a_budget_below_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, is 0"):
        SurfaceSampler(**{name: 0})


def test_a_cell_must_be_a_list() -> None:
    sampler = SurfaceSampler(("batch",))
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("batch", 0, 1), n_trials=1)
    with pytest.raises(ValueError, match="cells: batch must be suggested from a list"):
        study.ask({"batch": optuna.distributions.FloatDistribution(0, 1)})
