"""What is said of runs of several sizes."""

import math
from dataclasses import replace

import pytest

from scaling.analysis.ladder.back_test import LeftOut
from scaling.analysis.ladder.carried import carried
from scaling.analysis.ladder.check import CheckedRecipe, LadderCheck
from scaling.analysis.ladder.loss_law import ExpectedLoss
from scaling.analysis.ladder.question import LadderQuestion
from scaling.analysis.ladder.reading import FittedSize, LadderReading, PredictedSize, read_ladder
from scaling.analysis.ladder.runs import LadderRun, Problem
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.records.recipe import Hyperparameters, Layout, Recipe
from scaling.report.ladder_summary import ladder_summary, predicted_recommendation
from scaling.report.words.carried import carried_words
from scaling.report.words.ladder import (
    check_words,
    exponent_words,
    ladder_headline,
    percent,
    problem_words,
    recommendation_reason,
    size_words,
)

QUESTION = LadderQuestion(("N", "D"))
FITTED = FittedSize((1e8, 2e9), 64.0, (50.0, 80.0), 1e-3, (8e-4, 1.2e-3), 2.5)
SIZE = PredictedSize(
    (1e9, 2e10), 256, (200.0, 330.0), 5e-4, (4e-4, 6e-4), 2e-4, 100.0, (),
    ExpectedLoss(Estimate(2.1, (2.05, 2.2))), is_interpolated=False,
)  # fmt: skip
TESTED = LeftOut(
    (1e8, 2e9), 60.0, (50.0, 70.0), 1e-3, (8e-4, 1.2e-3), 62.0, 1.1e-3,
    Estimate(3e-4, (0.0, 9e-4)), Estimate(2e-3, (1e-3, 3e-3)), {},
)  # fmt: skip


def reading(*tested: LeftOut, predictions: tuple[PredictedSize, ...] = (SIZE,)) -> LadderReading:
    exponents = {name: (Estimate(-0.4, (-0.5, -0.3)), Estimate(0.3, (0.2, 0.4))) for name in "ND"}
    return LadderReading(QUESTION, (FITTED,), exponents, predictions, tested, ())


def said(found: LadderReading) -> str:
    return " ".join(text for _, text in ladder_headline(found, None))


def test_the_answer_begins_with_what_to_run() -> None:
    words = said(reading(TESTED))
    assert words.startswith(
        "At N 1e9, D 2e10, run a batch of 256 [200, 330] at a peak learning rate of 0.0005 "
        "[0.0004, 0.0006]. The predicted recipe's expected regret is 0.02% of the loss. The "
        "predicted size has 100 times the compute of the largest run."
    )
    assert (
        "regret is 0.03% [0%, 0.09%] of its loss at its prediction, and 0.2% [0.1%, 0.3%]" in words
    )
    twice = said(reading(TESTED, TESTED))
    assert "the mean regret is 0.03% of the loss; with the recipe" in twice
    assert max(len(sentence.split()) for sentence in words.split(". ")) <= 30


def test_the_rest_of_the_recipe_is_said_to_be_carried_by_rules() -> None:
    run = Recipe(
        0,
        Hyperparameters(
            optimizer="adamw", global_batch_size=64, peak_lr=1e-3, num_steps=1000, warmup_steps=50,
            weight_decay=0.1, beta2=0.95, clip_norm=1.0,
        ),
        Layout(micro_batch_size=64),
    )  # fmt: skip
    whole = carried(run, 64_000, 256_000, SIZE.batch, SIZE.rate)
    words = " ".join(carried_words([whole]))
    assert (
        "Warmup keeps its share of the run, 50 of 1,000 steps, and the clip norm stays 1.00. "
        "Weight decay becomes 0.200 (was 0.100): the same timescale in epochs (Wang & Aitchison "
        "2024). beta2 becomes 0.814506 (was 0.95): the same half-life in tokens"
    ) in words
    [prediction] = ladder_summary(reading(TESTED), None, [whole])["predictions"]
    assert prediction["carried"]["steps"] == 1000
    recommended = predicted_recommendation(reading(TESTED), [whole])
    assert (recommended["warmup_steps"], recommended["expected_steps"]) == (50, 1000)
    assert "global_batch_size: 256" in recommended["recipe"]
    unknown = predicted_recommendation(reading(TESTED), ())
    assert unknown["recipe"] is None
    assert unknown["why"]["recipe"] == "a table does not hold the whole recipe"


def test_that_copying_did_as_well_is_said_first() -> None:
    worse = replace(TESTED, regret=TESTED.regret_copied, regret_copied=TESTED.regret)
    words = said(reading(worse))
    assert words.startswith(
        "In the back-test the predictions were no better than the recipe copied from the next "
        "smaller size: mean regret 0.2% against 0.03%."
    )


def test_an_interpolation_is_said_to_be_one() -> None:
    inside = replace(SIZE, compute_factor=0.5, is_interpolated=True)
    assert "it is an interpolation" in said(reading(TESTED, predictions=(inside,)))


def test_a_size_of_little_compute_may_lie_outside_those_that_ran() -> None:
    runs = [LadderRun((n, d), b, rate, 3.0 + abs(math.log(rate / 1e-3)) + abs(math.log(b / 64)))
            for n, d in ((1e6, 1e8), (1e7, 1e9), (1e8, 1e10))
            for rate in (5e-4, 1e-3, 2e-3) for b in (32, 64, 128)]  # fmt: skip
    asked = (
        {"N": 1e9, "D": 1e8}, {"N": 5e7, "D": 2e9}, {"N": 5e6, "D": 5e8}, {"N": 5e7, "D": 5e9},
        {"N": 5.1e7, "D": 5e9}, {"N": 5e5, "D": 5e7},
    )  # fmt: skip
    found = read_ladder(runs, replace(QUESTION, predict=asked))
    inside = [size.is_interpolated for size in found.predictions]
    assert inside == [False, False, True, True, True, False]
    assert "no more compute than the largest run, but lies outside the sizes run." in said(found)
    wider = [replace(run, scale=(run.scale[0], run.scale[1] * 10 ** (n % 2)))
             for run in runs for n in range(2)]  # fmt: skip
    found = read_ladder(wider, replace(QUESTION, predict=({"N": 5e6, "D": 2e9}, asked[1])))
    assert [size.is_interpolated for size in found.predictions] == [True, False]


@pytest.mark.parametrize(("share", "words"), [(0.0002, "0.02%"), (0.99, "99%"), (1.5, "150%")])
def test_a_large_regret_is_a_plain_number(share: float, words: str) -> None:
    assert percent(share) == words


def test_a_study_is_not_told_of_options() -> None:
    same = Problem("same_scale", name="num_tokens")
    assert problem_words(same, replace(QUESTION, is_study=True)) == "every size has the same tokens"
    assert problem_words(same, QUESTION).startswith("--scale num_tokens: every run")


def test_without_a_size_the_option_is_named() -> None:
    words = recommendation_reason(reading(TESTED, predictions=()))
    assert (
        words
        == "No prediction was requested; --predict N=VALUE,D=VALUE gives the recipe for a size."
    )


def checked(excess: float, ends: tuple[float, float] | None, around: int = 4) -> LadderCheck:
    seeds = None if ends is None else (2.0, 2.2)
    itself = CheckedRecipe(64, 1e-3, True, Estimate(2.1, seeds), Estimate(), 3, 0)
    beside = CheckedRecipe(32, 1e-3, False, Estimate(2.1), Estimate(excess, ends, 3), 3, 0)
    return LadderCheck({"N": 1e9, "D": 2e10}, (itself, *[beside] * around))


@pytest.mark.parametrize(("check", "says"), [
    (checked(0.01, (-0.1, 0.1)),
     "2.10 [2.00, 2.20] nats; no recipe at twice or half its rate or batch is clearly lower."),
    (checked(0.01, (-0.1, 0.1), around=3),
     "none of the recipes that can be compared with it is clearly lower."),
    (checked(-0.2, (-0.3, -0.1)), "no recipe at twice or half its rate or batch is clearly lower."),
    (checked(-0.2, (-0.25, -0.15)), "; a recipe at twice or half its rate or batch is lower."),
    (checked(-0.2, None), "2.10 nats; single seeds do not tell it from the recipes beside it."),
    (checked(0.0, None, around=0), "2.10 nats; single seeds do not tell it from the recipes"),
])  # fmt: skip
def test_a_check_is_said_in_one_sentence(check: LadderCheck, says: str) -> None:
    [words] = [text for _, text in ladder_headline(reading(TESTED), check) if "Trained" in text]
    assert says in words
    assert len(words.split()) <= 30
    assert ("not the minimum" in check_words(check)) == ("batch is lower" in says)


def test_a_study_s_own_sizes_are_said_in_words() -> None:
    study = LadderQuestion(("num_parameters_without_embeddings", "num_tokens"))
    assert size_words(study, (429260800, 8e9)) == (
        "4.29e8 parameters without embeddings, 8e9 tokens"
    )
    powers = {
        name: (Estimate(-0.4, (-0.5, -0.3)), Estimate(0.3, (0.2, 0.4))) for name in study.scale
    }
    words = exponent_words(replace(reading(TESTED), question=study, exponents=powers))
    assert len(words.split()) <= 30
    assert words == (
        "At the largest size the best rate moves as N^-0.40 [-0.50, -0.30] D^-0.40 "
        "[-0.50, -0.30], the best batch as N^0.30 [0.20, 0.40] D^0.30 [0.20, 0.40] "
        "(N non-embedding parameters, D tokens)."
    )


def test_sizes() -> None:
    assert size_words(QUESTION, (429260800, 8e9)) == "N 4.29e8, D 8e9"
    assert size_words(QUESTION, (12000, 0.5)) == "N 12,000, D 0.500"
