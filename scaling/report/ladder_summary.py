"""The `ladder` block of `summary.json`."""

from collections.abc import Sequence
from typing import Any

from scaling.analysis.ladder.back_test import LeftOut
from scaling.analysis.ladder.carried import CarriedRecipe
from scaling.analysis.ladder.check import LadderCheck
from scaling.analysis.ladder.question import LadderQuestion
from scaling.analysis.ladder.reading import LadderReading, PredictedSize
from scaling.analysis.statistics.uncertainty import ABSENT
from scaling.report.plain import attributes, estimated, finite, named, pair, with_why
from scaling.report.words.carried import NO_CARRIED, NO_CLIPPING
from scaling.report.words.ladder import (
    NO_CHECK,
    no_back_test,
    no_formulas,
    no_loss,
    recommendation_reason,
    why_not_checked,
    why_not_predicted,
)
from scaling.report.words.recipe_yaml import recipe_yaml


def ladder_summary(
    reading: LadderReading, check: LadderCheck | None, carried: Sequence[CarriedRecipe]
) -> dict[str, Any]:
    """Exponents at the largest size, predictions in the order asked, the back-test and a check."""
    question = reading.question
    entry = {
        "scale": list(question.scale),
        "largest": _size(question, reading.largest),
        "exponents": {
            field: {name: estimated(pairs[place]) for name, pairs in reading.exponents.items()}
            for place, field in enumerate(("peak_lr", "global_batch_size"))
        },
        "predictions": [
            _predicted(question, size, carried[place] if carried else None)
            for place, size in enumerate(reading.predictions)
        ],
        "back_test": [_left_out(question, size) for size in reading.back_test],
        "check": None if check is None else _check(check),
    }
    entry = with_why(entry, {"check": NO_CHECK})
    return entry if reading.back_test else entry | {"no_back_test": no_back_test(reading)}


def check_alone(question: LadderQuestion, check: LadderCheck, why: str) -> dict[str, Any]:
    """A check beside which nothing could be fitted, and why not."""
    entry = {
        "scale": list(question.scale),
        "largest": None,
        "exponents": None,
        "predictions": None,
        "back_test": None,
        "check": _check(check),
    }
    return with_why(entry, why)


def _check(check: LadderCheck) -> dict[str, Any]:
    """The recipes that were trained at the size kept out of the search, the prediction first."""
    recipes = [
        with_why(
            attributes(recipe, "global_batch_size", "peak_lr", "is_prediction", "num_seeds")
            | attributes(recipe, "num_diverged")
            | named("validation_loss", recipe.loss)
            | attributes(recipe, "excess"),
            why_not_checked(recipe),
        )
        for recipe in check.recipes
    ]
    return {"scale": dict(check.scale), "recipes": recipes}


def _size(question: LadderQuestion, scale: tuple[float, ...]) -> dict[str, float]:
    return dict(zip(question.scale, scale, strict=True))


def _predicted(
    question: LadderQuestion, size: PredictedSize, carried: CarriedRecipe | None
) -> dict[str, Any]:
    entry = {
        "scale": _size(question, size.scale),
        **_batch_and_rate(size),
        "expected_regret_ratio": finite(size.expected_regret),
        **attributes(size, "compute_factor", "is_interpolated", "is_least_batch"),
        "path": [
            {
                "global_batch_size": round(point.batch),
                "peak_lr": point.rate,
                "interval": pair(point.interval),
            }
            for point in size.path
        ],
        **named("loss", size.loss.estimate),
        "carried": _carried(carried) if carried else None,
    }
    why = dict.fromkeys(("loss", "loss_interval"), no_loss(size.loss))
    return with_why(entry, why | {"carried": NO_CARRIED})


def _batch_and_rate(size: PredictedSize | None) -> dict[str, Any]:
    return {
        "global_batch_size": size.batch if size else None,
        "global_batch_size_interval": pair(size.batch_interval) if size else None,
        "peak_lr": size.rate if size else None,
        "peak_lr_interval": pair(size.rate_interval) if size else None,
    }


def _carried(carried: CarriedRecipe) -> dict[str, Any]:
    """What rules carry from the best run of the largest size."""
    given = carried.recipe.hyperparameters
    entry = {
        "steps": given.num_steps,
        "examples": finite(carried.examples),
        **attributes(given, "warmup_steps", "clip_norm", "weight_decay", "beta2"),
    }
    return with_why(entry, {"clip_norm": NO_CLIPPING})


def _left_out(question: LadderQuestion, size: LeftOut) -> dict[str, Any]:
    published = size.regret_formulas
    entry = {
        "scale": _size(question, size.scale),
        "predicted": {"global_batch_size": size.batch, "peak_lr": size.rate},
        "global_batch_size_interval": pair(size.batch_interval),
        "peak_lr_interval": pair(size.rate_interval),
        "own": {"global_batch_size": size.own_batch, "peak_lr": size.own_rate},
        **named("regret_ratio", size.regret),
        **named("regret_ratio_copied", size.regret_copied),
        "regret_ratio_formulas": {name: finite(e.value) for name, e in published.items()},
        "regret_ratio_formulas_interval": {name: pair(e.interval) for name, e in published.items()},
        "inside": size.is_inside,
    }
    return entry if published else entry | {"no_formulas": no_formulas(question)}


def predicted_recommendation(
    reading: LadderReading, carried: Sequence[CarriedRecipe]
) -> dict[str, Any]:
    """The first prediction, as the summary's recommendation."""
    recipe = carried[0].recipe if carried else None
    given = recipe.hyperparameters if recipe else None
    first = reading.predictions[0] if reading.predictions else None
    entry = {
        **_batch_and_rate(first),
        **attributes(given, "warmup_steps", "clip_norm"),
        "num_workers": None,
        "expected_steps": given.num_steps if given else None,
        "expected_steps_interval": None,
        "expected_examples": finite(carried[0].examples) if carried else None,
        **named("expected_seconds", ABSENT),
        **named("expected_cost", ABSENT),
        **named("expected_loss", first.loss.estimate if first else ABSENT),
        "meets_limits": None,
        "reason": recommendation_reason(reading),
        "recipe": recipe_yaml(recipe, steps=given.num_steps if given else None, num_workers=None),
        "pareto_front": [],
    }
    return with_why(entry, why_not_predicted(reading, is_carried=given is not None))
