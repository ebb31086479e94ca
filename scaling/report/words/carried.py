"""What rules add to a predicted batch and rate, in words."""

from collections.abc import Sequence

from scaling.analysis.ladder.carried import CarriedRecipe
from scaling.report.words.numbers import number

NO_CARRIED = "a table does not hold the whole recipe"
NO_CLIPPING = "the best run of the largest size has none"


def carried_words(carried: Sequence[CarriedRecipe]) -> list[str]:
    """The rest of a predicted recipe, with the rule of each value; empty where it is not known."""
    if not carried:
        return []
    given, source = carried[0].recipe.hyperparameters, carried[0].source.hyperparameters
    clip = "" if given.clip_norm is None else f", and the clip norm stays {number(given.clip_norm)}"
    found = [
        "Its other values are carried by rules from the best run of the largest size; no run "
        "has tested them.",
        f"Warmup keeps its share of the run, {given.warmup_steps:,} of {given.num_steps or 0:,} "
        f"steps{clip}.",
    ]
    if given.weight_decay != source.weight_decay:
        found.append(
            f"Weight decay becomes {number(given.weight_decay)} (was "
            f"{number(source.weight_decay)}): the same timescale in epochs (Wang & Aitchison 2024)."
        )
    if given.beta2 != source.beta2:
        found.append(
            f"beta2 becomes {_beta(given.beta2)} (was {_beta(source.beta2)}): the same half-life "
            "in tokens (Marek et al. 2025)."
        )
    return found


def carried_facts(carried: Sequence[CarriedRecipe]) -> list[tuple[str, str]]:
    """The same for the first screen, by name."""
    if not carried:
        return []
    given, source = carried[0].recipe.hyperparameters, carried[0].source.hyperparameters
    found = [
        ("steps", f"{given.num_steps or 0:,}"),
        ("warmup_steps", f"{given.warmup_steps:,}"),
        ("clip_norm", number(given.clip_norm)),
        ("weight_decay", number(given.weight_decay)),
    ]
    return found if given.beta2 == source.beta2 else [*found, ("beta2", _beta(given.beta2))]


def _beta(value: float) -> str:
    return f"{value:.6g}"
