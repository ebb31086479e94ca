"""A recipe carried to another size by its rules."""

import math
from dataclasses import replace

import pytest

from scaling.analysis.ladder.carried import carried
from scaling.records.recipe import Hyperparameters, Layout, Recipe

RUN = Recipe(
    seed=0,
    hyperparameters=Hyperparameters(
        optimizer="adamw", global_batch_size=64, peak_lr=2e-3, num_steps=1000, warmup_steps=50,
        weight_decay=0.1, beta2=0.95, clip_norm=1.0,
    ),
    layout=Layout(micro_batch_size=64),
)  # fmt: skip
EXAMPLES = 64_000.0


def test_four_times_the_data_at_twice_the_batch() -> None:
    found = carried(RUN, EXAMPLES, 4 * EXAMPLES, 128, 1e-3)
    given = found.recipe.hyperparameters
    assert (given.global_batch_size, given.peak_lr, given.num_steps) == (128, 1e-3, 2000)
    assert (given.warmup_steps, given.clip_norm) == (100, 1.0)
    # The timescale in epochs: rate × decay × steps.
    assert 1e-3 * given.weight_decay * 2000 == pytest.approx(2e-3 * 0.1 * 1000)
    # The half-life in examples: batch × ln ½ / ln beta2.
    assert 128 / math.log(given.beta2) == pytest.approx(64 / math.log(0.95))
    assert found.source is RUN


def test_the_same_run_is_carried_to_itself() -> None:
    given = carried(RUN, EXAMPLES, EXAMPLES, 64, 2e-3).recipe.hyperparameters
    assert given == replace(
        RUN.hyperparameters, weight_decay=pytest.approx(0.1), beta2=pytest.approx(0.95)
    )


def test_what_an_optimizer_does_not_read_stays() -> None:
    sgd = replace(RUN, hyperparameters=replace(RUN.hyperparameters, optimizer="sgd"))
    given = carried(sgd, EXAMPLES, EXAMPLES, 256, 1e-3).recipe.hyperparameters
    assert given.beta2 == 0.95


def test_a_value_that_its_rule_takes_too_far_stays() -> None:
    given = carried(RUN, EXAMPLES, EXAMPLES / 1000, 64, 2e-3).recipe.hyperparameters
    assert given.num_steps == 1
    assert given.weight_decay == pytest.approx(100)  # rate × decay is 0.2: still inside
    given = carried(RUN, EXAMPLES, EXAMPLES / 10_000, 64, 2e-3).recipe.hyperparameters
    assert given.weight_decay == 0.1  # it would be 2 a step
