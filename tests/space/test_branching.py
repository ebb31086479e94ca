"""Branches are the run that they leave until they leave it, and see equally many examples."""

from typing import Any

import pytest

from scaling.arithmetic.schedules import Schedule
from scaling.space.branches import (
    BranchError,
    branched,
    lr_of_step,
    planned_branches,
    require_branches_fit,
)
from scaling.space.layout import Facts
from scaling.spec.checks.sizes import num_trials
from scaling.spec.issues import StudyFileError
from scaling.spec.read import study_from_mapping
from tests.recipes import changed
from tests.space.test_space import DATA, best_recipes, study

BRANCH = {
    "base_batch_size": 16, "at_examples": [100, 400], "multiples": [1, 2, 8],
    "window_examples": 200, "num_seeds": 2,
}  # fmt: skip
FIXED = {"optimizer": "adamw", "schedule": "cosine"}


def test_all_branches_of_a_point_see_the_same_examples() -> None:
    spec = study(branch=BRANCH, fixed=FIXED)
    planned = planned_branches(spec, best_recipes(spec), DATA)
    assert len(planned) == num_trials(spec)["branch"] == 12
    assert len({trial.trial_id for trial in planned}) == 12
    ends = set()
    for trial in planned:
        recipe = trial.recipe
        assert recipe is not None
        assert recipe.hyperparameters.num_steps is not None
        assert trial.rule == "sqrt"
        assert recipe.hyperparameters.branch_lr_factor == pytest.approx(
            recipe.hyperparameters.branch_multiple**0.5
        )
        start = recipe.hyperparameters.branch_from_examples
        assert start is not None
        assert recipe.hyperparameters.batch_ramp.size_at(start - 1) == 16
        assert (
            recipe.hyperparameters.batch_ramp.size_at(start)
            == 16 * recipe.hyperparameters.branch_multiple
        )
        ends.add(
            (
                start,
                recipe.hyperparameters.batch_ramp.examples_after(recipe.hyperparameters.num_steps),
            )
        )
    # 100 and 400 in whole steps of 16; 200 in whole steps of 16 × 8.
    assert ends == {(112, 112 + 256), (400, 400 + 256)}


def test_the_rate_is_the_trunks_before_and_by_examples_after() -> None:
    spec = study(branch=BRANCH, fixed=FIXED)
    first = planned_branches(spec, best_recipes(spec), DATA)[0].recipe
    assert first is not None
    num_steps = first.hyperparameters.schedule_num_steps
    trunk = changed(first, num_steps=num_steps, branch_from_examples=None)
    branch = branched(trunk, start=160, multiple=4, window=256, rule="linear")

    def trunk_rate(step: float) -> float:
        return trunk.hyperparameters.peak_lr * Schedule(
            "cosine",
            warmup_steps=trunk.hyperparameters.warmup_steps,
            num_steps=trunk.hyperparameters.num_steps,
        ).of_step(step)

    for step in range(10):
        assert lr_of_step(branch.hyperparameters, step=step, examples=16 * step) == trunk_rate(step)
        assert lr_of_step(trunk.hyperparameters, step=step, examples=16 * step) == trunk_rate(step)
    # The third step of the branch starts where the trunk takes its step 10 + 2 × 4.
    assert lr_of_step(branch.hyperparameters, step=12, examples=160 + 2 * 64) == pytest.approx(
        4 * trunk_rate(18)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_batch_size": 32}, "branch.base_batch_size: is not a cell of the study"),
        ({"window_examples": 700}, "passes the end of the base run"),
        ({"at_examples": [97, 100]}, "are the same step of batch 16"),
        ({"multiples": [2, 4]}, "must start with 1"),
        ({"lr_rule": "adam_sde"}, "moves the betas"),
    ],
)
def test_what_cannot_be_branched_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyFileError, match=message):
        study(branch=BRANCH | changes, fixed=FIXED)


def test_a_run_of_growing_batch_or_in_seconds_has_no_branches() -> None:
    with pytest.raises(StudyFileError, match="whose batch does not grow"):
        study(branch=BRANCH, fixed=FIXED | {"batch_ramp_at_examples": [500]})
    with pytest.raises(StudyFileError, match="how many examples"):
        study(branch=BRANCH, budget={"seconds": 5.0}, nuisance={"peak_lr": {"choice": [0.1]}})


def test_a_budget_in_epochs_is_checked_once_the_data_are_known() -> None:
    raw = study(branch=BRANCH).model_dump(mode="json", exclude_unset=True)
    text = {
        "task": "causal_lm",
        "model": {
            "architecture": "llama", "hidden_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 1,
        },
        "data": {"source": "builtin:grapheme_to_phoneme"},
    }  # fmt: skip
    spec = study_from_mapping(raw | {"workload": text, "budget": {"epochs": 1.0}})
    require_branches_fit(spec, Facts(num_train=656, tokens_per_example=5.0))
    with pytest.raises(BranchError, match="at most 384"):
        require_branches_fit(spec, Facts(num_train=640, tokens_per_example=5.0))
