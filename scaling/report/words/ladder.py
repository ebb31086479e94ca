"""What runs of several sizes say, in sentences."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, assert_never

from scaling.analysis.ladder.back_test import FEWEST_LEFT, LeftOut
from scaling.analysis.ladder.carried import CarriedRecipe
from scaling.analysis.ladder.check import CheckedRecipe, LadderCheck
from scaling.analysis.ladder.loss_law import FEWEST_SIZES, ExpectedLoss
from scaling.analysis.ladder.question import LadderQuestion
from scaling.analysis.ladder.reading import LadderReading, PredictedSize
from scaling.analysis.ladder.runs import FEWEST_OF_SIZE, FEWEST_RUNS, Problem
from scaling.analysis.statistics.uncertainty import Estimate
from scaling.records.scale import NUM_EXAMPLES, NUM_PARAMETERS, NUM_TOKENS, WITHOUT_EMBEDDINGS
from scaling.report.words.carried import NO_CARRIED, NO_CLIPPING, carried_facts
from scaling.report.words.numbers import (
    DASH,
    between,
    counted,
    either,
    fixed,
    number,
    rate,
    rate_with_bounds,
    with_ends,
    with_unit,
)

FORMULAS = {"step_law": "Step Law", "deepseek": "DeepSeek", "minicpm": "MiniCPM (batch alone)"}

LadderTopic = Literal["run", "batch", "prediction", "unknown"]

_SCALES = {
    NUM_PARAMETERS: ("parameters", "N parameters"),
    WITHOUT_EMBEDDINGS: ("parameters without embeddings", "N non-embedding parameters"),
    NUM_TOKENS: ("tokens", "D tokens"),
    NUM_EXAMPLES: ("examples", "D examples"),
}
"""A study's own numbers of a size: what they count, and with the letter that stands for them."""

WAY_CAPTION = (
    "Each point is a size. Bars are 90% intervals of the best value. The band is the fit along the "
    "straight line from the smallest size to the largest; other sizes may lie off it. Each size "
    "left out is predicted from those of less compute, and drawn beside its own best value."
)
VALLEY_CAPTION = (
    "Each point is a run: its loss above its size's lowest, against its distance from that "
    "size's best value. All other settings vary as well. Open triangles at the top edge lie off "
    "the scale or diverged."
)


_AROUND = 4
"""Recipes beside the prediction that a check trains."""
LEAST_BATCH = "The predicted batch is the smallest that ran; smaller ones may reach a lower loss."
NO_CHECK = "no size was trained at its prediction (ladder.check of a study)"


def why_not_checked(recipe: CheckedRecipe) -> dict[str, str]:
    """Why numbers of a recipe of a check are null, by field."""
    loss = excess = "one seed"
    if recipe.loss.value is None:
        loss = excess = "a seed diverged" if recipe.num_diverged else "no seed ended with a loss"
    elif recipe.is_prediction:
        excess = "it is the prediction itself"
    elif recipe.excess.value is None:
        excess = "a seed of the prediction diverged, or none ended with a loss"
    return {
        "validation_loss": loss, "validation_loss_interval": loss,
        "excess": excess, "excess_interval": excess,
    }  # fmt: skip


def checked(check: LadderCheck) -> str:
    """Whether the prediction was the bottom, in a short sentence."""
    if words := _not_reached(check):
        return words
    loss = check.recipes[0].loss
    reached = with_unit(with_ends(loss), check.loss_unit)
    start = f"Trained at its prediction, the size kept out of the search reaches {reached}"
    if check.lower:
        return f"{start}; a recipe at twice or half its rate or batch is lower."
    return f"{start}; {_not_lower(check)}."


def _not_reached(check: LadderCheck) -> str:
    """Why the prediction has no loss; empty where it has one."""
    prediction = check.recipes[0]
    if not prediction.is_prediction or not prediction.num_seeds:
        return "The check is not over: the prediction itself has no result."
    if not prediction.num_diverged:
        return ""
    of = prediction.num_seeds
    seeds = f" with {prediction.num_diverged} of {of} seeds" if of > 1 else ""
    return f"Trained at its prediction, the size kept out of the search diverged{seeds}."


def _not_lower(check: LadderCheck) -> str:
    """That no recipe beside the prediction is known to be lower, as far as that is known."""
    compared = [recipe for recipe in check.recipes if recipe.excess.interval is not None]
    if not compared:
        return "single seeds do not tell it from the recipes beside it"
    if len(compared) < _AROUND:
        return "none of the recipes that can be compared with it is clearly lower"
    return "no recipe at twice or half its rate or batch is clearly lower"


def check_words(check: LadderCheck) -> str:
    """Whether the prediction was the bottom, in a sentence or two."""
    if words := _not_reached(check):
        return words
    prediction = check.recipes[0]
    start = (
        f"Trained at the prediction (batch {prediction.global_batch_size:,}, rate "
        f"{rate(prediction.peak_lr)}), the size kept out of the search reaches "
        f"{with_unit(with_ends(prediction.loss), check.loss_unit)}."
    )
    if check.lower:
        lower = check.lower[0]
        low, high = lower.excess.interval or (0.0, 0.0)
        by = Estimate(-(lower.excess.value or 0.0), (-high, -low))
        return (
            f"{start} It is not the minimum: batch {lower.global_batch_size:,} at rate "
            f"{rate(lower.peak_lr)} is lower, by {with_unit(either(by), check.loss_unit)}."
        )
    ended = _not_lower(check)
    return f"{start} {ended[0].upper()}{ended[1:]}."


def problem_words(problem: Problem, question: LadderQuestion) -> str:
    """Why runs cannot be fitted, in one line."""
    columns = " and ".join(question.scale)
    scale = "" if question.is_study else f"--scale {' '.join(question.scale)}: "
    match problem.kind:
        case "one_size":
            return f"{scale}{counted(problem.count, 'size')}, and a ladder needs at least two"
        case "same_scale":
            if question.is_study:
                return f"every size has the same {scale_words(problem.name)}"
            return f"--scale {problem.name}: every run has the same {problem.name}; leave it out"
        case "few_runs":
            return (
                f"{counted(problem.count, 'run')} with a loss, and a ladder needs at least "
                f"{FEWEST_RUNS}"
            )
        case "few_of_size":
            size = size_words(question, problem.scale)
            way_out = "" if question.is_study else "; --where leaves it out"
            return (
                f"the size {size} has {counted(problem.count, 'run')} with a loss, and each size "
                f"needs at least {FEWEST_OF_SIZE}{way_out}"
            )
        case "one_batch":
            return f"every run has the same batch size; a ladder over {columns} needs two"
        case "one_rate":
            return f"every run has the same learning rate; a ladder over {columns} needs two"
        case "not_positive":
            return "a ladder needs losses above 0: sizes are compared by ratios of the loss"
        case "maximized":
            return f"--scale needs a loss; --maximize {problem.name} cannot take its place"
    assert_never(problem.kind)


def not_fitted_words(question: LadderQuestion, sizes: Mapping[tuple[float, ...], int]) -> str:
    """Which sizes are no part of the fit, and how many recipes of each have a loss."""
    named = [f"{size_words(question, s)} ({counted(n, 'recipe')})" for s, n in sizes.items()]
    return f"Not fitted, since too few recipes have a loss: {'; '.join(named)}." if named else ""


def size_words(question: LadderQuestion, scale: Sequence[float]) -> str:
    """A size in words: 1.07e9 parameters, 2e10 tokens; or N 1.07e9, D 2e10 of a table's columns."""
    pairs = zip(question.scale, scale, strict=True)
    return ", ".join(
        f"{_amount(value)} {_SCALES[name][0]}" if name in _SCALES else f"{name} {_amount(value)}"
        for name, value in pairs
    )


def scale_words(name: str) -> str:
    """What a number of a size counts: a study's own in words, a table's column by its name."""
    return _SCALES[name][0] if name in _SCALES else name


def _amount(value: float) -> str:
    """A number of a size: 12,000 or 1.07e9."""
    if 1e-3 <= value < 1e6:
        return number(value)
    mantissa, _, power = f"{value:.3g}".partition("e")
    return f"{float(mantissa):g}e{int(power)}" if power else f"{float(f'{value:.2e}'):.2e}"


def percent(value: float | None) -> str:
    """A regret as a share of the loss: 0.023%."""
    if value is not None and value >= 0.995:
        return f"{100 * value:,.0f}%"
    return "–" if value is None else f"{100 * value:.2g}%"


def prediction_words(question: LadderQuestion, size: PredictedSize) -> str:
    """One prediction in a few sentences."""
    text = (
        f"At {size_words(question, size.scale)}, run a batch of {size.batch:,} "
        f"{between(size.batch_interval)} with a peak learning rate of "
        f"{rate_with_bounds(size.rate, size.rate_interval)}. The expected regret is "
        f"{percent(size.expected_regret)} of the loss. {_how_far(size)}"
    )
    if size.is_least_batch:
        text += f" {LEAST_BATCH}"
    if (loss := loss_words(size.loss)) != DASH:
        text += f" The expected loss is {loss}."
    return text


def _how_far(size: PredictedSize) -> str:
    factor = number(size.compute_factor, 2)
    if size.is_interpolated:
        return (
            "The predicted size takes no more compute than the largest run: it is an interpolation."
        )
    if size.compute_factor <= 1:
        return (
            "The predicted size takes no more compute than the largest run, but lies outside the "
            "sizes run."
        )
    return f"The predicted size has {factor} times the compute of the largest run."


def _warning(reading: LadderReading) -> list[str]:
    """That copying would have done as well; empty where the prediction was better."""
    tested = reading.back_test
    if not tested or _mean(tested, copied=False) < _mean(tested, copied=True):
        return []
    return [
        "In the back-test the predictions were no better than the recipe copied from the next "
        f"smaller size: mean regret {percent(_mean(tested, copied=False))} against "
        f"{percent(_mean(tested, copied=True))}."
    ]


def _largest_regret(tested: Sequence[LeftOut]) -> str:
    """Of the size with the most compute: at its prediction, and at the recipe copied."""
    largest = tested[-1]
    ours, copied = (regret_words(found) for found in (largest.regret, largest.regret_copied))
    return (
        f"The largest size's regret is {ours} of its loss at its prediction, and {copied} at the "
        "recipe of the next smaller size."
    )


def regret_words(regret: Estimate) -> str:
    """A regret as a share of the loss, with its interval."""
    ends = f" [{', '.join(map(percent, regret.interval))}]" if regret.interval else ""
    return f"{percent(regret.value)}{ends}"


def _mean_regret(tested: Sequence[LeftOut]) -> str:
    return (
        f"With each of the {len(tested)} largest sizes predicted from smaller ones, the mean "
        f"regret is {percent(_mean(tested, copied=False))} of the loss; with the recipe of the "
        f"next smaller size it is {percent(_mean(tested, copied=True))}."
    )


def ladder_headline(
    reading: LadderReading, check: LadderCheck | None
) -> Iterator[tuple[LadderTopic, str]]:
    """What to run, how sure that is, and whether a check agrees, a short sentence each."""
    for warning in _warning(reading):
        yield "unknown", warning
    if reading.predictions:
        first = reading.predictions[0]
        yield (
            "run",
            (
                f"At {size_words(reading.question, first.scale)}, run a batch of {first.batch:,} "
                f"{between(first.batch_interval)} at a peak learning rate of "
                f"{rate_with_bounds(first.rate, first.rate_interval)}."
            ),
        )
        regret = percent(first.expected_regret)
        yield "run", f"The predicted recipe's expected regret is {regret} of the loss."
        yield "run", _how_far(first)
        if first.is_least_batch:
            yield "batch", LEAST_BATCH
    else:
        yield "run", recommendation_reason(reading)
    if reading.back_test:
        if len(reading.back_test) > 1:
            yield "prediction", _mean_regret(reading.back_test)
        yield "prediction", _largest_regret(reading.back_test)
    else:
        yield "unknown", f"There is no back-test: {no_back_test(reading)}."
    if check is not None:
        yield "prediction", checked(check)
    else:
        yield "unknown", "No run at the predicted size was compared: train it to check."


def _mean(tested: Sequence[LeftOut], *, copied: bool) -> float:
    values = [(size.regret_copied if copied else size.regret).value or 0.0 for size in tested]
    return sum(values) / len(values)


def exponent_words(reading: LadderReading) -> str:
    """How the best rate and batch move with each number of a size, at the largest size."""
    words: list[str] = []
    for place, what in enumerate(("rate", "batch")):
        powers = [
            f"{_SCALES[name][1][0] if name in _SCALES else name}^{power_words(pairs[place])}"
            for name, pairs in reading.exponents.items()
        ]
        words.append(f"the best {what} {'moves ' * (not place)}as {' '.join(powers)}")
    meant = [_SCALES[name][1] for name in reading.exponents if name in _SCALES]
    units = f" ({', '.join(meant)})" if meant else ""
    return f"At the largest size {', '.join(words)}{units}."


def power_words(exponent: Estimate) -> str:
    """An exponent and its interval: 0.31 [0.24, 0.38]."""
    return fixed(exponent, 2)


def loss_words(loss: ExpectedLoss) -> str:
    """The loss to be expected and its interval; a dash where there is none."""
    return fixed(loss.estimate, 3)


def recommendation_reason(reading: LadderReading) -> str:
    """Why this recipe, or why none."""
    question = reading.question
    if not reading.predictions and question.is_study:
        return "No prediction was requested: ladder.predict of the study file names no size."
    if not reading.predictions:
        example = ",".join(f"{name}=VALUE" for name in question.scale)
        return f"No prediction was requested; --predict {example} gives the recipe for a size."
    return prediction_words(question, reading.predictions[0])


def why_not_predicted(reading: LadderReading, *, is_carried: bool) -> dict[str, str]:
    """Why fields of the recommendation are null, by field."""
    if not reading.predictions:
        why = recommendation_reason(reading)
        names = (
            "global_batch_size", "global_batch_size_interval", "peak_lr", "peak_lr_interval",
            "expected_loss", "expected_loss_interval",
        )  # fmt: skip
        found = dict.fromkeys(names, why)
    else:
        why = no_loss(reading.predictions[0].loss)
        found = dict.fromkeys(("expected_loss", "expected_loss_interval"), why)
    not_run = "no run of this size was measured"
    names = (
        "num_workers", "expected_steps", "expected_steps_interval", "expected_examples",
        "expected_seconds", "expected_seconds_interval", "expected_cost",
        "expected_cost_interval",
    )  # fmt: skip
    found |= dict.fromkeys(names, not_run) | {"meets_limits": not_run}
    if is_carried:
        return found | {"clip_norm": NO_CLIPPING}
    unsaid = ("recipe", "warmup_steps", "clip_norm", "expected_steps", "expected_examples")
    return found | dict.fromkeys(unsaid, NO_CARRIED if reading.predictions else why)


def no_loss(loss: ExpectedLoss) -> str:
    """Why no loss is expected; empty where one is."""
    match loss.missing:
        case None:
            return ""
        case "one_scale":
            return "L = E + A N^-α + B D^-β needs two columns of size"
        case "few_sizes":
            return (
                f"L = E + A N^-α + B D^-β needs {FEWEST_SIZES} sizes, and there are "
                f"{loss.num_sizes}"
            )
        case "same_in_one":
            return "L = E + A N^-α + B D^-β needs three values in each column of size"
        case "not_identified":
            return "the losses do not identify L = E + A N^-α + B D^-β at this size"
    assert_never(loss.missing)


def no_back_test(reading: LadderReading) -> str:
    """Why there is no back-test."""
    return (
        f"{counted(len(reading.sizes), 'size')} leave fewer than {FEWEST_LEFT} of less compute "
        "to predict the largest from"
    )


def no_formulas(question: LadderQuestion) -> str:
    """Why no published formula applies."""
    if question.tokens_per_example is None and question.is_study:
        return "examples of this task have no tokens"
    if question.tokens_per_example is None:
        return "--tokens-per-example says how many tokens one unit of the batch is"
    return "published formulas need parameters and tokens"


def recipe_words(size: PredictedSize) -> dict[str, str]:
    """What to run at one size, by name; a dash for a loss that is not known."""
    return {
        "global_batch_size": f"{size.batch:,} {between(size.batch_interval)}",
        "peak_lr": rate_with_bounds(size.rate, size.rate_interval),
        "expected regret": percent(size.expected_regret),
        "compute of the largest run": f"× {number(size.compute_factor, 2)}",
        "expected loss": loss_words(size.loss),
    }


def predicted_facts(
    reading: LadderReading, carried: Sequence[CarriedRecipe]
) -> list[tuple[str, str]]:
    """The first prediction, for the first screen."""
    if not reading.predictions:
        return []
    first = reading.predictions[0]
    words = [
        (name, _amount(value))
        for name, value in zip(reading.question.scale, first.scale, strict=True)
    ]
    words += [(name, word) for name, word in recipe_words(first).items() if word != DASH]
    return words + carried_facts(carried)
