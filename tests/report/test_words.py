"""The sentences, word for word, of every fact that analysis may return."""

from dataclasses import replace

import pytest

from scaling.analysis.baseline import Nearest, NothingLearnt
from scaling.analysis.conditions import Conditions, OtherUnit
from scaling.analysis.critical_batch.agreement import Agreement
from scaling.analysis.critical_batch.branched_training import NoBranches
from scaling.analysis.critical_batch.tradeoff import NoTradeoff, TradeoffFit
from scaling.analysis.findings import Findings, analyse
from scaling.analysis.generalization.loss_parts import NoParts
from scaling.analysis.learning_rate.exponent import (
    LrScaling,
    NoExponent,
    NoSurge,
    Surge,
    Turn,
)
from scaling.analysis.learning_rate.tuning import Undertuned
from scaling.analysis.next_run.recommendation import NothingToRecommend
from scaling.analysis.statistics.uncertainty import ABSENT, Estimate, Interval
from scaling.analysis.trial_rows import Baseline, Sweep, TrialRow, sweep_of
from scaling.report.words import absent
from scaling.report.words.headline import first_screen
from scaling.report.words.numbers import (
    beside,
    chance,
    fixed,
    number,
    telling_digits,
    with_article,
    with_interval,
)
from scaling.report.words.reasons import nothing_learnt_words, reason_words
from scaling.report.words.remarks import agreement_words
from scaling.report.words.sources import averaged_words
from tests.analysis.synthetic import study
from tests.report.kinds import findings_of

A = Conditions("causal_lm", "a.txt", "a" * 64, "characters", 9.5)
B = Conditions("seq2seq", "b.txt", "b" * 64, "bytes", 7.5)


def nothing() -> Findings:
    return analyse(Sweep("s", "q", (), ()))


@pytest.mark.parametrize(("missing", "words"), [
    (None, ""),
    ("cells_differ_otherwise", "cells differ in more than the batch size"),
    ("few_batch_sizes", "fewer than two batch sizes can be fitted"),
    ("bend_above", "steps still fall as 1/B at 64, so the critical batch size may be larger"),
    ("bend_below", "steps no longer fall beyond 8, so the critical batch size may be smaller"),
    ("no_interval", "batch sizes are not enough, or scatter too much, for an interval"),
])  # fmt: skip
def test_no_tradeoff(missing: NoTradeoff | None, words: str) -> None:
    fit = TradeoffFit(batch_range=(8, 64), missing=missing)
    assert absent.no_tradeoff(fit) == words
    sure = replace(fit, bounds=(64.0, None) if missing == "bend_above" else (None, 8.0))
    assert absent.no_tradeoff(sure) == words.replace("may be", "is")


INSIDE = "0 of 0 batch sizes have a best rate whose interval lies inside the rates tried"


@pytest.mark.parametrize(("missing", "words"), [
    (None, ""),
    ("cells_differ_otherwise", "cells differ in more than the batch size"),
    ("no_rates_searched", "no cell tried three learning rates or more"),
    ("few_points", f"not enough points: {INSIDE}; the exponent needs 3, each with more rates than "
     "the curve has parameters"),
    ("best_at_edge", f"best at an edge: {INSIDE}; the exponent needs 3"),
    ("law_does_not_fit", "the law does not fit: best rates scatter about a power law by more than "
     "noise explains"),
    ("too_noisy", f"too noisy: {INSIDE}"),
])  # fmt: skip
def test_no_exponent(missing: NoExponent | None, words: str) -> None:
    law = LrScaling(ABSENT, (8, 64), missing)
    assert absent.no_exponent(replace(nothing(), lr_scaling=law)) == words


@pytest.mark.parametrize(("missing", "words"), [
    (None, ""),
    ("few_batch_sizes", "not enough data: 4 of at least 5 batch sizes"),
    ("turn_outside", "its peak is not among the batch sizes tried"),
    ("no_power", "no power law was fitted either"),
    ("not_by_surface", "the exponent is read from the loss surface"),
])  # fmt: skip
def test_no_surge(missing: NoSurge | None, words: str) -> None:
    assert absent.no_surge(Surge(num_batch_sizes=4, missing=missing)) == words


@pytest.mark.parametrize(("missing", "words"), [
    (None, ""),
    ("not_measured", "not measured"),
    ("none_ended", "no branch ended"),
    ("no_reference", "no branch could be compared with the unchanged batch"),
])  # fmt: skip
def test_no_branches(missing: NoBranches | None, words: str) -> None:
    assert absent.no_branches(missing) == words


@pytest.mark.parametrize(("missing", "words"), [
    (None, ""),
    ("seed_diverged", "a seed of this cell or of the reference diverged"),
    ("no_common_seed", "no seed has losses along both runs"),
    ("longer_than_reference", "it was run for more steps than the reference"),
    ("before_first_evaluation", "the reference was not yet evaluated after so few steps"),
])  # fmt: skip
def test_no_parts(missing: NoParts | None, words: str) -> None:
    assert absent.no_parts(missing) == words


@pytest.mark.parametrize(("reason", "words"), [
    ("lowest_rate_best", "the best rate is the lowest tried"),
    ("highest_rate_best", "the best rate is the highest tried"),
    ("falls_towards_lowest", "results still improve towards the lowest rate tried"),
    ("falls_towards_highest", "results still improve towards the highest rate tried"),
    ("best_still_falling", "the best result was still improving with more trials"),
])  # fmt: skip
def test_undertuned(reason: Undertuned, words: str) -> None:
    assert absent.undertuned(reason) == words


@pytest.mark.parametrize(("reason", "words"), [
    ("task", "the tasks are causal_lm and seq2seq"),
    ("unknown_texts", "the content of their data was not recorded"),
    ("texts", "they are evaluated on different texts (SHA-256 of the data: aaaaaaaaaaaa and "
     "bbbbbbbbbbbb)"),
    ("tokenizer", "their tokenizers are characters and bytes"),
    ("targets_per_example", "the same texts have 9.5 and 7.5 targets per example"),
    ("learnt_subwords", "their subword vocabularies were learnt from different texts"),
])  # fmt: skip
def test_other_unit(reason: OtherUnit, words: str) -> None:
    assert absent.other_unit(reason, A, B) == words


@pytest.mark.parametrize(("nearest", "words"), [
    ("single_trial", "Over seeds no recipe beats always guessing the class frequencies "
     "(0.700 nats), so no batch is recommended; the lowest loss of a single trial is 0.500 nats."),
    ("accuracy", "No trial's loss beats always guessing the class frequencies (0.700 nats), so "
     "no batch is recommended; the best accuracy is 0.600, the likeliest guess's 0.550."),
    ("within_error", "No trial beats always guessing the class frequencies (0.700 nats) by more "
     "than the evaluation's error: the lowest loss is 0.500 nats, so no batch is recommended."),
    ("none", "No trial beats always guessing the class frequencies (0.700 nats): the models "
     "learned nothing, so no batch is recommended."),
])  # fmt: skip
def test_nothing_learnt(nearest: Nearest, words: str) -> None:
    baseline = Baseline("class frequencies", 0.7, accuracy=0.55)
    assert nothing_learnt_words(NothingLearnt(baseline, nearest, 0.5, 0.6)) == words


@pytest.mark.parametrize(("reason", "words"), [
    (NothingToRecommend("target"), "no cell reached the target with every replicate."),
    (NothingToRecommend("stricter_target"), "every run that reached the target began at it; set a "
     "stricter one."),
    (NothingToRecommend("loss"), "no cell ended with a loss with every replicate."),
    (NothingToRecommend("times"), "no time was measured."),
    (NothingToRecommend("workers", 3), "no batch size was measured with as many examples per "
     "worker as 3 workers would have, and none on 3 workers."),
])  # fmt: skip
def test_nothing_to_recommend(reason: NothingToRecommend, words: str) -> None:
    assert reason_words(reason) == f"Not enough data: {words}"


@pytest.mark.parametrize(("interval", "overlap", "words"), [
    (None, None, "2.00 (no interval); not enough data to distinguish them."),
    ((0.9, 4), True, "2.00 [0.900, 4.00]: the data do not distinguish them."),
    ((1.1, 4), True, "2.00 [1.10, 4.00]: they differ; their intervals overlap."),
    ((1.1, 4), False, "2.00 [1.10, 4.00]: they differ; their intervals do not overlap."),
])  # fmt: skip
def test_agreement(interval: Interval | None, overlap: bool | None, words: str) -> None:
    pair = Agreement("steps_examples", "noise_scale_at_end", Estimate(2.0, interval), overlap)
    noise = "the gradient noise scale at the end"
    assert agreement_words(pair) == f"Ratio of the steps–examples fit to {noise}: {words}"


@pytest.mark.parametrize(("probability", "start"), [
    (0.96, "The best peak learning rate stops rising near batch 24 [24, 64] (probability 96%); "
     "as one power of the batch it is "),
    (0.6, "The best peak learning rate stops rising near batch 24 [24, 64] (probability 60%); "),
    (0.4, "The best peak learning rate moves as the batch to the power "),
])  # fmt: skip
def test_one_power_is_not_said_alone_where_the_rate_stops_rising(
    probability: float, start: str
) -> None:
    found = findings_of("recorded study")
    law = replace(found.lr_scaling, turns=Turn(24.0, (24.0, 64.0), probability, None))
    lines = first_screen(replace(found, lr_scaling=law))
    said = next(line.text for line in lines if line.topic == "rate")
    assert said.startswith(start)
    assert len(said.split()) <= 30


def test_a_best_rate_that_falls_is_not_said_to_stop_rising() -> None:
    found = findings_of("recorded study")
    law = replace(found.lr_scaling, turns=Turn(24.0, (24.0, 64.0), 0.96, None, falls=True))
    lines = first_screen(replace(found, lr_scaling=law))
    said = next(line.text for line in lines if line.topic == "rate")
    start = "The best peak learning rate rises up to batch 24"
    assert said.startswith(start)
    assert " and falls beyond (probability 96%)" in said


@pytest.mark.parametrize(("value", "digits", "words"), [
    (0.00028, 2, "2.8e-04"), (3.2e-05, 3, "3.2e-05"), (0.0123, 3, "0.0123"), (12800, 3, "12,800"),
])  # fmt: skip
def test_numbers(value: float, digits: int, words: str) -> None:
    assert number(value, digits) == words


def test_compared_values_are_printed_as_different_ones() -> None:
    assert telling_digits(1.1604, 1.1623) == 4
    assert telling_digits(1.16, 1.26) == telling_digits(1.16, 1.16) == 3
    assert beside(Estimate(1.05, (1.000005, 1.1)), 1.0) == "1.05000 [1.00001, 1.10000]"


@pytest.mark.parametrize(("probability", "words"), [
    (0.93, "0.93"), (0.999, "over 0.99"), (1.0, "over 0.99"), (0.001, "under 0.01"),
])  # fmt: skip
def test_a_probability_is_not_rounded_to_certainty(probability: float, words: str) -> None:
    assert chance(probability) == words


def test_a_power_has_as_many_decimals_as_its_interval_and_no_minus_zero() -> None:
    assert fixed(Estimate(-0.001, (-0.0502, 0.5)), 2) == "0.00 [-0.05, 0.50]"
    assert with_interval(Estimate(0.0, (0.0, 0.0))) == "0"


@pytest.mark.parametrize(("noun", "words"), [
    ("RMSE", "an RMSE"), ("mse", "an mse"), ("SSIM", "an SSIM"), ("NLL", "an NLL"),
    ("LM loss", "an LM loss"), ("MAP", "a MAP"), ("ROUGE", "a ROUGE"), ("F1", "an F1"),
    ("AUC", "an AUC"), ("one-step error", "a one-step error"), ("chrF", "a chrF"),
    ("loss", "a loss"), ("MCC", "an MCC"), ("MAE", "an MAE"), ("unit loss", "a unit loss"),
])  # fmt: skip
def test_articles(noun: str, words: str) -> None:
    assert with_article(noun) == words


def averaging(row: TrialRow, half_life: float | None) -> TrialRow:
    assert row.recipe is not None
    given = replace(row.recipe.hyperparameters, weight_average_half_life_examples=half_life)
    return replace(row, recipe=replace(row.recipe, hyperparameters=given))


@pytest.mark.parametrize(("half_lives", "says"), [
    ((None, None), ""),
    ((1500.0, 1500.0), "Losses and steps to a target are of weights averaged along the run, with a "
     "half-life of 1,500 examples."),
    ((500.0, 1500.0), "Losses and steps to a target are of weights averaged along the run, with a "
     "half-life of 500 to 1,500 examples."),
    ((None, 500.0), "Where a recipe averages its weights, losses and steps to a target are of the "
     "weights averaged along the run, with a half-life of 500 examples."),
])  # fmt: skip
def test_averaged_weights_are_said(half_lives: tuple[float | None, ...], says: str) -> None:
    sweep = sweep_of(study())
    rows = [averaging(row, half_lives[place % 2]) for place, row in enumerate(sweep.rows)]
    assert averaged_words(replace(sweep, rows=tuple(rows))) == says
