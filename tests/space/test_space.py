"""Cells, designs and resolved recipes."""

import math
from dataclasses import replace
from typing import Any

import pytest

from scaling.arithmetic.batching import BatchRamp
from scaling.records.outcome import BestRecipe
from scaling.records.recipe import Layout
from scaling.space.budget import num_steps_of
from scaling.space.cells import cell_places, cell_seed, cells, hyperparameters
from scaling.space.designs import design
from scaling.space.layout import Facts
from scaling.space.recipe import resolve
from scaling.space.trials import planned_replicates, planned_search
from scaling.spec.checks.sizes import num_trials
from scaling.spec.read import study_from_mapping

DATA = Facts(num_train=1000, tokens_per_example=10.0)


def study(**changes: Any) -> Any:
    raw: dict[str, Any] = {
        "name": "s", "question": "q?", "workload": {"task": "noisy_quadratic"},
        "scientific": {"global_batch_size": [16, 64]},
        "nuisance": {
            "peak_lr": {"log_uniform": [1e-3, 1e-1]}, "warmup_ratio": {"choice": [0.0, 0.1]},
        },
        "budget": {"examples": 1000}, "evaluation": {"every_steps": 5},
        "search": {"trials_per_cell": 8},
    }  # fmt: skip
    return study_from_mapping(raw | changes)


@pytest.mark.parametrize("sampler", ["qmc", "random"])
def test_a_design_is_known_beforehand_and_within_its_ranges(sampler: str) -> None:
    spec = study(search={"trials_per_cell": 8, "sampler": sampler})
    first, second = (design(spec, cell, {}) for cell in cells(spec))
    assert first == design(spec, {"global_batch_size": 16}, {})
    assert first != second
    assert first is not None
    assert len(first) == 8
    assert all(1e-3 <= point["peak_lr"] <= 1e-1 for point in first)
    assert {point["warmup_ratio"] for point in first} == {0.0, 0.1}
    assert design(study(seed=1, search=spec.search.model_dump()), cells(spec)[0], {}) != first


@pytest.mark.parametrize("sampler", ["qmc", "random"])
@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_more_trials_begin_with_those_of_fewer(sampler: str, count: int) -> None:
    few, many = (
        design(
            study(search={"trials_per_cell": n, "sampler": sampler}), {"global_batch_size": 16}, {}
        )
        for n in (count, 9)
    )
    assert few is not None
    assert many is not None
    assert many[:count] == few


def test_cells_keep_their_places_when_others_come_between_them() -> None:
    axes = {"global_batch_size": [16, 64], "momentum": [0.0, 0.5]}
    before = study(scientific=axes, fixed={"optimizer": "sgd"})
    first = cell_places(before, {})
    assert list(first.values()) == [0, 1, 2, 3]
    axes = {"global_batch_size": [8, 16, 64], "momentum": [0.0, 0.9, 0.5]}
    now = study(scientific=axes, fixed={"optimizer": "sgd"})
    places = cell_places(now, first)
    assert places.items() >= first.items()
    assert sorted(set(places.values())) == sorted(places.values())
    assert len(places) == 9
    assert cell_places(now, places) == places
    for cell in cells(before):
        assert design(now, cell, places) == design(before, cell, {})


def test_qmc_spreads_over_the_logarithm_evenly() -> None:
    points = design(study(), {"global_batch_size": 64}, {})
    assert points is not None
    eighths = sorted(int((math.log10(point["peak_lr"]) + 3) / 2 * 8) for point in points)
    assert eighths == list(range(8))


def test_grid_is_every_combination_and_tpe_is_not_known_beforehand() -> None:
    nuisance = {"peak_lr": {"choice": [0.1, 0.2]}, "warmup_ratio": {"choice": [0.0, 0.1, 0.2]}}
    spec = study(nuisance=nuisance, search={"sampler": "grid", "trials_per_cell": 6})
    points = design(spec, cells(spec)[0], {})
    assert points is not None
    assert len({tuple(point.items()) for point in points}) == 6
    assert (
        design(study(search={"sampler": "tpe", "trials_per_cell": 3}), cells(spec)[0], {}) is None
    )


def test_a_recipe_is_resolved() -> None:
    spec = study(
        budget={"examples": 1000, "min_steps": 20},
        resources={"num_workers": 2, "micro_batch_size": 12},
    )
    cell = {"global_batch_size": 64}
    recipe = resolve(
        spec,
        hyperparameters(spec, cell, {"peak_lr": 0.01, "warmup_ratio": 0.1}),
        seed=3,
        facts=DATA,
    )
    assert recipe.hyperparameters.num_steps == 20  # 1000 / 64 rounds up to 16, min_steps has 20
    assert recipe.hyperparameters.warmup_steps == 2
    assert recipe.layout == Layout(world_size=2, micro_batch_size=8, grad_accum_steps=4)
    assert (recipe.seed, recipe.hyperparameters.peak_lr) == (3, 0.01)
    assert recipe.hyperparameters.clip_norm is None


@pytest.mark.parametrize(
    ("budget", "num_steps"),
    [
        ({"steps": 7}, 7),
        ({"examples": 65}, 5),
        ({"tokens": 1601}, 11),
        ({"epochs": 0.5}, 32),
        ({"seconds": 5.0}, None),
    ],
)
def test_budgets_round_up(budget: dict[str, Any], num_steps: int | None) -> None:
    spec = study(nuisance={"peak_lr": {"choice": [0.1]}})
    spec = spec.model_copy(update={"budget": spec.budget.__class__(**budget)})
    values = hyperparameters(spec, {"global_batch_size": 16}, {"peak_lr": 0.1})
    assert resolve(spec, values, seed=0, facts=DATA).hyperparameters.num_steps == num_steps


def test_a_budget_in_tokens_needs_tokens() -> None:
    spec = study().model_copy(update={"budget": study().budget.__class__(tokens=1000)})
    with pytest.raises(ValueError, match=r"budget\.tokens: the examples have no tokens"):
        num_steps_of(spec, BatchRamp(16), replace(DATA, tokens_per_example=None))


def test_base_lr_is_carried_by_its_rule() -> None:
    spec = study(
        nuisance={
            "base_lr": {"log_uniform": [1e-3, 1e-1]},
            "lr_scaling_rule": {"choice": ["linear", "sqrt"]},
        },
        fixed={"base_batch_size": 16},
    )  # fmt: skip
    choices = {"base_lr": 0.01, "lr_scaling_rule": "linear"}
    values = hyperparameters(spec, {"global_batch_size": 64}, choices)
    recipe = resolve(spec, values, seed=0, facts=DATA)
    assert recipe.hyperparameters.peak_lr == pytest.approx(0.04)
    assert recipe.origin.base_lr == 0.01


def test_a_batch_that_grows_is_resolved_to_where_it_does() -> None:
    spec = study(nuisance={"peak_lr": {"choice": [0.1]}}, search={"trials_per_cell": 1})
    cell = {"global_batch_size": 16}

    def resolved(**choices: Any) -> Any:
        values = hyperparameters(spec, cell, {"peak_lr": 0.1, **choices})
        return resolve(spec, values, seed=0, facts=DATA).hyperparameters

    ramped = resolved(batch_ramp_every_examples=300, batch_ramp_factor=3, warmup_examples=400)
    # 19 of 16 (304), 7 of 48 (640), 2 of 144 (928), 1 of 432: the budget is 1000 examples.
    assert ramped.batch_ramp_at_examples == (300, 600, 900)
    assert (ramped.num_steps, ramped.warmup_steps) == (29, 21)
    assert resolved().batch_ramp_at_examples == ()
    assert resolved(batch_ramp_at_examples=(500,)).num_steps == 32 + 16


@pytest.mark.parametrize(
    ("batch", "warmup", "steps"),
    [
        (16, {"warmup_examples": 100}, 7),
        (64, {"warmup_examples": 100}, 2),
        (64, {"warmup_examples": 0}, 0),
        (16, {"warmup_ratio": 0.07}, 5),
        (16, {"warmup_steps": 3}, 3),
        (16, {}, 0),
    ],
)
def test_warmup_in_steps(batch: int, warmup: dict[str, Any], steps: int) -> None:
    spec = study(nuisance={"peak_lr": {"choice": [0.1]}}, search={"trials_per_cell": 1})
    values = hyperparameters(spec, {"global_batch_size": batch}, {"peak_lr": 0.1, **warmup})
    assert resolve(spec, values, seed=0, facts=DATA).hyperparameters.warmup_steps == steps


@pytest.mark.parametrize(
    ("optimizer", "momentum", "beta2", "eps"),
    [
        ("adamw", 0.0, 0.999, 1e-8),
        ("sgd", 0.0, 0.999, 1e-8),
        ("lamb", 0.0, 0.999, 1e-6),
        ("lars", 0.9, 0.999, 1e-8),
        ("lion", 0.0, 0.99, 1e-8),
        ("muon", 0.95, 0.95, 1e-8),
    ],
)
def test_what_is_left_out_is_what_the_optimizers_paper_uses(
    optimizer: str, momentum: float, beta2: float, eps: float
) -> None:
    spec = study()
    choices = {"peak_lr": 0.1, "optimizer": optimizer}
    recipe = resolve(
        spec, hyperparameters(spec, {"global_batch_size": 16}, choices), seed=0, facts=DATA
    )
    found = recipe.hyperparameters
    assert (found.momentum, found.beta2, found.eps) == (momentum, beta2, eps)
    given = hyperparameters(spec, {"global_batch_size": 16}, choices | {"beta2": 0.5})
    assert resolve(spec, given, seed=0, facts=DATA).hyperparameters.beta2 == 0.5


def test_what_moves_beside_the_rate() -> None:
    spec = study(
        nuisance={"base_lr": {"log_uniform": [1e-3, 1e-1]}},
        fixed={
            "base_batch_size": 16, "lr_scaling_rule": "sqrt", "weight_decay": 0.1,
            "weight_decay_scaling": "timescale", "beta2_scaling": "token_half_life",
            "warmup_steps": 10, "warmup_scaling": "examples",
        },
    )  # fmt: skip
    values = hyperparameters(spec, {"global_batch_size": 64}, {"base_lr": 0.01})
    recipe = resolve(spec, values, seed=0, facts=DATA)
    assert recipe.hyperparameters.peak_lr == pytest.approx(0.02)
    assert recipe.hyperparameters.weight_decay == pytest.approx(0.2)
    assert recipe.hyperparameters.beta2 == pytest.approx(0.999**4)
    assert recipe.hyperparameters.warmup_steps == 3  # 2.5 rounded up
    sde = replace(values, origin=replace(values.origin, lr_scaling_rule="adam_sde"))
    with pytest.raises(ValueError, match="adam_sde moves beta2 itself"):
        resolve(spec, sde, seed=0, facts=DATA)


def test_transfer_moves_more_than_the_rate_where_fixed_says_so() -> None:
    spec = study(
        fixed={
            "weight_decay": 0.1, "weight_decay_scaling": "timescale", "warmup_steps": 8,
            "warmup_scaling": "examples", "beta2_scaling": "token_half_life",
        },
        nuisance={"peak_lr": {"log_uniform": [1e-3, 1e-1]}},
        transfer={"base_batch_size": 16, "rules": ["none", "surge(32)"], "num_seeds": 1},
    )  # fmt: skip
    best = best_recipes(spec)
    first = best[0].recipe.hyperparameters
    assert (first.weight_decay, first.warmup_steps) == (0.1, 8)
    trials, refused = planned_replicates(spec, best, DATA)
    assert not refused
    none, surged = (trial.recipe.hyperparameters for trial in trials if trial.recipe)
    assert none.weight_decay == pytest.approx(0.4)
    assert surged.peak_lr == pytest.approx(none.peak_lr)  # B_noise lies half-way between
    assert none.beta2 == pytest.approx(0.999**4)
    assert none.warmup_steps == 2


def test_cell_recipes_win_over_fixed() -> None:
    spec = study(
        nuisance={}, fixed={"weight_decay": 0.1}, search={"trials_per_cell": 1},
        cell_recipes=[
            {"cell": {"global_batch_size": 16}, "fixed": {"peak_lr": 0.1}},
            {"cell": {"global_batch_size": 64}, "fixed": {"peak_lr": 0.3, "clip_norm": None}},
        ],
    )  # fmt: skip
    rates = [
        trial.recipe.hyperparameters.peak_lr for trial in planned_search(spec, DATA) if trial.recipe
    ]
    assert rates == [0.1, 0.3]


def best_recipes(spec: Any) -> list[BestRecipe]:
    firsts = planned_search(spec, DATA)[:: spec.search.trials_per_cell]
    return [BestRecipe.of_trial(trial.record()) for trial in firsts]


def test_transfer_carries_the_base_recipe_with_paired_seeds() -> None:
    spec = study(
        scientific={"global_batch_size": [16, 64, 256]},
        fixed={"optimizer": "adamw"},
        transfer={"base_batch_size": 16, "rules": ["none", "sqrt", "adam_sde"], "num_seeds": 2},
        confirm={"num_seeds": 2},
    )  # fmt: skip
    best = best_recipes(spec)
    trials, refused = planned_replicates(spec, best, DATA)
    transfer = [trial for trial in trials if trial.phase == "transfer"]
    confirm = [trial for trial in trials if trial.phase == "confirm"]
    assert {t.recipe.seed for t in trials if t.recipe} == {1, 2}
    assert spec.seed not in {t.recipe.seed for t in trials if t.recipe}
    base_lr = best[0].recipe.hyperparameters.peak_lr
    recipes = [(t.rule, t.recipe.hyperparameters) for t in transfer if t.recipe]
    rates = {(rule, of.global_batch_size): of.peak_lr for rule, of in recipes}
    assert rates["none", 256] == base_lr
    assert rates["sqrt", 256] == pytest.approx(4 * base_lr)
    assert rates["adam_sde", 64] == pytest.approx(2 * base_lr)
    assert all(t.cell != {"global_batch_size": 16} for t in transfer)
    # At kappa = 16 Adam-SDE would need beta1 = -0.6: refused, and the rest goes on.
    assert [(rule, batch) for rule, batch, _ in refused] == [("adam_sde", 256)]
    assert len(transfer) == (3 * 2 - 1) * 2
    assert [t.recipe.hyperparameters.peak_lr for t in confirm if t.recipe][::2] == [
        b.recipe.hyperparameters.peak_lr for b in best
    ]
    counts = num_trials(spec)
    assert counts == {"search": 24, "transfer": 12, "confirm": 6}


def test_a_cell_without_any_finite_trial_has_no_replicates() -> None:
    spec = study(confirm={"num_seeds": 2})
    trials, _ = planned_replicates(spec, best_recipes(spec)[:1], DATA)
    assert {trial.cell["global_batch_size"] for trial in trials} == {16}


def test_a_cells_seed_goes_by_its_place_in_the_study() -> None:
    spec = study(scientific={"global_batch_size": [16, 64, 256], "weight_decay": [0.0, 0.1]})
    for place, cell in enumerate(cells(spec)):
        assert cell_seed(spec, cell, {}) == (spec.seed * 10_007 + place) % 2**32
