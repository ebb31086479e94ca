"""What a predicted size takes over from the largest one that was run, by stated rules.

Batch and rate are predicted. Everything else of a recipe was not searched at every size:

- warmup keeps its share of the run, and the clip norm its value;
- weight decay keeps its timescale in epochs (Wang & Aitchison 2024, arXiv:2405.13698): the
  product of rate, decay and steps;
- beta2 keeps its half-life in tokens (Marek et al. 2025, arXiv:2507.07101): beta2^(B'/B).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scaling.analysis.ladder.question import LadderQuestion
from scaling.analysis.ladder.reading import PredictedSize
from scaling.analysis.trial_rows import Sweep, TrialRow
from scaling.arithmetic.rules import RuleDomainError, scaled_beta2, scaled_weight_decay
from scaling.optimizers.catalog import optimizers_without
from scaling.records.recipe import Recipe
from scaling.records.scale import NUM_EXAMPLES, NUM_PARAMETERS, NUM_TOKENS, WITHOUT_EMBEDDINGS

_KNOWN = frozenset({NUM_PARAMETERS, WITHOUT_EMBEDDINGS, NUM_TOKENS, NUM_EXAMPLES})
_DATA = (NUM_TOKENS, NUM_EXAMPLES)


@dataclass(frozen=True)
class CarriedRecipe:
    """The whole recipe of a predicted size.

    Attributes:
        recipe: At the predicted batch and rate, with its number of steps.
        examples: That the run sees.
        source: The recipe that it was carried from.
    """

    recipe: Recipe
    examples: float
    source: Recipe


def carried_recipes(
    sweep: Sweep, question: LadderQuestion, predictions: Sequence[PredictedSize]
) -> tuple[CarriedRecipe, ...]:
    """The recipe of each prediction; empty for a table, which holds no whole recipe."""
    source = _best_of_largest(sweep, question)
    if source is None or source.recipe is None or not set(question.scale) <= _KNOWN:
        return ()
    examples, recipe = source.examples or 0.0, source.recipe
    found: list[CarriedRecipe] = []
    for size in predictions:
        scale = dict(zip(question.scale, size.scale, strict=True))
        ratio = _data_ratio(scale, source.cell)
        found.append(carried(recipe, examples, ratio * examples, size.batch, size.rate))
    return tuple(found)


def carried(
    recipe: Recipe, examples: float, new_examples: float, batch: int, rate: float
) -> CarriedRecipe:
    """A recipe at another batch, rate and number of examples, by the rules above.

    Args:
        recipe: That was run.
        examples: That its run saw.
        new_examples: That the new run is to see.
        batch: Examples per optimizer step of the new run.
        rate: Its peak learning rate.

    Returns:
        The new recipe. A value that its rule carries out of its domain stays as it was.
    """
    given = recipe.hyperparameters
    num_steps = max(math.ceil(new_examples / batch), 1)
    share = given.warmup_steps / given.num_steps if given.num_steps else 0.0
    moved = replace(
        given,
        global_batch_size=batch,
        peak_lr=rate,
        num_steps=num_steps,
        warmup_steps=math.ceil(share * num_steps),
        weight_decay=_weight_decay(recipe, examples / new_examples, batch, rate),
        beta2=_beta2(recipe, batch),
    )
    layout = replace(recipe.layout, micro_batch_size=batch, grad_accum_steps=1)
    return CarriedRecipe(
        replace(recipe, hyperparameters=moved, layout=layout), new_examples, source=recipe
    )


def _weight_decay(recipe: Recipe, examples_ratio: float, batch: int, rate: float) -> float:
    given = recipe.hyperparameters
    if given.optimizer in optimizers_without("timescale"):
        return given.weight_decay
    try:
        return scaled_weight_decay(
            given.weight_decay * examples_ratio,
            base_lr=given.peak_lr,
            peak_lr=rate,
            base_batch_size=given.global_batch_size,
            global_batch_size=batch,
        )
    except RuleDomainError:
        return given.weight_decay


def _beta2(recipe: Recipe, batch: int) -> float:
    given = recipe.hyperparameters
    if given.optimizer in optimizers_without("token_half_life"):
        return given.beta2
    try:
        return scaled_beta2(
            given.beta2, base_batch_size=given.global_batch_size, global_batch_size=batch
        )
    except RuleDomainError:
        return given.beta2


def _best_of_largest(sweep: Sweep, question: LadderQuestion) -> TrialRow | None:
    """The run with the lowest loss at the size with the most compute."""
    rows = [row for row in sweep.rows if row.validation_loss is not None and row.status == "done"]
    rows = [row for row in rows if all(name in row.cell for name in question.scale)]
    if not rows:
        return None

    def compute(row: TrialRow) -> float:
        return math.prod(float(row.cell[name]) for name in question.scale)

    largest = max(compute(row) for row in rows)
    return min(
        (row for row in rows if compute(row) == largest),
        key=lambda row: (row.validation_loss or 0.0, row.trial_id),
    )


def _data_ratio(scale: Mapping[str, float], cell: Mapping[str, object]) -> float:
    """Data of a size over the data of a run; 1 where sizes do not differ in it."""
    for name in _DATA:
        if name in scale:
            return scale[name] / float(str(cell[name]))
    return 1.0
